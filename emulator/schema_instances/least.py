"""The least size of an instance, to refuse large ones before they are made."""

from collections.abc import Mapping
from typing import Any

from .document import Document
from .errors import Path, SchemaError
from .keywords import kinds
from .limits import Budget
from .parts import Part, Schema, listed

FUEL = 12  # the most schemas on one path


def least_values(schema: Schema) -> int:
    """Return a lower bound of the number of values in an instance, including itself.

    It is 1 for an invalid schema, or one that exceeds the budget; making an instance reports these.

    >>> least_values({"type": "array", "minItems": 3, "items": {"type": "array", "minItems": 2}})
    10
    """
    try:
        return _Least(Document(schema, Budget())).of((schema, ()), FUEL)
    except SchemaError:
        return 1


class _Least:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._known: dict[tuple[int, int], int] = {}

    def of(self, part: Part, fuel: int) -> int:
        schema, path = part
        if not isinstance(schema, Mapping) or not fuel:
            return 1
        if (key := (id(schema), fuel)) not in self._known:
            self._document.enter(schema, path)
            self._known[key] = self._count(schema, path, fuel - 1)
        return self._known[key]

    def _count(self, schema: Mapping[str, Any], path: Path, fuel: int) -> int:
        counts = [1, *(self.of(part, fuel) for part in listed(schema, path, "allOf"))]
        if "$ref" in schema:
            counts.append(self.of(self._document.target(schema["$ref"], (*path, "$ref")), fuel))
        counts += [
            min(self.of(part, fuel) for part in listed(schema, path, keyword))
            for keyword in ("anyOf", "oneOf")
            if keyword in schema
        ]
        types = set(kinds(schema))
        if types == {"array"}:
            counts.append(1 + self._items(schema, path, fuel))
        elif types == {"object"}:
            counts.append(1 + self._members(schema, path, fuel))
        return max(counts)

    def _items(self, schema: Mapping[str, Any], path: Path, fuel: int) -> int:
        low, prefix = int(schema.get("minItems", 0)), schema.get("prefixItems", ())
        first = sum(self.of(part, fuel) for part in [*listed(schema, path, "prefixItems")][:low])
        rest = self.of((schema.get("items", True), (*path, "items")), fuel)
        return first + max(low - len(prefix), 0) * rest

    def _members(self, schema: Mapping[str, Any], path: Path, fuel: int) -> int:
        properties = schema.get("properties", {})
        return sum(
            self.of((properties.get(name, True), (*path, "properties", name)), fuel)
            for name in set(schema.get("required", ()))
        )
