"""Making objects: required, optional and undeclared properties."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeAlias

from pydantic import JsonValue

from .checking import Checker
from .document import Document
from .errors import SchemaError, UnsatisfiableError, shown
from .formats import WORDS
from .limits import CHARACTERS_A_STEP, MAX_VALUES, RICH_DEPTH, TRIES
from .parts import Make, Part, Schema, Spot
from .style import Style
from .values import dumps

_Member: TypeAlias = Callable[[str], JsonValue]
_STRING: Schema = {"type": "string"}


class ObjectMaker:
    """Makes objects, whose values `make` makes."""

    def __init__(
        self, document: Document, checker: Checker, make: Make, rng: random.Random, style: Style
    ) -> None:
        self._budget = document.budget
        self._checker = checker
        self._make = make
        self._rng = rng
        self._style = style
        # Kept alive, because other caches are by the id() of schemas.
        self._named: dict[str, Schema] = {}

    def make(self, spot: Spot, depth: int, level: int) -> dict[str, JsonValue]:
        """Return an object that satisfies `spot`.

        Raises:
            SchemaError: It has more properties than ``MAX_VALUES``, or exceeds the budget.
            UnsatisfiableError: There is none.
        """
        low, high = spot.counts("minProperties", "maxProperties")
        if low > MAX_VALUES:
            raise SchemaError(f"minProperties {low} is above the limit of {MAX_VALUES}", spot.path)
        required = self._with_dependents(
            spot, [n for s in spot.schemas for n in s.get("required", ())]
        )
        if len(required) > high:
            raise UnsatisfiableError(f"more properties are required than {high}", spot.path)
        member = partial(self._member, spot, depth, level)
        made = {name: member(name) for name in required}
        declared = list(dict.fromkeys(n for s in spot.schemas for n in s.get("properties", ())))
        is_rich = self._budget.is_rich(depth)
        if is_rich and self._style.fills_optional:
            self._add(made, spot, declared, high, member)
        elif len(made) < low:
            self._add(made, spot, self._rng.sample(declared, len(declared)), low, member)
        if len(made) < low or (not declared and is_rich and _is_open(spot)):
            goal = min(high, max(low, 2))
            self._add(made, spot, self._new_names(spot, goal, level), goal, member)
        if len(made) < low:
            raise UnsatisfiableError(f"fewer properties are possible than {low}", spot.path)
        order = [name for name in declared if name in made]
        return {name: made[name] for name in dict.fromkeys([*order, *made])}

    def _add(
        self,
        made: dict[str, JsonValue],
        spot: Spot,
        names: Iterable[str],
        goal: int,
        member: _Member,
    ) -> None:
        """Add optional properties with their dependents, up to `goal`."""
        for name in names:
            if len(made) >= goal:
                break
            fresh = [n for n in self._with_dependents(spot, [name]) if n not in made]
            if len(made) + len(fresh) <= goal:
                with suppress(UnsatisfiableError):
                    made |= {other: member(other) for other in fresh}

    def _member(self, spot: Spot, depth: int, level: int, name: str) -> JsonValue:
        self._budget.spend(spot.path, len(spot) // 8)
        if len(name) > CHARACTERS_A_STEP:
            self._budget.spend(spot.path, len(dumps(name)) // CHARACTERS_A_STEP)
        parts: list[Part] = []
        for schema, path in spot.parts:
            parts += self._checker.member_parts(schema, path, name)
            if not self._checker.name_is_allowed(schema, path, name, level):
                raise UnsatisfiableError(f"the name {shown(name)!r} is not allowed", path)
        return self._make(parts, depth + 1, level)

    def _with_dependents(self, spot: Spot, names: Sequence[str]) -> list[str]:
        """Return `names` and their dependents by dependentRequired."""
        rules = [part[0]["dependentRequired"] for part in spot.having("dependentRequired")]
        found = dict.fromkeys(names)
        queue = list(found) if rules else []
        while queue:
            name = queue.pop()
            self._budget.spend(spot.path, len(rules) // 8)
            for rule in rules:
                fresh = [other for other in rule.get(name, ()) if other not in found]
                found |= dict.fromkeys(fresh)
                queue += fresh
        return list(found)

    def _new_names(self, spot: Spot, count: int, level: int) -> Iterator[str]:
        """Yield names for undeclared properties: more than `count`, as not all may be allowed."""
        rules = [
            (s["propertyNames"], (*path, "propertyNames"))
            for s, path in spot.having("propertyNames")
        ]
        patterns = [
            (
                self._named.setdefault(pattern, {"pattern": pattern}),
                (*path, "patternProperties", pattern),
            )
            for schema, path in spot.having("patternProperties")
            for pattern in schema["patternProperties"]
        ]
        yielded = set()
        for turn in range(4 * count + TRIES):
            word = self._rng.choice(WORDS) + (f"_{turn}" if turn >= TRIES else "")
            pick = [self._rng.choice(patterns)] if patterns and turn % 2 == 0 else []
            if not rules and not pick:
                yield word
                continue
            name = str(self._make([(_STRING, ()), *rules, *pick], RICH_DEPTH, level))
            # A pattern without anchors may be written as the same text again and again.
            longer = [f"{name}{word}", f"{word}{name}"]
            yield self._rng.choice(longer) if name in yielded else name
            yielded.add(name)


def _is_open(spot: Spot) -> bool:
    """Return whether undeclared properties have a schema, like those of a dict."""
    return any(
        schema.get("patternProperties") or isinstance(schema.get("additionalProperties"), Mapping)
        for schema in spot.schemas
    )
