"""Instances of JSON schemas: valid, reproducible, and quick to end whatever the schema is."""

import json
import random
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
import regex
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field, TypeAdapter

from schema_instances import SchemaError, dumps, instance
from schema_instances.limits import MAX_TEXT

SEEDS = range(20)
Schema = dict[str, Any]


def is_valid(schema: Schema, value: object) -> bool:
    """Ask the reference implementation, formats included."""
    checker = Draft202012Validator.FORMAT_CHECKER
    return Draft202012Validator(schema, format_checker=checker).is_valid(value)


# --------------------------------------------------------------------------------------
# Pydantic's schemas
# --------------------------------------------------------------------------------------


class Unit(Enum):
    """An enumeration."""

    CELSIUS = "c"
    FAHRENHEIT = "f"


class Address(BaseModel):
    """A nested model."""

    street: str = Field(min_length=3, max_length=40)
    postcode: str = Field(pattern=r"^[A-Z]{2}\d{3,5}$")


class Node(BaseModel):
    """A recursive model."""

    value: int
    children: list["Node"]
    parent: "Node | None" = None


class Leaf(BaseModel):
    """An expression that ends."""

    kind: Literal["leaf"]
    number: float


class Branch(BaseModel):
    """An expression with two more inside."""

    kind: Literal["branch"]
    left: Annotated["Leaf | Branch", Field(discriminator="kind")]
    right: Annotated["Leaf | Branch", Field(discriminator="kind")]


class Everything(BaseModel):
    """The types that a schema can tell of."""

    name: str
    nickname: str | None
    unit: Unit
    mode: Literal["fast", "slow", 3]
    home: Address
    addresses: list[Address] = Field(min_length=1, max_length=4)
    scores: dict[str, int]
    pair: tuple[int, str]
    tags: set[Literal["a", "b", "c"]] = Field(min_length=2)
    price: Decimal = Field(gt=0, le=100)
    even: int = Field(ge=-10, lt=10, multiple_of=2)
    ratio: float = Field(gt=0, lt=0.001)
    born: date
    seen: datetime
    took: timedelta
    id: UUID
    shape: Annotated[Leaf | Branch, Field(discriminator="kind")]
    anything: Any
    either: int | str | None = None


@pytest.mark.parametrize("model", [Address, Node, Leaf, Branch, Everything])
def test_instances_of_a_models_schema_are_accepted_by_the_model(model: type[BaseModel]) -> None:
    """A pydantic model accepts every instance of its own schema."""
    schema = model.model_json_schema()

    for seed in SEEDS:
        text = dumps(instance(schema, random.Random(seed)))
        model.model_validate_json(text)


@pytest.mark.parametrize(
    "kind", [Annotated[int | None, 1], Annotated[list[int] | None, 1], Unit | None]
)
def test_nullable_types_yield_a_value(kind: type[Any]) -> None:
    """Of a nullable type, the alternative that is not null is taken."""
    schema = TypeAdapter(kind).json_schema()

    assert all(instance(schema, random.Random(seed)) is not None for seed in SEEDS)


def test_optional_properties_are_filled() -> None:
    """Answers look rich: near the root, optional properties are there too."""
    schema = Everything.model_json_schema()

    made = instance(schema, random.Random(1))

    assert isinstance(made, dict)
    assert list(made) == list(schema["properties"])


# --------------------------------------------------------------------------------------
# OpenAI's examples
# --------------------------------------------------------------------------------------

