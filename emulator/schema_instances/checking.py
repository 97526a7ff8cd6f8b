"""Validation of values, within the budget of an instance."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import JsonValue

from .document import Document
from .errors import Path, SchemaError
from .formats import FORMATS
from .keywords import kinds
from .limits import MAX_LEVELS
from .numbers import is_bounded
from .parts import Json, Part, Schema, Spot, item_parts, listed
from .values import is_a, is_number


class Checker:
    """Validates values against the schemas of a document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._spend = document.budget.spend

    def valid(self, schema: Schema, value: JsonValue, path: Path, level: int) -> bool:
        """Return whether `value` is valid for `schema`, at a level of recursion.

        Raises:
            SchemaError: The schema is invalid, nested too deeply, or exceeds the budget.
        """
        if not isinstance(schema, Mapping):
            self._spend(path)
            return schema
        self._document.enter(schema, path)
        if level >= 2 * MAX_LEVELS:
            raise SchemaError(f"it is nested deeper than {MAX_LEVELS} levels, or without end", path)
        return all(self._rules(schema, value, path, level + 1))

    def text_rules(self, schema: Mapping[str, Any], value: str, path: Path) -> Iterator[bool]:
        """Yield whether a string satisfies pattern and format."""
        if "pattern" in schema:
            yield self._document.matches(schema["pattern"], value, (*path, "pattern"))
        if schema.get("format") in FORMATS:
            self._spend(path, len(value) // 64)
            yield re.fullmatch(FORMATS[schema["format"]].pattern, value) is not None

    def member_parts(self, schema: Mapping[str, Any], path: Path, name: str) -> list[Part]:
        """Return the schemas for the property `name`."""
        parts: list[Part] = []
        if name in schema.get("properties", ()):
            parts.append((schema["properties"][name], (*path, "properties", name)))
        for pattern, part in schema.get("patternProperties", {}).items():
            at = (*path, "patternProperties", pattern)
            if self._document.matches(pattern, name, at):
                parts.append((part, at))
        if not parts and "additionalProperties" in schema:
            parts.append((schema["additionalProperties"], (*path, "additionalProperties")))
        return parts

    def name_is_allowed(self, schema: Mapping[str, Any], path: Path, name: str, level: int) -> bool:
        """Return whether `schema` allows a property with this name."""
        rule = schema.get("propertyNames", True)
        return rule is True or self.valid(rule, name, (*path, "propertyNames"), level)

    def _rules(
        self, schema: Mapping[str, Any], value: Json, path: Path, level: int
    ) -> Iterator[bool]:
        if "type" in schema:
            yield any(is_a(value, kind) for kind in kinds(schema))
        for keyword in ("const", "enum"):
            if keyword in schema:
                allowed = self._document.allowed(schema, keyword, path)
                yield self._document.key(value, path) in allowed
        if isinstance(value, str):
            low, high = Spot([(schema, path)]).counts("minLength", "maxLength")
            yield low <= len(value) <= high
            yield from self.text_rules(schema, value, path)
        elif isinstance(value, dict):
            yield from self._object_rules(schema, value, path, level)
        elif isinstance(value, list):
            yield from self._array_rules(schema, value, path, level)
        elif is_number(value):
            yield is_bounded(schema, value)
        yield from self._logic_rules(schema, value, path, level)

    def _logic_rules(
        self, schema: Mapping[str, Any], value: Json, path: Path, level: int
    ) -> Iterator[bool]:
        def holds(part: Part) -> bool:
            return self.valid(part[0], value, part[1], level)

        if "$ref" in schema:
            yield holds(self._document.target(schema["$ref"], (*path, "$ref")))
        yield all(map(holds, listed(schema, path, "allOf")))
        if "anyOf" in schema:
            yield any(map(holds, listed(schema, path, "anyOf")))
        if "oneOf" in schema:
            yield sum(map(holds, listed(schema, path, "oneOf"))) == 1
        if "not" in schema:
            yield not holds((schema["not"], (*path, "not")))
        if "if" in schema:
            branch = "then" if holds((schema["if"], (*path, "if"))) else "else"
            yield holds((schema.get(branch, True), (*path, branch)))

    def _array_rules(
        self, schema: Mapping[str, Any], value: list[Any], path: Path, level: int
    ) -> Iterator[bool]:
        low, high = Spot([(schema, path)]).counts("minItems", "maxItems")
        yield low <= len(value) <= high
        self._spend(path, len(value) // 16)
        for index, item in enumerate(value):
            for part, at in item_parts(schema, path, index):
                yield self.valid(part, item, at, level)
        if schema.get("uniqueItems"):
            yield len({self._document.key(item, path) for item in value}) == len(value)
        if "contains" in schema:
            at = (*path, "contains")
            count = sum(self.valid(schema["contains"], item, at, level) for item in value)
            yield schema.get("minContains", 1) <= count <= schema.get("maxContains", len(value))

    def _object_rules(
        self, schema: Mapping[str, Any], value: dict[str, Any], path: Path, level: int
    ) -> Iterator[bool]:
        low, high = Spot([(schema, path)]).counts("minProperties", "maxProperties")
        yield low <= len(value) <= high
        self._spend(path, len(value) // 16)
        yield all(name in value for name in schema.get("required", ()))
        for name, others in schema.get("dependentRequired", {}).items():
            yield name not in value or all(other in value for other in others)
        for name, item in value.items():
            for part, at in self.member_parts(schema, path, name):
                yield self.valid(part, item, at, level)
            yield self.name_is_allowed(schema, path, name, level)
        for name, part in schema.get("dependentSchemas", {}).items():
            at = (*path, "dependentSchemas", name)
            yield name not in value or self.valid(part, value, at, level)
