"""Making arrays: items, prefixItems, contains and uniqueItems."""

import random
from collections.abc import Hashable

from pydantic import JsonValue

from .document import Document
from .errors import Path, SchemaError, UnsatisfiableError
from .limits import MAX_VALUES, TRIES
from .parts import Make, Part, Spot, item_parts


class ArrayMaker:
    """Makes arrays, whose items `make` makes."""

    def __init__(self, document: Document, make: Make, rng: random.Random) -> None:
        self._document = document
        self._budget = document.budget
        self._make = make
        self._rng = rng

    def make(self, spot: Spot, depth: int, level: int) -> list[JsonValue]:
        """Return an array that satisfies `spot`.

        Raises:
            SchemaError: It has more items than ``MAX_VALUES``, or exceeds the budget.
            UnsatisfiableError: There is none.
        """
        low, high = spot.counts("minItems", "maxItems")
        wanted = _contained(spot)
        self._budget.spend(spot.path, len(wanted) // 32)
        least = max(low, len(wanted))
        if least > MAX_VALUES:
            raise SchemaError(f"minItems is above the limit of {MAX_VALUES} values", spot.path)
        goal = self._goal(spot, least, depth)
        seen: set[Hashable] | None = (
            set() if any(s.get("uniqueItems") for s in spot.schemas) else None
        )
        items: list[JsonValue] = []
        for index in range(min(goal, high)):
            self._budget.spend(spot.path, len(spot) // 16)
            parts = [part for schema, at in spot.parts for part in item_parts(schema, at, index)]
            parts += wanted[index : index + 1]
            try:
                items.append(self._item(parts, seen, depth, level))
            except UnsatisfiableError:
                if len(items) < least:
                    raise
                break
        return items

    def _goal(self, spot: Spot, least: int, depth: int) -> int:
        """Return the number of items to make, if so many are possible."""
        goal = max([least, *(len(schema.get("prefixItems", ())) for schema in spot.schemas)])
        return max(goal, self._rng.randint(1, 3)) if self._budget.is_rich(depth + 1) else goal

    def _item(
        self, parts: list[Part], seen: set[Hashable] | None, depth: int, level: int
    ) -> JsonValue:
        """Return an item that is not in `seen`, and add it."""
        if seen is None:
            return self._make(parts, depth + 1, level)
        path: Path = parts[0][1] if parts else ()
        for _ in range(2 * TRIES):
            item = self._make(parts, depth + 1, level)
            if (key := self._document.key(item, path)) not in seen:
                seen.add(key)
                return item
        raise UnsatisfiableError("there are too few different items", path)


def _contained(spot: Spot) -> list[Part]:
    """Return a part for each item that a `contains` requires."""
    return [
        (schema["contains"], (*path, "contains"))
        for schema, path in spot.having("contains")
        for _ in range(min(int(schema.get("minContains", 1)), MAX_VALUES + 1))
    ]