GET_WEATHER = {
    "type": "object",
    "properties": {
        "location": {"type": "string", "description": "City and country e.g. Bogotá, Colombia"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
    },
    "required": ["location", "unit"],
    "additionalProperties": False,
}
MATH_REASONING = {
    "type": "object",
    "properties": {
        "steps": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "explanation": {"type": "string"},
                    "output": {"type": "string"},
                },
                "required": ["explanation", "output"],
                "additionalProperties": False,
            },
        },
        "final_answer": {"type": "string"},
    },
    "required": ["steps", "final_answer"],
    "additionalProperties": False,
}
UI = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "enum": ["div", "button", "header", "section", "form"]},
        "label": {"type": "string"},
        "children": {"type": "array", "items": {"$ref": "#"}},
        "attributes": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "value": {"type": "string"}},
                "required": ["name", "value"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["type", "label", "children", "attributes"],
    "additionalProperties": False,
}
LINKED_LIST = {
    "type": "object",
    "properties": {"linked_list": {"$ref": "#/$defs/node"}},
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "number"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["value", "next"],
            "additionalProperties": False,
        }
    },
    "required": ["linked_list"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("schema", [GET_WEATHER, MATH_REASONING, UI, LINKED_LIST])
def test_instances_of_openais_examples_are_valid(schema: Schema) -> None:
    """The schemas of OpenAI's guides have valid instances, that are never empty."""
    for seed in SEEDS:
        made = instance(schema, random.Random(seed))
        assert is_valid(schema, made)
        assert made


# --------------------------------------------------------------------------------------
# Keywords
# --------------------------------------------------------------------------------------

KEYWORDS: list[Schema] = [
    {},
    {"type": ["null", "integer"]},
    {"type": "number", "minimum": 0.1, "exclusiveMaximum": 0.100001},
    {"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.25},
    {"type": "number", "minimum": 1e200},
    {"type": "integer", "minimum": -7, "maximum": -7},
    {"type": "integer", "exclusiveMaximum": -1000},
    {"type": "integer", "allOf": [{"multipleOf": 4}, {"multipleOf": 6}]},
    {"type": "string", "minLength": 300, "maxLength": 300},
    {"type": "string", "maxLength": 1},
    {"type": "string", "maxLength": 0},
    {"type": "string", "pattern": r"^\d{3}-[A-F]+(x|yy)?$", "minLength": 20, "maxLength": 20},
    {"type": "string", "pattern": "b", "minLength": 10},
    {"type": "string", "pattern": r"^(?=.*[A-Z])(?=.*\d)[^\s]{8,}$"},
    {"type": "string", "pattern": r"^([a-z])[^a-z]\1\w\W\s\S\D.$"},
    {"type": "array", "items": {"type": "integer"}, "minItems": 30, "uniqueItems": True},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "uniqueItems": True},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}], "items": False},
    {"type": "array", "contains": {"const": 7}, "minContains": 2, "minItems": 4},
    {"type": "array", "contains": {"type": "integer"}, "maxContains": 1, "minItems": 3},
    {"type": "object", "minProperties": 6},
    {"type": "object", "minProperties": 2, "patternProperties": {"^x_[a-z]+$": {"type": "null"}}},
    {
        "patternProperties": {"^x_": {"type": "integer"}},
        "additionalProperties": False,
        "minProperties": 2,
        "type": "object",
    },
    {
        "patternProperties": {"_id$": {"type": "integer"}},
        "additionalProperties": False,
        "minProperties": 60,
        "type": "object",
    },
    {"minProperties": 3, "propertyNames": {"pattern": "^[a-z]{4}$"}, "type": "object"},
    {"properties": {"a": True, "b": True, "c": True}, "maxProperties": 2, "required": ["c"]},
    {"type": "object", "required": ["a"], "dependentRequired": {"a": ["b"], "b": ["c"]}},
    {"type": "object", "required": ["a"], "dependentSchemas": {"a": {"minProperties": 1}}},
    {"properties": {"a": {"type": "integer"}}, "patternProperties": {"^a": {"minimum": 900}}},
    {"enum": [1, "a", None, {"b": [2]}], "not": {"type": "object"}},
    {"const": {"deep": [1, 2.5, True]}},
    {"allOf": [{"properties": {"a": {"minimum": 5}}}, {"properties": {"a": {"maximum": 6}}}]},
    {"type": "object", "allOf": [{"required": ["a"]}, {"properties": {"a": {"const": 1}}}]},
    {"oneOf": [{"type": "integer", "multipleOf": 3}, {"type": "integer", "multipleOf": 5}]},
    {"oneOf": [{"type": "number"}, {"type": "integer"}]},
    {"oneOf": [{"format": "date"}, {"format": "uuid"}], "type": "string"},
    {"anyOf": [False, {"type": "integer", "minimum": 2, "maximum": 1}, {"const": "ok"}]},
    {"type": "integer", "minimum": 1, "maximum": 3, "not": {"enum": [1, 3]}},
    {"not": {"type": ["string", "object", "number"]}},
    {"type": "object", "properties": {"a": {"type": "string"}}, "not": {"required": ["a"]}},
    {
        "type": "object",
        "properties": {"a": True, "b": True, "c": True},
        "minProperties": 2,
        "not": {"required": ["a"]},
    },
    {
        "type": "object",
        "properties": {"o": {"type": "object", "properties": {"a": True}}},
        "required": ["o"],
        "not": {"properties": {"o": {"required": ["a"]}}},
    },
    {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    {
        "properties": {"country": {"enum": ["us", "nl"]}, "code": {"type": "string"}},
        "required": ["country", "code"],
        "if": {"properties": {"country": {"const": "us"}}},
        "then": {"properties": {"code": {"pattern": "^[0-9]{5}$"}}},
        "else": {"properties": {"code": {"pattern": "^[0-9]{4} [A-Z]{2}$"}}},
    },
    {"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"type": "string"}}},
    {"$ref": "#/$defs/a", "maximum": 3, "$defs": {"a": {"type": "integer", "minimum": 3}}},
    {"type": "array", "items": {"$ref": "#"}, "maxItems": 3},
    {"properties": {"again": {"$ref": "#"}}, "type": "object"},
]
FORMATS = (
    "date date-time time duration email hostname ipv4 ipv6 uri uri-reference uuid json-pointer "
    "regex"
)
KEYWORDS += [{"type": "string", "format": name} for name in [*FORMATS.split(), "unheard-of"]]


@pytest.mark.parametrize("schema", KEYWORDS, ids=dumps)
def test_every_keyword_is_honoured(schema: Schema) -> None:
    """Instances are valid by the reference implementation, whatever the seed."""
    for seed in SEEDS:
        made = instance(schema, random.Random(seed))
        assert is_valid(schema, made), made


def test_decimal_multiples_have_no_float_error() -> None:
    """Multiples of 0.1 are written with one digit after the point."""
    schema = {"type": "number", "multipleOf": 0.1, "minimum": 0, "maximum": 1}

    made = {instance(schema, random.Random(seed)) for seed in range(200)}

    assert made == {0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1}


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\p{Lu}\p{Ll}+( \p{L}+)*$",
        r"^[\p{L}\p{N}._-]{3,9}$",
        r"^[^\p{L}\[]{3}$",
        r"^(?<year>\d{4})-(?<month>\d\d)$",
        r"^(?<quote>['\"])[(?<a>]+\1$",
        r"^\(\?<\\p{1}$",
    ],
)
def test_patterns_of_ecmascript(pattern: str) -> None:
    """Unicode classes and named groups, which Python does not have, are written all the same."""
    for seed in SEEDS:
        made = instance({"type": "string", "pattern": pattern}, random.Random(seed))
        assert isinstance(made, str)
        assert regex.search(pattern, made), made


