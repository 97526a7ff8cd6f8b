"""The instances of schemas that answers hold, as tokens."""

import random
import time
from typing import Any

from emulator.contract.errors import APIError
from emulator.contract.headers import EmulationHeaders
from emulator.schema_instances import SchemaError, Style, dumps, instance
from tokenizer import split_tokens

MAX_INSTANCES_S = 5  # CPU time


class Instances:
    """Makes the instances of one request, within the time that all of them may take.

    Args:
        model: Whose tokens they are made of.
        asked: What was asked beside the body.
        is_ascii: Whether their strings are English.
    """

    def __init__(self, model: str, asked: EmulationHeaders, *, is_ascii: bool) -> None:
        self._model = model
        self._asked = asked
        self._is_ascii = is_ascii
        self.spent_s = 0.0

    def tokens(
        self, schema: dict[str, Any], rng: random.Random, *, fills: bool, is_text: bool = False
    ) -> list[str]:
        """Return an instance of a schema.

        Args:
            schema: The schema.
            rng: Decides every choice.
            fills: Whether optional properties are there, where nothing is asked for.
            is_text: Whether it is a string that stands for itself, not JSON.

        Raises:
            SchemaError: Nothing satisfies it, or it is not supported, or takes too long.
        """
        started_s = time.thread_time()
        made = instance(schema, rng, self._style(fills=fills))
        text = made if is_text and isinstance(made, str) else dumps(made, is_ascii=self._is_ascii)
        tokens = split_tokens(text, self._model)
        self.spent_s += time.thread_time() - started_s
        if self.spent_s > MAX_INSTANCES_S:
            raise SchemaError(f"all its instances take over {MAX_INSTANCES_S} s")
        return tokens

    def _style(self, *, fills: bool) -> Style:
        optional = self._asked.optional
        return Style(
            fills_optional=fills if optional is None else optional == "fill",
            whole_numbers=self._asked.numbers == "whole",
            is_ascii=self._is_ascii,
        )


def invalid_schema(error: SchemaError, param: str, *, is_text: bool = False) -> APIError:
    """Refuse a schema that has no instance; one that stands for a text is told as its parameter."""
    if is_text:
        return APIError(f"Invalid '{param}': {error.message}", param=param, code="invalid_value")
    where = f"{param}.{error.path}" if error.path else param
    return APIError(f"Invalid schema for '{where}': {error}", param=param, code="invalid_schema")
