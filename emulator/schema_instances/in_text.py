"""Find a JSON schema that stands in a text, as prompts for ``json_object`` hold one."""

import json
import re
from dataclasses import dataclass
from typing import Any, TypeAlias

from .limits import MAX_TEXT_LEVELS

# Possessive, so that nothing is matched anew: each takes time linear in what it passes.
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
    """Return the last JSON schema of an object that stands in `text`, fenced or not.

    That is a JSON object with ``"type": "object"`` and ``properties``, and not part of a larger
    one; the type may be missing where all properties are schemas, as LangChain's instructions
    have it. The time is linear in the text's length, whatever it holds.

    >>> schema_in_text('Answer by {"type": "object", "properties": {"n": {}}}, please.')
    {'type': 'object', 'properties': {'n': {}}}
    """
    if '"properties"' not in text:
        return None
    for start, end in reversed(_Scanner(text).spans()):
        try:
            schema: dict[str, Any] = json.loads(text[start:end], strict=False)
        except ValueError:  # an escape or a number that only looked right
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
    """An array or object that has not ended yet, and what tells whether it is a schema."""

    start: int
    closing: str
    found: int  # how many schemas were found before it
    key: str = ""
    has_type: bool = False
    type: str = ""
    has_properties: bool = False

    @property
    def is_schema(self) -> bool:
        return self.has_properties and (self.type == '"object"' or not self.has_type)


class _Scanner:
    """Reads the JSON objects in a text, each character a few times at most.

    Where an object breaks, so do all that are open around it, while those that have ended inside
    it stay; and reading goes on within the last string, which is the one thing that another
    reading could see otherwise.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._string = 0  # where the last string began
        self._open: list[_Open] = []
        self._found: list[Span] = []

    def spans(self) -> list[Span]:
        """Return where objects stand that look like schemas and are part of no larger one."""
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
        """Read a scalar, or the start of an array or object; return whether one is there."""
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
        """Read what follows a value: one more, or the end of the array or object."""
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