def test_if_is_taken_both_ways() -> None:
    """An enumeration that decides an `if` is not stuck at one value."""
    schema = next(schema for schema in KEYWORDS if "then" in schema)

    made = [instance(schema, random.Random(seed)) for seed in SEEDS]

    assert {value["country"] for value in made if isinstance(value, dict)} == {"us", "nl"}


def test_the_same_seed_gives_the_same_instance() -> None:
    """An instance depends on the schema and the random state alone."""
    schema = Everything.model_json_schema()

    first, again, other = (instance(schema, random.Random(seed)) for seed in (5, 5, 6))

    assert first == again
    assert first != other


def test_dumps_is_compact_ascii() -> None:
    """JSON is written as OpenAI's models write it, and no token can split a character."""
    assert dumps({"a": ["ü", 1.5, None]}) == '{"a":["\\u00fc",1.5,null]}'


# --------------------------------------------------------------------------------------
# Generated schemas
# --------------------------------------------------------------------------------------

_counts = st.integers(0, 4)
_numbers = st.integers(-50, 50) | st.floats(-50, 50).map(lambda x: round(x, 2))
_patterns = st.sampled_from(["^[a-c]+$", r"^\d{2,4}$", "x", "^(foo|ba[rz])", r"^\S*$"])


def _some(**keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[Schema]:
    return st.fixed_dictionaries({}, optional=keywords)


_scalars: st.SearchStrategy[Schema] = st.one_of(
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {}]),
    st.builds(
        lambda kind, rest: {"type": kind, **rest},
        st.sampled_from(["integer", "number"]),
        _some(
            minimum=_numbers,
            maximum=_numbers,
            exclusiveMinimum=_numbers,
            exclusiveMaximum=_numbers,
            multipleOf=st.sampled_from([1, 2, 3, 0.5, 0.25]),
        ),
    ),
    _some(minLength=_counts, maxLength=st.integers(3, 9), pattern=_patterns).map(
        lambda rest: {"type": "string", **rest}
    ),
    st.sampled_from(FORMATS.split()).map(lambda name: {"type": "string", "format": name}),
    st.lists(st.integers(0, 3) | st.text(max_size=3) | st.none(), min_size=1).map(
        lambda values: {"enum": values}
    ),
    st.just({"$ref": "#/$defs/shared"}),
    st.just({"anyOf": [{"$ref": "#"}, {"type": "null"}]}),
)


