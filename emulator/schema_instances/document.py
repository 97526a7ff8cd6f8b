"""A client's schema, with look-ups within one budget."""

import re
from collections.abc import Hashable, Mapping
from typing import Any

from .errors import Path, SchemaError, shown
from .keywords import check_keywords, is_schema, weight
from .limits import Budget
from .parts import Json, Part, Schema
from .patterns import Pattern, parse_pattern
from .values import is_number, key, walk


class Document:
    """The whole schema of an instance, which resolves its references."""

    def __init__(self, root: Schema, budget: Budget) -> None:
        self.budget = budget
        self._root = root
        # By the id() of schemas, which the root keeps alive.
        self._weights: dict[int, int] = {}
        self._allowed: dict[int, frozenset[Hashable]] = {}
        self._targets: dict[str, Part] = {}
        self._patterns: dict[str, Pattern] = {}

    def enter(self, schema: Mapping[str, Any], path: Path) -> None:
        """Spend the cost of a visit of `schema`, and check its keywords at the first one.

        Raises:
            SchemaError: A keyword's value is invalid, or the budget is exceeded.
        """
        known = self._weights.get(id(schema))
        if known is None:
            check_keywords(schema, path)
            known = self._weights[id(schema)] = weight(schema)
            self.budget.spend(path, known // 4)
            self._check_numbers(schema, path)
        self.budget.spend(path, 1 + known // 16)

    def allowed(self, schema: Mapping[str, Any], keyword: str, path: Path) -> frozenset[Hashable]:
        """Return the keys of the values that ``enum`` or ``const`` allows."""
        listed = schema[keyword]
        if id(listed) not in self._allowed or not isinstance(listed, list):
            values = listed if keyword == "enum" else [listed]
            found = frozenset(self.key(value, path) for value in values)
            if not isinstance(listed, list | dict):
                return found  # its id() may be that of another value later
            self._allowed[id(listed)] = found
        return self._allowed[id(listed)]

    def key(self, value: Json, path: Path) -> Hashable:
        """Return a hashable that is equal for equal values."""
        if isinstance(value, list | dict):
            self._pay_for(value, path)
        return key(value)

    def target(self, reference: str, path: Path) -> Part:
        """Return the schema that `reference` refers to.

        Raises:
            SchemaError: There is none, or it is in another document.
        """
        if reference not in self._targets:
            self.budget.spend(path, 1 + len(reference) // 16)
            self._targets[reference] = self._follow(reference, path)
        return self._targets[reference]

    def pattern(self, pattern: str, path: Path) -> Pattern:
        """Parse `pattern`.

        Raises:
            SchemaError: It is not understood, or exceeds the limits.
        """
        if pattern not in self._patterns:
            self.budget.spend(path, 16 + len(pattern))
            try:
                self._patterns[pattern] = parse_pattern(pattern)
            except ValueError as error:
                raise SchemaError(str(error), path) from None
        return self._patterns[pattern]

    def matches(self, pattern: str, text: str, path: Path) -> bool:
        """Return whether `pattern` is found in `text`.

        Raises:
            SchemaError: The pattern is invalid, or matching takes too long.
        """
        self.budget.spend(path)
        parsed = self.pattern(pattern, path)
        with self.budget.matching(path) as left_s:
            return parsed.matches(text, timeout_s=left_s)

    def _check_numbers(self, schema: Mapping[str, Any], path: Path) -> None:
        for keyword in ("const", "enum"):
            if keyword in schema:
                self._pay_for(schema[keyword], path)
                if not all(is_number(value) for value in walk(schema[keyword]) if _is_float(value)):
                    raise SchemaError("a number is beyond a double's range", (*path, keyword))

    def _pay_for(self, value: Json, path: Path) -> None:
        for count, _ in enumerate(walk(value)):
            if count % 8 == 7:
                self.budget.spend(path)

    def _follow(self, reference: str, path: Path) -> Part:
        found: Any = self._root
        steps = reference.removeprefix("#").split("/")
        if not reference.startswith("#") or steps[0]:
            raise SchemaError(
                f"only references like '#/$defs/x' work, not {shown(reference)!r}", path
            )
        for step in steps[1:]:
            name = re.sub("%([0-9A-Fa-f]{2})", lambda m: chr(int(m[1], 16)), step)
            name = name.replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and name in found:
                found = found[name]
            elif isinstance(found, list) and _is_index(name) and int(name) < len(found):
                found = found[int(name)]
            else:
                raise SchemaError(f"{shown(reference)!r} leads nowhere", path)
        if not is_schema(found):
            raise SchemaError(f"{shown(reference)!r} leads to something that is no schema", path)
        return found, tuple(steps[1:])


def _is_float(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < 10
