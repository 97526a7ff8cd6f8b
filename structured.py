"""Make a plausible JSON instance of a JSON schema: tool-call arguments and structured answers.

No library serves: jsf ignores if/then and fails on ``$ref: "#"``, hypothesis-jsonschema takes up to
seconds and cannot recurse. Nor can a generator or a validator be given a budget, and the schemas
come from clients; so both halves are here, and every step they take is counted.
"""

import json
import math
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial
from typing import Any, TypeAlias

from pydantic import JsonValue

from schema_texts import FORMATS, HINTS, WORDS, Pattern, words

MAX_STEPS = 12_000  # schemas visited to make and to check the instance, at 1 to 3 us each
MAX_NODES = 5_000  # values in the instance
MAX_LEVELS = 80  # keeps well inside Python's recursion limit
MAX_TEXT = 65_536  # characters of one string
MAX_NUMBER = 10**300  # floats overflow soon after
MAX_PATTERN_S = 0.05  # spent on matching, for a whole instance

# Where optional properties are filled and lists are longer than they must be.
RICH_DEPTH = 5
RICH_NODES = 200
TRIES = 32

Schema: TypeAlias = Mapping[str, Any] | bool
Json: TypeAlias = Any  # parsed JSON, whose type is told by looking
Part: TypeAlias = tuple[Schema, str]  # a schema and the path where it stands
Spot: TypeAlias = list[tuple[Mapping[str, Any], str]]  # schemas that one value must satisfy


class SchemaError(ValueError):
    """A schema cannot be satisfied, is not understood, or asks for more than the limits.

    ``path`` tells where, for instance ``properties.age``; it is empty for the schema itself.
    """

    def __init__(self, message: str, path: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path


class _UnsatisfiableError(SchemaError):
    """Nothing is valid here; another alternative may still serve."""


def instance(schema: Schema, rng: random.Random) -> JsonValue:
    """Return a JSON value that is valid for `schema`, the same for the same state of `rng`.

    Args:
        schema: A JSON schema, draft 2020-12. Of the formats, unknown ones are ignored.
        rng: Decides every choice.

    Raises:
        SchemaError: Nothing can satisfy the schema, or nothing was found that does; a keyword is
            unknown or malformed; or the instance would be too large (see the ``MAX_`` constants).

    >>> instance({"type": "object", "properties": {"n": {"const": 7}}}, random.Random(1))
    {'n': 7}
    """
    maker = _Maker(schema, rng)
    try:
        for _ in range(TRIES):
            value = maker.make([(schema, "")], 0, 0)
            if maker.valid(schema, value, "", 0):
                return value
    except RecursionError:
        raise SchemaError("a constant is nested too deeply", "") from None
    raise SchemaError("no instance was found that satisfies it", "")


def dumps(value: JsonValue) -> str:
    r"""Return `value` as compact JSON, in ASCII so that no token can split a character.

    >>> dumps({"city": "Zürich", "days": [1, 2]})
    '{"city":"Z\\u00fcrich","days":[1,2]}'
    """
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


# --------------------------------------------------------------------------------------
# Keywords
# --------------------------------------------------------------------------------------

_TYPES = ("string", "object", "integer", "number", "array", "boolean", "null")


def _is_schema(value: object) -> bool:
    return isinstance(value, Mapping | bool)


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -MAX_NUMBER <= value <= MAX_NUMBER
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int | float) and _is_number(value) and value >= 0 and value % 1 == 0


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_type(value: object) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(name in _TYPES for name in names)


def _is_map(value: object, item: Callable[[object], bool]) -> bool:
    return isinstance(value, Mapping) and all(map(item, value.values()))


def _is_list(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_schema, value))


_KEYWORDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "type": (f"one or a list of {', '.join(_TYPES)}", _is_type),
    "$ref": ("a string", lambda value: isinstance(value, str)),
    "enum": ("a list that is not empty", lambda value: isinstance(value, list) and bool(value)),
    "pattern": ("a string", lambda value: isinstance(value, str)),
    "format": ("a string", lambda value: isinstance(value, str)),
    "uniqueItems": ("a boolean", lambda value: isinstance(value, bool)),
    "multipleOf": ("a number above 0", lambda value: _is_number(value) and value > 0),
    "required": ("a list of strings", _is_names),
    "dependentRequired": ("lists of strings", partial(_is_map, item=_is_names)),
}
_BOUND = (f"a number of at most {MAX_NUMBER:.0e}", _is_number)
_COUNT = ("an integer of at least 0", _is_count)
_ONE = ("a schema", _is_schema)
_MAP = ("an object of schemas", partial(_is_map, item=_is_schema))
_LIST = ("a list of schemas", _is_list)
_KEYWORDS |= {"minimum": _BOUND, "exclusiveMinimum": _BOUND}
_KEYWORDS |= {"maximum": _BOUND, "exclusiveMaximum": _BOUND}
_KEYWORDS |= {"minLength": _COUNT, "minItems": _COUNT, "minProperties": _COUNT}
_KEYWORDS |= {"maxLength": _COUNT, "maxItems": _COUNT, "maxProperties": _COUNT}
_KEYWORDS |= {"contains": _ONE, "minContains": _COUNT, "maxContains": _COUNT}
_KEYWORDS |= {"items": _ONE, "additionalProperties": _ONE, "propertyNames": _ONE}
_KEYWORDS |= {"not": _ONE, "if": _ONE, "then": _ONE, "else": _ONE}
_KEYWORDS |= {"properties": _MAP, "patternProperties": _MAP, "dependentSchemas": _MAP}
_KEYWORDS |= {"allOf": _LIST, "anyOf": _LIST, "oneOf": _LIST, "prefixItems": _LIST}
# Changing what a reference means, or what was evaluated, these cannot be passed over in silence.
_UNSUPPORTED = {"$dynamicRef", "$recursiveRef", "unevaluatedItems", "unevaluatedProperties"}
# Satisfied by trying, so that they are checked on the spot.
_CHECKED = {"oneOf", "not", "if", "dependentSchemas", "maxContains", "propertyNames"}


def _check_keywords(schema: Mapping[str, Any], path: str) -> None:
    for keyword, value in schema.items():
        expected, is_right = _KEYWORDS.get(keyword, ("", None))
        if keyword in _UNSUPPORTED:
            raise SchemaError("this keyword is not supported", _join(path, keyword))
        if is_right and not is_right(value):
            raise SchemaError(f"expected {expected}", _join(path, keyword))


def _join(path: str, *steps: object) -> str:
    return ".".join([path] * bool(path) + [str(step) for step in steps])


def _key(value: Json) -> object:
    """Return what is equal for values that JSON schema holds equal: 1 and 1.0, never 1 and true."""
    if isinstance(value, list):
        return ("array", *map(_key, value))
    if isinstance(value, dict):
        return frozenset((name, _key(item)) for name, item in value.items())
    return (isinstance(value, bool), value)


def _is_a(value: Json, kind: str) -> bool:
    if kind == "integer":
        return _is_number(value) and value % 1 == 0
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    names = {str: "string", dict: "object", list: "array", bool: "boolean", type(None): "null"}
    return names.get(type(value)) == kind


def _kinds(schema: Mapping[str, Any]) -> Sequence[str]:
    kinds = schema.get("type", _TYPES)
    return [kinds] if isinstance(kinds, str) else kinds


def _limit(spot: Spot, lowest: str, highest: str) -> tuple[int, int]:
    """Return the tightest of two keywords that count something."""
    low = max((int(schema.get(lowest, 0)) for schema, _ in spot), default=0)
    high = min((int(schema[highest]) for schema, _ in spot if highest in schema), default=2**63)
    if low > high:
        raise _UnsatisfiableError(f"{lowest} {low} is above {highest} {high}", spot[0][1])
    return low, high