def _nested(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    names = st.sampled_from("abcd")
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        _some(
            properties=st.dictionaries(names, inner, max_size=4),
            required=st.lists(names, unique=True, max_size=3),
            additionalProperties=inner | st.booleans(),
            patternProperties=st.dictionaries(_patterns, inner, max_size=1),
            propertyNames=_patterns.map(lambda pattern: {"pattern": pattern}),
            dependentRequired=st.dictionaries(names, st.lists(names, unique=True), max_size=2),
            minProperties=_counts,
            maxProperties=st.integers(2, 6),
        ).map(lambda rest: {"type": "object", **rest}),
        _some(
            items=inner | st.booleans(),
            prefixItems=several,
            contains=inner,
            minItems=_counts,
            maxItems=st.integers(2, 6),
            uniqueItems=st.booleans(),
        ).map(lambda rest: {"type": "array", **rest}),
        several.map(lambda schemas: {"anyOf": schemas}),
        several.map(lambda schemas: {"oneOf": schemas}),
        several.map(lambda schemas: {"allOf": schemas}),
        inner.map(lambda schema: {"not": schema}),
        st.builds(lambda a, b, c: {"if": a, "then": b, "else": c}, inner, inner, inner),
    )


schemas: st.SearchStrategy[Schema] = st.builds(
    lambda root, shared: {**root, "$defs": {"shared": shared}},
    st.recursive(_scalars, _nested, max_leaves=8),
    _scalars.filter(lambda schema: "$ref" not in schema),
)


