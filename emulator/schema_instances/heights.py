"""The depth of the flattest instance of a schema, to choose alternatives that end recursion."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from .document import Document
from .errors import Path
from .keywords import kinds
from .parts import Part, Schema, listed

FUEL = 12  # the most schemas on one path


class Heights:
    """Measures the schemas of a document, each once."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._known: dict[tuple[int, int], float] = {}

    def of(self, parts: list[Part]) -> float:
        """Return the depth of the flattest instance of all `parts`, infinity if it is unknown."""
        return max((self._height(part, FUEL) for part in parts), default=0)

    def _height(self, part: Part, fuel: int) -> float:
        schema, path = part
        if not isinstance(schema, Mapping):
            return 0 if schema else math.inf
        if not fuel:
            return math.inf
        if (key := (id(schema), fuel)) not in self._known:
            self._document.enter(schema, path)
            self._known[key] = self._measure(schema, path, fuel - 1)
        return self._known[key]

    def _measure(self, schema: Mapping[str, Any], path: Path, fuel: int) -> float:
        if "const" in schema or "enum" in schema:
            return 0
        heights = [self._height(part, fuel) for part in listed(schema, path, "allOf")]
        if "$ref" in schema:
            heights.append(self._height(self._document.target(schema["$ref"], path), fuel))
        heights += [
            min(self._height(part, fuel) for part in listed(schema, path, keyword))
            for keyword in ("anyOf", "oneOf")
            if keyword in schema
        ]
        if "type" not in schema or set(kinds(schema)) <= {"object", "array"}:
            heights += [1 + self._height((child, path), fuel) for child in _children(schema)]
        return max(heights, default=0)


def _children(schema: Mapping[str, Any]) -> Iterator[Schema]:
    """Yield the schemas of required items and properties."""
    if schema.get("minItems"):
        yield schema.get("items", True)
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        yield properties.get(name, True)