def _exact(number: float) -> Fraction:
    """Return the decimal that was written, not the binary fraction that stands for it."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


# --------------------------------------------------------------------------------------
# The two halves
# --------------------------------------------------------------------------------------


class _Maker:
    """Makes and checks values of one schema on one budget of steps."""

    def __init__(self, root: Schema, rng: random.Random) -> None:
        self._root = root
        self._rng = rng
        self._steps = 0
        self._nodes = 0
        self._pattern_s = MAX_PATTERN_S
        self._patterns: dict[str, Pattern] = {}
        self._known: set[int] = set()
        self._heights: dict[tuple[int, int], float] = {}

    # -- limits and look-ups ----------------------------------------------------------

    def _spend(self, path: str, steps: int = 1) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise SchemaError(f"it takes more than the limit of {MAX_STEPS} steps", path)

    def _enter(self, schema: Mapping[str, Any], path: str) -> None:
        self._spend(path)
        if id(schema) not in self._known:
            _check_keywords(schema, path)
            self._known.add(id(schema))

    def _deepen(self, level: int, path: str) -> int:
        if level >= MAX_LEVELS:
            raise _UnsatisfiableError(
                f"it is nested deeper than {MAX_LEVELS} levels, or without end", path
            )
        return level + 1

    def _target(self, reference: str, path: str) -> Part:
        found: Any = self._root
        steps = reference.removeprefix("#").split("/")
        if not reference.startswith("#") or steps[0]:
            raise SchemaError(f"only references like '#/$defs/x' work, not {reference!r}", path)
        for step in steps[1:]:
            name = re.sub("%([0-9A-Fa-f]{2})", lambda m: chr(int(m[1], 16)), step)
            name = name.replace("~1", "/").replace("~0", "~")
            self._spend(path)
            if isinstance(found, Mapping) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                raise SchemaError(f"{reference!r} leads nowhere", path)
        if not _is_schema(found):
            raise SchemaError(f"{reference!r} leads to something that is no schema", path)
        return found, ".".join(steps[1:])

    def _pattern(self, pattern: str, path: str) -> Pattern:
        if pattern not in self._patterns:
            try:
                self._patterns[pattern] = Pattern.parse(pattern)
            except ValueError as error:
                raise SchemaError(str(error), path) from None
        return self._patterns[pattern]

    def _matches(self, pattern: str, text: str, path: str) -> bool:
        self._spend(path)
        parsed = self._pattern(pattern, path)
        start_s = time.perf_counter()
        try:
            return parsed.matches(text, timeout_s=max(self._pattern_s, 1e-4))
        except TimeoutError:
            raise SchemaError("matching the pattern takes too long", path) from None
        finally:
            # The clock only says when to give up, so that answers stay reproducible.
            self._pattern_s -= time.perf_counter() - start_s

    # -- making -----------------------------------------------------------------------

    def make(self, parts: Sequence[Part], depth: int, level: int) -> JsonValue:
        """Return a value that is valid for all `parts`."""
        self._nodes += 1
        path = parts[0][1] if parts else ""
        if self._nodes > MAX_NODES:
            raise SchemaError(f"it takes more than the limit of {MAX_NODES} values", path)
        spot, choices = self._flatten(parts)
        return self._choose(spot, choices, depth, self._deepen(level, path))

    def _flatten(self, parts: Sequence[Part]) -> tuple[Spot, list[list[list[Part]]]]:
        """Follow $ref and allOf to the schemas that hold together, and collect their choices."""
        spot: Spot = []
        choices: list[list[list[Part]]] = []
        queue = [(part, frozenset[str]()) for part in parts]
        while queue:
            (schema, path), references = queue.pop(0)
            if not isinstance(schema, Mapping):
                if not schema:
                    raise _UnsatisfiableError("false allows nothing here", path)
                continue
            self._enter(schema, path)
            spot.append((schema, path))
            choices += self._choices(schema, path)
            more = [(one, references) for one in _listed(schema, path, "allOf")]
            if (reference := schema.get("$ref")) is not None:
                if reference in references:
                    raise _UnsatisfiableError("$ref leads back to itself", _join(path, "$ref"))
                target = self._target(reference, _join(path, "$ref"))
                more.append((target, references | {reference}))
            queue += more
        return spot, choices

    def _choices(self, schema: Mapping[str, Any], path: str) -> list[list[list[Part]]]:
        found = [
            [[part] for part in _listed(schema, path, keyword)]
            for keyword in ("anyOf", "oneOf")
            if keyword in schema
        ]
        if "oneOf" in schema:
            self._rng.shuffle(found[-1])
        if "if" in schema:
            yes, no = (
                [(schema[keyword], _join(path, keyword))] if keyword in schema else []
                for keyword in ("then", "else")
            )
            found.append([[(schema["if"], _join(path, "if")), *yes], no])
            self._rng.shuffle(found[-1])
        return found

    def _choose(
        self, spot: Spot, choices: list[list[list[Part]]], depth: int, level: int
    ) -> JsonValue:
        """Take an alternative at each choice, so that one value satisfies them all."""
        if not choices:
            return self._settle(spot, depth, level)
        self._spend(spot[0][1], 1 + len(spot) // 8)
        deeper = self._deepen(level, spot[0][1])
        failure = None
        for option in self._in_order(choices[0], depth):
            try:
                more, open_choices = self._flatten(option)
                return self._choose(spot + more, choices[1:] + open_choices, depth, deeper)
            except _UnsatisfiableError as error:
                failure = failure or error
        raise failure or _UnsatisfiableError("no alternative is left", spot[0][1])

    def _in_order(self, options: list[list[Part]], depth: int) -> list[list[Part]]:
        """Put null last; from some depth on, the alternatives that end soonest come first."""
        if self._is_rich(depth):
            return sorted(options, key=_is_null)
        return sorted(
            options, key=lambda option: max((self._height(p, 12) for p in option), default=0)
        )

    def _is_rich(self, depth: int) -> bool:
        return depth == 0 or (depth < RICH_DEPTH and self._nodes < RICH_NODES)

    def _height(self, part: Part, fuel: int) -> float:
        """Return how deep the flattest instance is, or infinity when `fuel` steps do not tell."""
        schema, path = part
        if not isinstance(schema, Mapping):
            return 0 if schema else math.inf
        if not fuel:
            return math.inf
        if (key := (id(schema), fuel)) not in self._heights:
            self._enter(schema, path)
            self._heights[key] = self._measure(schema, path, fuel - 1)
        return self._heights[key]

    def _measure(self, schema: Mapping[str, Any], path: str, fuel: int) -> float:
        if "const" in schema or "enum" in schema:
            return 0
        heights = [self._height(part, fuel) for part in _listed(schema, path, "allOf")]
        if "$ref" in schema:
            heights.append(self._height(self._target(schema["$ref"], path), fuel))
        heights += [
            min(self._height(part, fuel) for part in _listed(schema, path, keyword))
            for keyword in ("anyOf", "oneOf")
            if keyword in schema
        ]
        children = [schema.get("items", True)] if schema.get("minItems") else []
        properties = schema.get("properties", {})
        children += [properties.get(name, True) for name in schema.get("required", ())]
        below = [1 + self._height((child, path), fuel) for child in children]
        if not set(_kinds(schema)) <= {"object", "array"}:
            below = [0] if "type" in schema else below
        return max(heights + below, default=0)

    def _settle(self, spot: Spot, depth: int, level: int) -> JsonValue:
        """Make a value of the first type that works, and check what construction leaves open."""
        path = spot[0][1] if spot else ""
        self._spend(path, len(spot) // 2)
        doubtful = [(schema, at) for schema, at in spot if not _CHECKED.isdisjoint(schema)]
        if any("const" in schema or "enum" in schema for schema, _ in spot):
            return self._listed_value(spot, level)
        failure = None
        for kind in _possible_kinds(spot):
            for turn in range(2 * TRIES if doubtful else 1):
                # Every other time without what is optional: that may be what is not allowed.
                deep = depth if turn % 2 == 0 else max(depth, RICH_DEPTH)
                try:
                    value = self._of_kind(kind, spot, deep, level)
                except _UnsatisfiableError as error:
                    failure = failure or error
                    break
                if all(self.valid(schema, value, at, level) for schema, at in doubtful):
                    return value
        raise failure or _UnsatisfiableError("no value was found that satisfies it", path)

    def _listed_value(self, spot: Spot, level: int) -> JsonValue:
        candidates, path = next(
            ([schema["const"]] if "const" in schema else schema["enum"], path)
            for schema, path in spot
            if "const" in schema or "enum" in schema
        )
        self._spend(path, len(candidates) // 10)
        for value in self._rng.sample(candidates, len(candidates)):
            if all(self.valid(schema, value, at, level) for schema, at in spot):
                self._spend(path, len(dumps(value)) // 100)
                return value  # type: ignore[no-any-return]  # it comes out of the client's JSON
        raise _UnsatisfiableError("no listed value satisfies the other keywords", path)

    def _of_kind(self, kind: str, spot: Spot, depth: int, level: int) -> JsonValue:
        if kind == "object":
            return self._object(spot, depth, level)
        if kind == "array":
            return self._array(spot, depth, level)
        if kind == "string":
            return self._text(spot)
        if kind in ("integer", "number"):
            return self._number(spot, kind)
        return self._rng.random() < 0.5 if kind == "boolean" else None

    # -- numbers ----------------------------------------------------------------------

    def _number(self, spot: Spot, kind: str) -> int | float:
        low, high = _range(spot)
        steps = [_exact(schema["multipleOf"]) for schema, _ in spot if "multipleOf" in schema]
        if kind == "integer":
            steps.append(Fraction(1))
        grids = [_common(steps)] if steps else [Fraction(1, 100), Fraction(1, 10**6)]
        if low is not None and high is not None and not steps:
            grids.append((high - low) / 8 or abs(low) or Fraction(1))
        for grid in grids:
            for _ in range(TRIES):
                value = self._on_grid(grid, low, high)
                if value is not None and all(_bounded(schema, value) for schema, _ in spot):
                    return value
        path = spot[0][1]
        raise _UnsatisfiableError(f"no {kind} is within the bounds", path)

    def _on_grid(self, grid: Fraction, low: Fraction | None, high: Fraction | None) -> float | None:
        if low is None:
            low = Fraction(1) if high is None or high >= 1 else high - 100 * max(grid, Fraction(1))
            low = min(low, grid) if high is not None and high < grid else low
        if high is None:
            high = max(low, Fraction(0)) + 100 * max(grid, Fraction(1))
        first, last = math.ceil(low / grid), math.floor(high / grid)
        if first > last:
            return None
        value = self._rng.randint(first, last) * grid
        return int(value) if value.denominator == 1 else float(value)

    # -- strings ----------------------------------------------------------------------

    def _text(self, spot: Spot) -> str:
        low, high = _limit(spot, "minLength", "maxLength")
        path = spot[0][1] if spot else ""
        if low > MAX_TEXT:
            raise SchemaError(f"minLength {low} is above the limit of {MAX_TEXT}", path)
        self._spend(path, low // 16)
        schemas = [schema for schema, _ in spot]
        for text in self._texts(spot, low, high):
            if low <= len(text) <= high and all(
                all(self._text_rules(schema, text, path)) for schema in schemas
            ):
                return text
        raise _UnsatisfiableError("no text was found that satisfies it", path)

    def _texts(self, spot: Spot, low: int, high: int) -> Iterator[str]:
        for schema, _ in spot:
            if schema.get("format") in FORMATS:
                yield FORMATS[schema["format"]][0](self._rng)
        hints = HINTS.get(spot[-1][1].rpartition(".")[2].lower()) if spot else None
        if hints:
            yield self._rng.choice(hints)
        yield words(low, high, self._rng)
        for schema, path in spot:
            if "pattern" in schema:
                yield from self._pattern_texts(schema["pattern"], low, high, path)

    def _pattern_texts(self, pattern: str, low: int, high: int, path: str) -> Iterator[str]:
        parsed = self._pattern(pattern, _join(path, "pattern"))
        if parsed.shortest > min(high, MAX_TEXT):
            raise _UnsatisfiableError("the pattern's texts are too long", _join(path, "pattern"))
        spend = partial(self._spend, path)
        for turn in range(2 * TRIES):
            goal = max(low, min(high, parsed.shortest + 3 * (1 + turn // 8)))
            slack = max(0, goal - parsed.shortest)
            made = parsed.write(self._rng, slack, eager=turn % 2 == 0, spend=spend)
            yield made
            if len(made) < low:
                yield made + words(low - len(made), low - len(made), self._rng)

    # -- arrays -----------------------------------------------------------------------

    def _array(self, spot: Spot, depth: int, level: int) -> list[JsonValue]:
        path = spot[0][1] if spot else ""
        low, high = _limit(spot, "minItems", "maxItems")
        wanted = _contained(spot)
        if max(low, len(wanted)) > MAX_NODES:
            raise SchemaError(f"minItems is above the limit of {MAX_NODES} values", path)
        goal = max(low, len(wanted), *(len(_prefix(schema)) for schema, _ in spot), 0)
        if self._is_rich(depth + 1):
            goal = max(goal, self._rng.randint(1, 3))
        is_unique = any(schema.get("uniqueItems") for schema, _ in spot)
        items: list[JsonValue] = []
        seen: set[object] = set()
        for index in range(min(goal, high)):
            parts = [part for schema, at in spot for part in _item(schema, at, index)]
            try:
                item = self._item(parts + wanted[index : index + 1], is_unique, seen, depth, level)
            except _UnsatisfiableError:
                if len(items) < max(low, len(wanted)):
                    raise
                break
            items.append(item)
        return items

    def _item(
        self, parts: list[Part], is_unique: bool, seen: set[object], depth: int, level: int
    ) -> JsonValue:
        for _ in range(2 * TRIES if is_unique else 1):
            item = self.make(parts, depth + 1, level)
            if not is_unique:
                return item
            if (key := _key(item)) not in seen:
                seen.add(key)
                return item
        raise _UnsatisfiableError("there are too few different items", parts[0][1] if parts else "")

    # -- objects ----------------------------------------------------------------------

    def _object(self, spot: Spot, depth: int, level: int) -> dict[str, JsonValue]:
        path = spot[0][1] if spot else ""
        low, high = _limit(spot, "minProperties", "maxProperties")
        required = _with_dependents(spot, [n for s, _ in spot for n in s.get("required", ())])
        if len(required) > high:
            raise _UnsatisfiableError(f"more properties are required than {high}", path)
        if low > MAX_NODES:
            raise SchemaError(f"minProperties {low} is above the limit of {MAX_NODES}", path)
        member = partial(self._member, spot, depth, level)
        made = {name: member(name) for name in required}
        declared = list(dict.fromkeys(n for s, _ in spot for n in s.get("properties", ())))
        if self._is_rich(depth):
            self._add(made, spot, declared, high, member)
        else:
            self._add(made, spot, self._rng.sample(declared, len(declared)), low, member)
        if len(made) < low or (not declared and self._is_rich(depth) and _is_open(spot)):
            goal = min(high, max(low, 2))
            self._add(made, spot, self._new_names(spot, goal, level), goal, member)
        if len(made) < low:
            raise _UnsatisfiableError(f"fewer properties are possible than {low}", path)
        order = [name for name in declared if name in made]
        return {name: made[name] for name in dict.fromkeys([*order, *made])}

    def _add(
        self,
        made: dict[str, JsonValue],
        spot: Spot,
        names: Iterable[str],
        goal: int,
        member: Callable[[str], JsonValue],
    ) -> None:
        """Add optional properties, each with those it brings along, up to `goal`."""
        for name in names:
            fresh = [n for n in _with_dependents(spot, [name]) if n not in made]
            if len(made) + len(fresh) <= goal:
                with suppress(_UnsatisfiableError):
                    made |= {other: member(other) for other in fresh}

    def _member(self, spot: Spot, depth: int, level: int, name: str) -> JsonValue:
        parts = [part for schema, path in spot for part in self._member_parts(schema, path, name)]
        for schema, path in spot:
            if "propertyNames" in schema and not self.valid(
                schema["propertyNames"], name, _join(path, "propertyNames"), level
            ):
                raise _UnsatisfiableError(f"the name {name!r} is not allowed", path)
        return self.make(parts, depth + 1, level)

    def _member_parts(self, schema: Mapping[str, Any], path: str, name: str) -> list[Part]:
        """Return what `schema` says of the property `name`."""
        parts: list[Part] = []
        if name in schema.get("properties", ()):
            parts.append((schema["properties"][name], _join(path, "properties", name)))
        for pattern, part in schema.get("patternProperties", {}).items():
            at = _join(path, "patternProperties", pattern)
            if self._matches(pattern, name, at):
                parts.append((part, at))
        if not parts and "additionalProperties" in schema:
            parts.append((schema["additionalProperties"], _join(path, "additionalProperties")))
        return parts

    def _new_names(self, spot: Spot, count: int, level: int) -> Iterator[str]:
        """Yield names for undeclared properties, some more than `count` as not all may serve."""
        rules = [
            (schema["propertyNames"], _join(path, "propertyNames"))
            for schema, path in spot
            if "propertyNames" in schema
        ]
        patterns = [
            ({"pattern": pattern}, _join(path, "patternProperties", pattern))
            for schema, path in spot
            for pattern in schema.get("patternProperties", ())
        ]
        yielded = set()
        for turn in range(4 * count + TRIES):
            word = self._rng.choice(WORDS) + (f"_{turn}" if turn >= TRIES else "")
            if rules or (patterns and turn % 2 == 0):
                pick = [self._rng.choice(patterns)] if patterns and turn % 2 == 0 else []
                name = str(self.make([({"type": "string"}, ""), *rules, *pick], RICH_DEPTH, level))
                # A pattern that is open at an end may be written as one text alone.
                longer = [f"{name}{word}", f"{word}{name}"]
                yield self._rng.choice(longer) if name in yielded else name
                yielded.add(name)
            else:
                yield word

    # -- checking ---------------------------------------------------------------------

    def valid(self, schema: Schema, value: JsonValue, path: str, level: int) -> bool:
        """Return whether `value` is valid for `schema`."""
        if not isinstance(schema, Mapping):
            return schema
        self._enter(schema, path)
        if level >= 2 * MAX_LEVELS:
            raise SchemaError(f"it is nested deeper than {MAX_LEVELS} levels, or without end", path)
        return all(self._rules(schema, value, path, level + 1))

    def _rules(
        self, schema: Mapping[str, Any], value: Json, path: str, level: int
    ) -> Iterator[bool]:
        if "type" in schema:
            yield any(_is_a(value, kind) for kind in _kinds(schema))
        if "const" in schema:
            yield _key(value) == _key(schema["const"])
        if "enum" in schema:
            self._spend(path, len(schema["enum"]) // 10)
            yield _key(value) in map(_key, schema["enum"])
        if isinstance(value, str):
            low, high = _limit([(schema, path)], "minLength", "maxLength")
            yield low <= len(value) <= high
            yield from self._text_rules(schema, value, path)
        elif isinstance(value, dict):
            yield from self._object_rules(schema, value, path, level)
        elif isinstance(value, list):
            yield from self._array_rules(schema, value, path, level)
        elif _is_number(value):
            yield _bounded(schema, value)
        yield from self._logic_rules(schema, value, path, level)

    def _logic_rules(
        self, schema: Mapping[str, Any], value: Json, path: str, level: int
    ) -> Iterator[bool]:
        def holds(part: Part) -> bool:
            return self.valid(part[0], value, part[1], level)

        if "$ref" in schema:
            yield holds(self._target(schema["$ref"], _join(path, "$ref")))
        yield all(map(holds, _listed(schema, path, "allOf")))
        if "anyOf" in schema:
            yield any(map(holds, _listed(schema, path, "anyOf")))
        if "oneOf" in schema:
            yield sum(map(holds, _listed(schema, path, "oneOf"))) == 1
        if "not" in schema:
            yield not holds((schema["not"], _join(path, "not")))
        if "if" in schema:
            branch = "then" if holds((schema["if"], _join(path, "if"))) else "else"
            yield holds((schema.get(branch, True), _join(path, branch)))

    def _text_rules(self, schema: Mapping[str, Any], value: str, path: str) -> Iterator[bool]:
        if "pattern" in schema:
            yield self._matches(schema["pattern"], value, _join(path, "pattern"))
        if schema.get("format") in FORMATS:
            yield re.fullmatch(FORMATS[schema["format"]][1], value) is not None

    def _array_rules(
        self, schema: Mapping[str, Any], value: list[Any], path: str, level: int
    ) -> Iterator[bool]:
        low, high = _limit([(schema, path)], "minItems", "maxItems")
        yield low <= len(value) <= high
        for index, item in enumerate(value):
            for part, at in _item(schema, path, index):
                yield self.valid(part, item, at, level)
        if schema.get("uniqueItems"):
            yield len(set(map(_key, value))) == len(value)
        if "contains" in schema:
            at = _join(path, "contains")
            count = sum(self.valid(schema["contains"], item, at, level) for item in value)
            yield schema.get("minContains", 1) <= count <= schema.get("maxContains", len(value))

    def _object_rules(
        self, schema: Mapping[str, Any], value: dict[str, Any], path: str, level: int
    ) -> Iterator[bool]:
        low, high = _limit([(schema, path)], "minProperties", "maxProperties")
        yield low <= len(value) <= high
        yield all(name in value for name in schema.get("required", ()))
        for name, others in schema.get("dependentRequired", {}).items():
            yield name not in value or all(other in value for other in others)
        for name, item in value.items():
            for part, at in self._member_parts(schema, path, name):
                yield self.valid(part, item, at, level)
            if "propertyNames" in schema:
                yield self.valid(schema["propertyNames"], name, _join(path, "propertyNames"), level)
        for name, part in schema.get("dependentSchemas", {}).items():
            at = _join(path, "dependentSchemas", name)
            yield name not in value or self.valid(part, value, at, level)


def _listed(schema: Mapping[str, Any], path: str, keyword: str) -> list[Part]:
    return [(part, _join(path, keyword, i)) for i, part in enumerate(schema.get(keyword, ()))]


def _is_null(option: list[Part]) -> bool:
    schema = option[0][0] if option else None
    return isinstance(schema, Mapping) and schema.get("type") == "null"


def _possible_kinds(spot: Spot) -> list[str]:
    """Return the types that all schemas allow, the likeliest first and null last."""
    kinds = next((list(_kinds(schema)) for schema, _ in spot if "type" in schema), None)
    if kinds is None:
        keywords = {keyword for schema, _ in spot for keyword in schema}
        kinds = sorted(_TYPES, key=lambda kind: keywords.isdisjoint(_HINT_KEYWORDS.get(kind, ())))
    kinds = ["integer" if kind == "number" and _is_whole(spot) else kind for kind in kinds]
    allowed = [
        kind
        for kind in kinds
        if all(
            kind in _kinds(schema) or (kind == "integer" and "number" in _kinds(schema))
            for schema, _ in spot
        )
    ]
    if not allowed:
        raise _UnsatisfiableError("the types exclude each other", _join(spot[0][1], "type"))
    return sorted(allowed, key=lambda kind: kind == "null")


def _is_whole(spot: Spot) -> bool:
    return any("integer" in _kinds(s) and "number" not in _kinds(s) for s, _ in spot)


_HINT_KEYWORDS = {
    "object": ("properties", "required", "additionalProperties", "minProperties"),
    "array": ("items", "prefixItems", "minItems", "contains"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "string": ("minLength", "maxLength", "pattern", "format"),
}


def _range(spot: Spot) -> tuple[Fraction | None, Fraction | None]:
    lows = [_exact(s[k]) for s, _ in spot for k in ("minimum", "exclusiveMinimum") if k in s]
    highs = [_exact(s[k]) for s, _ in spot for k in ("maximum", "exclusiveMaximum") if k in s]
    low, high = max(lows, default=None), min(highs, default=None)
    if low is not None and high is not None and low > high:
        path = spot[0][1]
        raise _UnsatisfiableError(f"minimum {float(low)} is above maximum {float(high)}", path)
    return low, high


def _common(steps: list[Fraction]) -> Fraction:
    """Return the least common multiple of `steps`."""
    return Fraction(
        math.lcm(*(step.numerator for step in steps)),
        math.gcd(*(step.denominator for step in steps)),
    )


def _bounded(schema: Mapping[str, Any], value: float) -> bool:
    number = _exact(value)
    return (
        ("minimum" not in schema or value >= schema["minimum"])
        and ("maximum" not in schema or value <= schema["maximum"])
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
        and ("multipleOf" not in schema or number % _exact(schema["multipleOf"]) == 0)
    )


def _prefix(schema: Mapping[str, Any]) -> Sequence[Schema]:
    prefix: Sequence[Schema] = schema.get("prefixItems", ())
    return prefix


def _item(schema: Mapping[str, Any], path: str, index: int) -> list[Part]:
    """Return what `schema` says of the item at `index`."""
    if index < len(_prefix(schema)):
        return [(_prefix(schema)[index], _join(path, "prefixItems", index))]
    return [(schema["items"], _join(path, "items"))] if "items" in schema else []


def _contained(spot: Spot) -> list[Part]:
    """Return one part for each item that a `contains` asks for."""
    return [
        (schema["contains"], _join(path, "contains"))
        for schema, path in spot
        if "contains" in schema
        for _ in range(min(int(schema.get("minContains", 1)), MAX_NODES + 1))
    ]


def _with_dependents(spot: Spot, names: Sequence[str]) -> list[str]:
    """Return `names` and all that dependentRequired adds to them."""
    found = dict.fromkeys(names)
    queue = list(found)
    while queue:
        name = queue.pop()
        for schema, _ in spot:
            for other in schema.get("dependentRequired", {}).get(name, ()):
                if other not in found:
                    found[other] = None
                    queue.append(other)
    return list(found)


def _is_open(spot: Spot) -> bool:
    """Return whether undeclared properties are described, as those of a dict are."""
    return any(
        schema.get("patternProperties") or isinstance(schema.get("additionalProperties"), Mapping)
        for schema, _ in spot
    )