@given(schemas, st.integers(0, 2**32))
@settings(
    max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
def test_generated_schemas_have_valid_instances_or_raise(schema: Schema, seed: int) -> None:
    """Any schema of the supported keywords gives a valid instance or a SchemaError."""
    try:
        made = instance(schema, random.Random(seed))
    except SchemaError:
        return
    try:
        assert is_valid(schema, made), made
    except RecursionError:
        assume(False)  # the reference follows a reference to itself without end


# --------------------------------------------------------------------------------------
# Faults
# --------------------------------------------------------------------------------------


def _age(schema: object) -> Schema:
    return {"type": "object", "properties": {"age": schema}, "required": ["age"]}


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        (_age({"type": "integer", "minimum": 5, "maximum": 3}), "properties.age"),
        (_age({"type": "string", "minLength": 5, "maxLength": 3}), "properties.age"),
        (_age({"type": "array", "minItems": 5, "maxItems": 3}), "properties.age"),
        (_age(False), "properties.age"),
        (_age({"type": "text"}), "properties.age.type"),
        (_age({"type": "integer", "minimum": "3"}), "properties.age.minimum"),
        (_age({"$ref": "#/$defs/nowhere"}), "properties.age.$ref"),
        (_age({"$ref": "https://example.com/schema"}), "properties.age.$ref"),
        (_age({"type": "string", "pattern": "("}), "properties.age.pattern"),
        (_age({"type": "string", "pattern": "\\p{Script=Greek}"}), "properties.age.pattern"),
        (_age({"type": "string", "enum": []}), "properties.age.enum"),
        (_age({"enum": ["a"], "type": "integer"}), "properties.age"),
        (_age({"anyOf": [{"type": "nope"}, {"type": "null"}]}), "properties.age.anyOf.0.type"),
        (_age({"allOf": [{"type": "string"}, {"type": "null"}]}), "properties.age.type"),
        (_age({"not": {}}), "properties.age"),
        (_age({"oneOf": [{}, {}]}), "properties.age"),
        (_age({"unevaluatedProperties": False}), "properties.age.unevaluatedProperties"),
        ({"type": "array", "items": {"type": 3}, "minItems": 1}, "items.type"),
        ({"type": "object", "required": "a"}, "required"),
        ({"$ref": "#"}, "$ref"),
        (False, ""),
    ],
)
def test_schemas_without_instances_are_refused_with_their_path(
    schema: Schema | bool, path: str
) -> None:
    """What cannot be satisfied or understood is named by its path."""
    with pytest.raises(SchemaError) as caught:
        instance(schema, random.Random(1))

    assert caught.value.path == path
    assert str(caught.value).startswith(path)


def _nest(depth: int, wrap: Callable[[Schema], Schema], schema: Schema) -> Schema:
    for _ in range(depth):
        schema = wrap(schema)
    return schema


def _double(keyword: str) -> Schema:
    """Return references that branch in two at each of 40 levels."""
    defs: Schema = {"a0": {"type": "integer"}}
    for i in range(1, 40):
        reference = {"$ref": f"#/$defs/a{i - 1}"}
        defs[f"a{i}"] = {keyword: [reference, reference]}
    return {"$defs": defs}


