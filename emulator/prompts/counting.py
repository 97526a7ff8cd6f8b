"""Counting prompt tokens by the rules of OpenAI's cookbook: text, functions, images."""

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, Protocol

from tokenizer import count_tokens, encoding_name

# Base and tile tokens of an image, by prefix of the model's name; the first match applies.
_IMAGE_TOKENS = (
    ("gpt-4o-mini", 2833, 5667),
    ("o1", 75, 150),
    ("o3", 75, 150),
    ("gpt-5", 70, 140),
    ("", 85, 170),
)
_UNKNOWN_IMAGE_SIZE = (1024, 1024)


class FunctionDefinition(Protocol):
    """A function that the model may call."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def description(self) -> str | None:
        """Its description."""

    @property
    def parameters(self) -> dict[str, Any] | None:
        """The JSON schema of its arguments."""


def count_prompt_tokens(model: str, texts: Iterable[str], messages: int, named: int) -> int:
    """Return the prompt tokens of a chat's text, by the rule of OpenAI's cookbook.

    Args:
        model: The model, which decides the encoding and the cost of a message.
        texts: Every string value of the messages, including roles and names.
        messages: The number of messages.
        named: The number of messages with a name.
    """
    per_message, per_name = (4, -1) if model == "gpt-3.5-turbo-0301" else (3, 1)
    tokens = sum(count_tokens(text, model) for text in texts)
    return 3 + messages * per_message + named * per_name + tokens


def count_function_tokens(model: str, functions: Iterable[FunctionDefinition]) -> int:
    """Return the prompt tokens of function definitions, by the rule of OpenAI's cookbook."""
    per_function = 7 if encoding_name(model) == "o200k_base" else 10
    tokens = [per_function + _count_definition(function, model) for function in functions]
    return sum(tokens) + 12 if tokens else 0


def _count_definition(function: FunctionDefinition, model: str) -> int:
    tokens = count_tokens(f"{function.name}:{_undotted(function.description)}", model)
    properties = (function.parameters or {}).get("properties")
    if not isinstance(properties, dict) or not properties:
        return tokens
    return tokens + 3 + sum(_count_property(*item, model) for item in properties.items())


def _count_property(name: str, schema: object, model: str) -> int:
    keywords = schema if isinstance(schema, dict) else {}
    line = f"{name}:{keywords.get('type', '')}:{_undotted(keywords.get('description'))}"
    tokens = 3 + count_tokens(line, model)
    if isinstance(items := keywords.get("enum"), list):
        tokens += sum(3 + count_tokens(str(item), model) for item in items) - 3
    return tokens


def _undotted(text: str | None) -> str:
    return str(text or "").removesuffix(".")


def count_image_tokens(
    model: str, width: int | None, height: int | None, detail: str | None
) -> int:
    """Return the prompt tokens of one image, by OpenAI's tile formula.

    At low detail only the base counts. Else the image is scaled down to 2048 x 2048 pixels and then
    to a short side of 768, and each tile of 512 x 512 counts too. An image of unknown size counts
    as 1024 x 1024.

    >>> count_image_tokens("gpt-4o", 2048, 4096, "high")
    1105
    """
    base, tile = next(
        (base, tile) for start, base, tile in _IMAGE_TOKENS if model.startswith(start)
    )
    if detail == "low":
        return base
    if not width or not height:
        width, height = _UNKNOWN_IMAGE_SIZE
    scale = min(Fraction(1), Fraction(2048, max(width, height)), Fraction(768, min(width, height)))
    return base + tile * math.ceil(width * scale / 512) * math.ceil(height * scale / 512)
