"""Finding a JSON schema in a text, as in prompts for ``json_object``."""

import json
import re
from dataclasses import dataclass
from typing import Any, TypeAlias

from .limits import MAX_TEXT_LEVELS

# Possessive quantifiers prevent backtracking, so that each takes linear time.
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_START = re.compile(r'\{\s*+(?=")')
_KEY = re.compile(rf"({_STRING})\s*+:\s*+")
_SCALAR = re.compile(rf"{_STRING}|-?\d++(?:\.\d++)?+(?:[eE][+-]?\d++)?+|true|false|null")
_OPENING = re.compile(r"([{\[])\s*+([}\]])?+")
_NEXT = re.compile(r"\s*+([,}\]])\s*+")
_CLOSING = {"{": "}", "[": "]"}

_TELLING = {"type", "$ref", "enum", "const", "anyOf", "oneOf", "allOf", "properties"}

Span: TypeAlias = tuple[int, int]


def schema_in_text(text: str) -> dict[str, Any] | None:
    """Return the last JSON schema of an object in `text`.

    It is a JSON object with ``"type": "object"`` and ``properties``, and not part of a larger one.
    The type may be missing if all properties are schemas, as in LangChain's instructions. The time
    is linear in the text's length.

    >>> schema_in_text('Answer by {"type": "object", "properties": {"n": {}}}, please.')
    {'type': 'object', 'properties': {'n': {}}}
    """
    if '"properties"' not in text:
        return None
    for start, end in reversed(_Scanner(text).spans()):
        try:
            schema: dict[str, Any] = json.loads(text[start:end], strict=False)
        except ValueError:  # an invalid escape or number
            continue
        if "type" in schema:
            return schema
        if schema["properties"] and all(map(_is_telling, schema["properties"].values())):
            return {"type": "object", **schema}
    return None


def _is_telling(schema: object) -> bool:
    return isinstance(schema, dict) and not _TELLING.isdisjoint(schema)


@dataclass(slots=True)
class _Open:
    """An open array or object, and whether it is a schema so far."""

    start: int
    closing: str
    found: int  # the number of schemas found before it
    key: str = ""
    has_type: bool = False
    type: str = ""
    has_properties: bool = False

    @property
    def is_schema(self) -> bool:
        return self.has_properties and (self.type == '"object"' or not self.has_type)


class _Scanner:
    """Finds JSON objects in a text in linear time.

    A syntax error drops the open objects and keeps the complete ones. The scan continues inside the
    last string, which is the only part that another start could read differently.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._string = 0  # the start of the last string
        self._open: list[_Open] = []
        self._found: list[Span] = []

    def spans(self) -> list[Span]:
        """Return the positions of objects that look like schemas, without nested ones."""
        while start := _START.search(self._text, self._at):
            self._at = start.start()
            self._open = []
            is_read = self._value()
            while is_read and self._open:
                is_read = self._next()
            if not is_read:
                self._at = self._string + 1
        return self._found

    def _value(self) -> bool:
        """Read a scalar, or the start of an array or object; return false if there is none."""
        opening = _OPENING.match(self._text, self._at)
        if opening is None:
            return self._scalar()
        kind, closing = opening.groups()
        if self._open and self._open[-1].key == '"properties"' and kind == "{":
            self._open[-1].has_properties = True
        if closing:
            self._at = opening.end()
            return bool(_CLOSING[kind] == closing)
        if len(self._open) >= MAX_TEXT_LEVELS:
            return False
        self._open.append(_Open(self._at, _CLOSING[kind], len(self._found)))
        self._at = opening.end()
        return self._value() if kind == "[" else self._member()

    def _scalar(self) -> bool:
        scalar = self._match(_SCALAR)
        if scalar and self._open[-1].key == '"type"':
            self._open[-1].type = scalar[0]
        return scalar is not None

    def _member(self) -> bool:
        """Read a key and the value after it."""
        key = self._match(_KEY)
        if key is None:
            return False
        self._open[-1].key = key[1]
        self._open[-1].has_type |= key[1] == '"type"'
        return self._value()

    def _next(self) -> bool:
        """Read the next value, or the end of the array or object."""
        separator = self._match(_NEXT)
        inner = self._open[-1]
        if separator is None or separator[1] not in (",", inner.closing):
            return False
        if separator[1] == ",":
            return self._value() if inner.closing == "]" else self._member()
        self._open.pop()
        if inner.is_schema:
            self._found[inner.found :] = [(inner.start, separator.end())]
        return True

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        if self._text.startswith('"', self._at):
            self._string = self._at
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return match
