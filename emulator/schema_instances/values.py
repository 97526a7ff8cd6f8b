"""JSON values: their types, their equality and their text."""

import json
from collections.abc import Hashable, Iterator

from pydantic import JsonValue

from .limits import MAX_NUMBER
from .parts import Json

TYPES = ("string", "object", "integer", "number", "array", "boolean", "null")
_NAMES = {str: "string", dict: "object", list: "array", bool: "boolean", type(None): "null"}


def dumps(value: JsonValue, *, is_ascii: bool = True) -> str:
    r"""Return `value` as compact JSON, by default in ASCII, so that no token splits a character.

    >>> dumps({"city": "Zürich", "days": [1, 2]})
    '{"city":"Z\\u00fcrich","days":[1,2]}'
    """
    return json.dumps(value, separators=(",", ":"), ensure_ascii=is_ascii, allow_nan=False)


def is_number(value: object) -> bool:
    """Return whether `value` is a number, not a boolean, in the range of a double."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -MAX_NUMBER <= value <= MAX_NUMBER
    )


def is_a(value: Json, kind: str) -> bool:
    """Return whether `value` has the JSON schema type `kind`."""
    if kind == "integer":
        return is_number(value) and value % 1 == 0
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return _NAMES.get(type(value)) == kind


def key(value: Json) -> Hashable:
    """Return a hashable that is equal for equal JSON values: 1 and 1.0, but not 1 and true."""
    if isinstance(value, list):
        return ("array", *map(key, value))
    if isinstance(value, dict):
        return frozenset((name, key(item)) for name, item in value.items())
    return (isinstance(value, bool), value)


def walk(value: Json) -> Iterator[Json]:
    """Yield `value` and all values inside, in no particular order."""
    stack = [value]
    while stack:
        yield (last := stack.pop())
        if isinstance(last, list):
            stack += last
        elif isinstance(last, dict):
            stack += last.values()
