"""Making plausible instances of JSON schemas, for tool calls and structured answers."""

import random
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from .arrays import ArrayMaker
from .checking import Checker
from .document import Document
from .errors import SchemaError, UnsatisfiableError
from .heights import Heights
from .keywords import kinds
from .limits import CHARACTERS_A_STEP, RICH_DEPTH, TRIES, Budget, deepen
from .merging import Choice, Merger, Option, check_merged
from .numbers import number
from .objects import ObjectMaker
from .parts import Part, Schema, Spot
from .style import PLAIN, Style
from .texts import TextMaker
from .values import TYPES, dumps

# Satisfied by trial and error, so that each value is checked at once.
_CHECKED = ("oneOf", "not", "if", "dependentSchemas", "maxContains", "propertyNames")
# Keywords that suggest a type where there is none.
_TELLING = {
    "object": ("properties", "required", "additionalProperties", "minProperties"),
    "array": ("items", "prefixItems", "minItems", "contains"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "string": ("minLength", "maxLength", "pattern", "format"),
}


def instance(schema: Schema, rng: random.Random, style: Style = PLAIN) -> JsonValue:
    """Return a JSON value that is valid for `schema`, the same for the same state of `rng`.

    Args:
        schema: A JSON schema, draft 2020-12; unknown formats are ignored.
        rng: Decides all choices.
        style: How to fill in what the schema leaves open.

    Raises:
        SchemaError: No instance exists, or none was found; a keyword is unknown or invalid; or the
            budget is exceeded (see ``limits``).

    >>> instance({"type": "object", "properties": {"n": {"const": 7}}}, random.Random(1))
    {'n': 7}
    """
    document = Document(schema, Budget())
    checker = Checker(document)
    maker = Maker(document, checker, rng, style)
    try:
        for _ in range(TRIES):
            value = maker.make([(schema, ())], 0, 0)
            if checker.valid(schema, value, (), 0):
                return value
    except RecursionError:
        raise SchemaError("it is nested too deeply") from None
    raise SchemaError("no instance was found that satisfies it")


class Maker:
    """Makes values for the schemas of a document."""

    def __init__(
        self, document: Document, checker: Checker, rng: random.Random, style: Style
    ) -> None:
        self._budget = document.budget
        self._checker = checker
        self._rng = rng
        self._whole_numbers = style.whole_numbers
        self._merger = Merger(document, rng)
        self._heights = Heights(document)
        self._texts = TextMaker(document, checker, rng, style)
        self._arrays = ArrayMaker(document, self.make, rng)
        self._objects = ObjectMaker(document, checker, self.make, rng, style)

    def make(self, parts: Sequence[Part], depth: int, level: int) -> JsonValue:
        """Return a value that satisfies `parts`.

        Args:
            parts: The schemas to satisfy.
            depth: The number of arrays and objects around the value.
            level: The number of calls around this one.

        Raises:
            SchemaError: As `instance` does.
            UnsatisfiableError: There is no such value.
        """
        path = parts[0][1] if parts else ()
        self._budget.spend_value(path)
        spot, choices = self._merger.merge(parts)
        return self._choose(spot, choices, depth, deepen(level, path))

    def _choose(self, spot: Spot, choices: list[Choice], depth: int, level: int) -> JsonValue:
        """Take an alternative at each choice, so that one value satisfies them all."""
        if not choices:
            return self._settle(spot, depth, level)
        self._budget.spend(spot.path, 2 + (len(spot) + len(choices) + len(choices[0])) // 8)
        deeper = deepen(level, spot.path)
        failure = None
        for option in self._in_order(choices[0], depth):
            try:
                more, open_choices = self._merger.merge(option)
                check_merged(len(spot) + len(more), spot.path)
                merged = Spot(spot.parts + more.parts)
                return self._choose(merged, choices[1:] + open_choices, depth, deeper)
            except UnsatisfiableError as error:
                failure = failure or error
        raise failure or UnsatisfiableError("no alternative is left", spot.path)

    def _in_order(self, choice: Choice, depth: int) -> list[Option]:
        """Put null last, and from some depth on the flattest alternatives first."""
        return sorted(choice, key=_is_null if self._budget.is_rich(depth) else self._heights.of)

    def _settle(self, spot: Spot, depth: int, level: int) -> JsonValue:
        """Make a value of the first type that is possible."""
        self._budget.spend(spot.path, 1 + len(spot) // 2)
        if listing := spot.having("const", "enum"):
            schema, _ = listing[0]
            candidates = [schema["const"]] if "const" in schema else schema["enum"]
            return self._listed_value(candidates, spot, level)
        failure = None
        for kind in _possible_kinds(spot):
            try:
                return self._checked_value(kind, spot, depth, level)
            except UnsatisfiableError as error:
                failure = failure or error
        raise failure or UnsatisfiableError("the types exclude each other", spot.path)

    def _listed_value(self, candidates: list[JsonValue], spot: Spot, level: int) -> JsonValue:
        self._budget.spend(spot.path, len(candidates) // 10)
        for value in self._rng.sample(candidates, len(candidates)):
            if all(self._checker.valid(schema, value, at, level) for schema, at in spot.parts):
                self._budget.spend(spot.path, len(dumps(value)) // CHARACTERS_A_STEP)
                return value
        raise UnsatisfiableError("no listed value satisfies the other keywords", spot.path)

    def _checked_value(self, kind: str, spot: Spot, depth: int, level: int) -> JsonValue:
        doubtful = spot.having(*_CHECKED)
        whole = self._whole_numbers
        try:
            for turn in range(2 * TRIES if doubtful else 1):
                # Every other time without optional parts, which may be what is not allowed, and
                # half of them with fractions, which may be what is required.
                deep = depth if turn % 2 == 0 else max(depth, RICH_DEPTH)
                self._whole_numbers = whole and turn % 4 < 2
                value = self._value(kind, spot, deep, level)
                if all(self._checker.valid(schema, value, at, level) for schema, at in doubtful):
                    return value
        finally:
            self._whole_numbers = whole
        raise UnsatisfiableError("no value was found that satisfies it", spot.path)

    def _value(self, kind: str, spot: Spot, depth: int, level: int) -> JsonValue:
        if kind == "object":
            return self._objects.make(spot, depth, level)
        if kind == "array":
            return self._arrays.make(spot, depth, level)
        if kind == "string":
            return self._texts.make(spot)
        if kind in ("integer", "number"):
            whole = self._whole_numbers
            return number(spot, kind, self._rng, self._budget.spend, whole=whole)
        return self._rng.random() < 0.5 if kind == "boolean" else None


def _is_null(option: Option) -> bool:
    schema = option[0][0] if option else None
    return isinstance(schema, Mapping) and schema.get("type") == "null"


def _possible_kinds(spot: Spot) -> list[str]:
    """Return the types that all schemas allow, the most likely first and null last."""
    typed = [kinds(schema) for schema, _ in spot.having("type")]
    candidates = list(typed[0]) if typed else _likely_kinds(spot)
    if any("integer" in allowed and "number" not in allowed for allowed in typed):
        candidates = ["integer" if kind == "number" else kind for kind in candidates]
    possible = [
        kind
        for kind in candidates
        if all(kind in ks or (kind == "integer" and "number" in ks) for ks in typed)
    ]
    if not possible:
        raise UnsatisfiableError("the types exclude each other", (*spot.path, "type"))
    return sorted(possible, key=lambda kind: kind == "null")


def _likely_kinds(spot: Spot) -> list[str]:
    keywords = {keyword for schema in spot.schemas for keyword in schema}
    return sorted(TYPES, key=lambda kind: keywords.isdisjoint(_TELLING.get(kind, ())))
