"""Unions whose errors name what the client sent, and not pydantic's tags.

Pydantic puts the tag of the chosen variant into an error's location. The tags are written
<like this>, so that error_words.py can tell them from the names of fields.
"""

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import Discriminator, WithJsonSchema


def variant(key: str, *supported: str) -> Discriminator:
    """Choose the variant named by `key`, the way messages are told apart by ``role``."""

    def tag(value: object) -> str | None:
        name = value.get(key) if isinstance(value, dict) else getattr(value, key, None)
        return f"<{name}>" if name in supported else None

    return Discriminator(
        tag,
        custom_error_type="unknown_variant",
        custom_error_message="unknown variant",
        custom_error_context={"key": key, "supported": ",".join(supported)},
    )


def json_type(expected: str, **tags: type) -> Discriminator:
    """Choose the variant by the value's JSON type; `expected` names the types for the error."""

    def tag(value: object) -> str | None:
        return next((f"<{name}>" for name, type_ in tags.items() if isinstance(value, type_)), None)

    return Discriminator(
        tag,
        custom_error_type="wrong_json_type",
        custom_error_message="wrong JSON type",
        custom_error_context={"expected": expected},
    )


def typed(
    *named: str, others: Sequence[str], guess: Callable[[dict[str, Any]], str | None]
) -> Discriminator:
    """Choose the variant named by ``type``; all of `others` share the tag ``<other>``.

    `guess` names the type of a value that does not tell it.
    """

    def tag(value: object) -> str | None:
        if not isinstance(value, dict):
            return None
        name = value.get("type")
        if name is None:
            name = guess(value)
        if name in named:
            return f"<{name}>"
        return "<other>" if isinstance(name, str) and name in others else None

    return Discriminator(
        tag,
        custom_error_type="unknown_variant",
        custom_error_message="unknown variant",
        custom_error_context={"key": "type", "supported": ",".join([*named, *others])},
    )


def other(*kinds: str) -> WithJsonSchema:
    """Describe an object by its type alone; its other fields are not checked."""
    properties = {"type": {"type": "string", "enum": [*kinds]}}
    return WithJsonSchema({"type": "object", "properties": properties, "required": ["type"]})