_TWICE = {
    "properties": {"a": {"$ref": "#/$defs/d"}},
    "patternProperties": {"a": {"$ref": "#/$defs/d"}},
}
_DEEP = _nest(60, lambda value: {"a": value}, {"b": 1})
HOSTILE: dict[str, Schema | bool] = {
    "endless": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "endless pair": {
        "$ref": "#/$defs/a",
        "$defs": {
            "a": {
                "properties": {"x": {"$ref": "#/$defs/a"}, "y": {"$ref": "#/$defs/a"}},
                "required": ["x", "y"],
                "type": "object",
            }
        },
    },
    "endless choice": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
    "endless items": {"type": "array", "minItems": 2, "items": {"$ref": "#"}},
    "nested objects": _nest(5000, lambda s: {"properties": {"a": s}, "required": ["a"]}, {}),
    "nested allOf": _nest(5000, lambda s: {"allOf": [s]}, {"type": "null", "minimum": "x"}),
    "nested anyOf": _nest(5000, lambda s: {"anyOf": [s]}, {}),
    "nested not": _nest(5000, lambda s: {"not": s}, {}),
    "many items": {"type": "array", "minItems": 10**9},
    "many values": {"type": "array", "minItems": 5000, "items": {"minItems": 5, "type": "array"}},
    "long text": {"type": "string", "minLength": MAX_TEXT + 1},
    "long texts": {
        "type": "array",
        "minItems": 999,
        "items": {"type": "string", "minLength": 65_000},
    },
    "many names": {"type": "object", "minProperties": 10**9},
    "many contained": {"type": "array", "contains": {}, "minContains": 10**12},
    "long pattern": {"type": "string", "pattern": "((a{999}){999}){999}"},
    "slow pattern": {
        "type": "string",
        "pattern": "^(a+)+$",
        "allOf": [{"pattern": "^(a|a)*b$"}],
        "minLength": 60,
    },
    "slow check": {"const": "a" * 60 + "!", "pattern": "^(a|a?)+$"},
    "long literal": {"type": "string", "pattern": "a" * 4900},
    "long literal looked for": {"type": "string", "pattern": f"x*(?={'a' * 4900})a*"},
    "long literal repeated": {"type": "string", "pattern": "((?i:[a]{70}){70})"},
    "deep pattern": {"type": "string", "pattern": "(" * 900 + ")" * 900},
    "allOf doubled": {"$ref": "#/$defs/a39", **_double("allOf")},
    "not doubled": {"not": {"$ref": "#/$defs/a39"}, **_double("allOf"), "type": "integer"},
    "if doubled": {"if": {"$ref": "#/$defs/a39"}, **_double("allOf"), "type": "integer"},
    "anyOf doubled": {"$ref": "#/$defs/a39", "type": "string", **_double("anyOf")},
    "constant checked twice at each level": {
        "const": _DEEP,
        "$ref": "#/$defs/d",
        "$defs": {"d": _TWICE},
    },
    "huge constant": {"const": _nest(900, lambda value: {"a": value}, {}), "uniqueItems": True},
    "no different items": {
        "type": "array",
        "items": {"const": 1},
        "uniqueItems": True,
        "minItems": 99,
    },
    "huge enum of choices": {
        "allOf": [{"enum": list(range(i, 3000))} for i in range(0, 3000, 300)]
    },
    "tiny step": {"type": "number", "multipleOf": 1e-300, "minimum": 1e300, "maximum": 1e300},
    "huge bound": {"type": "number", "minimum": 10**4000},
    "unlikely choices": {
        "allOf": [{"anyOf": [{"type": "null"}, {"type": "integer"}]}] * 60 + [{"type": "string"}]
    },
    "wide tree": {
        "type": "object",
        "properties": {f"p{i}": {"$ref": "#"} for i in range(100)},
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_schemas_end_soon(name: str) -> None:
    """Whatever a client sends ends within 100 ms (ten times that here, for busy machines)."""
    start_s = time.perf_counter()
    try:
        made = instance(HOSTILE[name], random.Random(1))
    except SchemaError:
        made = None
    took_s = time.perf_counter() - start_s

    print(f"{name}: {took_s * 1000:.0f} ms")  # noqa: T201 - shown by pytest -s, for the record
    assert len(json.dumps(made)) < 2_000_000
    assert took_s < 1


def test_limits_are_told() -> None:
    """A schema that asks for too much is told the limit."""
    with pytest.raises(SchemaError, match=f"limit of {MAX_TEXT}"):
        instance({"type": "string", "minLength": 10**9}, random.Random(1))


def test_a_schema_of_ten_properties_takes_less_than_a_millisecond() -> None:
    """Speed: the fastest of some runs is well below the shortest inter-token latency in use."""
    schema = {
        "type": "object",
        "properties": {f"p{i}": {"type": "string"} for i in range(5)}
        | {f"q{i}": {"type": "integer", "minimum": 1, "maximum": 9} for i in range(5)},
        "required": [f"p{i}" for i in range(5)],
    }
    times_s = []
    for seed in SEEDS:
        start_s = time.perf_counter()
        instance(schema, random.Random(seed))
        times_s.append(time.perf_counter() - start_s)

    assert min(times_s) < 0.001
