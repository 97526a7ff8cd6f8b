"""Prompts and inputs of token ids."""

from itertools import chain
from typing import Any

from emulator.contract.bounds import INT32_MAX, MAX_STRING_LENGTH
from emulator.contract.errors import refusal


def is_token_ids(value: list[Any]) -> bool:
    """Tell whether a list holds nothing but token ids; it must not be empty."""
    return set(map(type, value)) == {int} and min(value) >= 0 and max(value) <= INT32_MAX


def are_lists_of_token_ids(value: list[Any]) -> bool:
    """Tell whether a list holds nothing but non-empty lists of token ids."""
    is_lists = all(isinstance(item, list) for item in value) and all(value)
    return is_lists and is_token_ids(list(chain.from_iterable(value)))


def refuse_long_texts(param: str, value: str | list[Any]) -> None:
    """Refuse a text, or one of several, of more characters than a string may have.

    Raises:
        PydanticCustomError: There is one.
    """
    for index, text in enumerate([value] if isinstance(value, str) else value):
        if isinstance(text, str) and len(text) > MAX_STRING_LENGTH:
            where = "" if isinstance(value, str) else f"[{index}]"
            raise refusal(
                f"Invalid '{param}{where}': string too long. Expected a string with maximum length "
                f"{MAX_STRING_LENGTH}, but got a string with length {len(text)} instead.",
                "string_above_max_length",
                where,
            )
