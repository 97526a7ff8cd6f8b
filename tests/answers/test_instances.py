"""Instances of JSON schemas: valid, reproducible, and quick to end whatever the schema is."""

import pickle
import random
import sys
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

from emulator.schema_instances import SchemaError, dumps, instance
from emulator.schema_instances.limits import MAX_INSTANCE_S, MAX_TEXT
from emulator.schema_instances.numbers import Range
from emulator.schema_instances.patterns import parse_pattern
from tests.support.reference import cpu_s, here_s, least

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
    ("bounds", "low", "high"),
    [
        ({}, 0, 100),
        ({"minimum": -(2**53) + 1, "maximum": 2**53 - 1}, 0, 100),
        ({"minimum": -(2**31), "maximum": 2**31 - 1}, 0, 100),
        ({"minimum": 0, "maximum": 2**32}, 0, 100),
        ({"exclusiveMinimum": 0}, 0.001, 100),
        ({"minimum": 18}, 18, 100),
        ({"minimum": -5}, 0, 100),
        ({"minimum": 5000, "maximum": 2**53}, 5000, 5010),
        ({"maximum": 7}, 0, 7),
        ({"maximum": -1000, "minimum": -(2**40)}, -1100, -1000),
        ({"exclusiveMaximum": 0}, -100, -0.001),
        ({"multipleOf": 5}, 0, 100),
        ({"multipleOf": 1000}, 0, 10_000),
        ({"minimum": 2**40}, 2**40, 2**40 + 10),
        ({"maximum": -(2**40)}, -(2**40) - 100, -(2**40)),
        ({"minimum": -3, "maximum": 3}, -3, 3),
        ({"minimum": 0, "maximum": 10**6}, 0, 10**6),
    ],
)
@pytest.mark.parametrize("kind", ["integer", "number"])
def test_numbers_are_small_where_they_may_be(
    kind: str, bounds: Schema, low: float, high: float
) -> None:
    """Without bounds, or with those that only tell an integer's width, numbers are 0 to 100."""
    schema = {"type": kind, **bounds}

    made = [instance(schema, random.Random(seed)) for seed in range(50)]

    assert all(low <= number <= high for number in made if isinstance(number, int | float))
    assert all(is_valid(schema, number) for number in made)
    assert len(set(map(str, made))) > 3


def test_open_ends_are_left_out_by_construction() -> None:
    """Between 0 and 2, both left out, 1 is the only integer that is drawn from."""
    assert Range(0, 2, is_low_open=True, is_high_open=True).multiples(1) == (1, 1)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number", "exclusiveMinimum": 1e200},
        {"type": "number", "exclusiveMaximum": -1e200},
        {"type": "number", "minimum": sys.float_info.max},
        {"type": "number", "maximum": -sys.float_info.max},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e-300},
        {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 2},
        {"type": "integer", "minimum": 1e25},
        {"type": "number", "maximum": sys.float_info.max, "minimum": -sys.float_info.max},
        {"type": "integer", "multipleOf": 10**200},
    ],
    ids=dumps,
)
def test_numbers_at_the_ends_of_doubles(schema: Schema) -> None:
    """Bounds as far as a double reaches are kept, and the number made is within a double."""
    for seed in SEEDS:
        made = instance(schema, random.Random(seed))
        assert isinstance(made, int | float)
        assert abs(made) <= sys.float_info.max
        assert is_valid(schema, made), made


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


@pytest.mark.parametrize("examples", [100, pytest.param(600, marks=pytest.mark.slow)])
def test_generated_schemas_have_valid_instances_or_raise(examples: int) -> None:
    """Any schema of the supported keywords gives a valid instance or a SchemaError."""

    @given(schemas, st.integers(0, 2**32))
    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        derandomize=True,
    )
    def is_valid_or_raises(schema: Schema, seed: int) -> None:
        try:
            made = instance(schema, random.Random(seed))
        except SchemaError:
            return
        try:
            assert is_valid(schema, made), made
        except RecursionError:
            assume(False)  # the reference follows a reference to itself without end

    is_valid_or_raises()


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
    "many multiples": {
        "type": "integer",
        "allOf": [{"multipleOf": 10**299 + i} for i in range(900)],
    },
    "many steps": {"type": "number", "allOf": [{"multipleOf": 1 / (3 + i)} for i in range(900)]},
    "many schemas together": {"allOf": [{"multipleOf": 1}] * 3000},
    "chain of references": {
        "type": "array",
        "minItems": 900,
        "items": {"$ref": "#/$defs/a0"},
        "$defs": {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(900)},
    },
    "large constant compared often": {
        "const": [[]] * 8000,
        "anyOf": [{"const": [[]] * 7999 + [i]} for i in range(100)],
    },
    "large object checked often": {
        "const": {str(i): 1 for i in range(6000)},
        "anyOf": [{"type": "object", "properties": {"5999": False}}] * 900,
    },
    "optional properties met often": {
        "type": "array",
        "minItems": 500,
        "items": {"type": "object", "properties": {f"p{i}": True for i in range(3000)}},
    },
    "long name": {
        "type": "array",
        "minItems": 2000,
        "items": {"type": "object", "required": ["a" * 10_000]},
    },
    "long path": {
        "type": "array",
        "minItems": 4000,
        "items": {"properties": {"a" * 60_000: {"type": "integer"}}, "required": ["a" * 60_000]},
    },
    "colons": {"const": ":" * 30_000 + "x", "format": "ipv6"},
    "many patterns": {
        "type": "string",
        "allOf": [{"pattern": f"[a-z]{{{i}}}[0-9a-f]?" * 4 + "x"} for i in range(1, 400)],
    },
    "large class": {
        "type": "string",
        "pattern": f"[^{''.join(map(chr, range(256, 4000)))}]" + "{900}",
    },
    "numbers that are none": {
        "type": "array",
        "minItems": 900,
        "items": {
            "prefixItems": [
                {"type": "number", "multipleOf": 7 + i / 1e9, "exclusiveMinimum": 1e300}
                for i in range(200)
            ],
            "minItems": 200,
        },
    },
    "anyOf in anyOf": _nest(900, lambda s: {"anyOf": [{"type": "null"}, s], "minItems": 1}, {}),
    "items of items": {"type": "array", "minItems": 4900, "items": {"anyOf": [{"$ref": "#"}] * 60}},
    "wide tree": {
        "type": "object",
        "properties": {f"p{i}": {"$ref": "#"} for i in range(100)},
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_schemas_end_soon(name: str) -> None:
    """Whatever a client sends ends within 0.3 s of CPU (twice that here), and is not too long."""
    most_s = here_s(2 * MAX_INSTANCE_S)
    took_s = least(lambda: cpu_s(lambda: made_or_refused(HOSTILE[name])), below=most_s)

    print(f"{name}: {took_s * 1000:.0f} ms")  # noqa: T201 - shown by pytest -s, for the record
    assert len(dumps(made_or_refused(HOSTILE[name]))) < 640_000
    assert took_s < most_s


def made_or_refused(schema: Schema | bool) -> Any:  # noqa: ANN401 - JSON
    """Return an instance of a schema, or the words of its refusal."""
    try:
        return instance(schema, random.Random(1))
    except SchemaError as error:
        return str(error)


_any_schema: st.SearchStrategy[Schema] = st.deferred(
    lambda: st.fixed_dictionaries({}, optional=_any_keywords)
)
_several = st.builds(
    lambda found, times: (found * times)[:900],
    st.lists(_any_schema, min_size=1, max_size=3),
    st.sampled_from([1, 30, 900]),
)
_count_like = st.sampled_from([0, 1, 2, 5, 50, 300, 4900])
_number_like = st.sampled_from([0.1, 5e-324, 7, 2**31, 1e300, -1e300, 1.7e308, 1 / 3])
_any_keywords: dict[str, st.SearchStrategy[Any]] = {
    "$ref": st.sampled_from(["#", "#/$defs/a"]),
    "type": st.sampled_from(["array", "object", "string", "number", "integer"]),
    "items": _any_schema,
    "prefixItems": _several,
    "contains": _any_schema,
    "minContains": _count_like,
    "minItems": _count_like,
    "uniqueItems": st.booleans(),
    "properties": st.dictionaries(st.sampled_from(["a", "b" * 5000]), _any_schema),
    "patternProperties": st.dictionaries(st.sampled_from(["a", "^(x+x+)+y"]), _any_schema),
    "additionalProperties": _any_schema,
    "minProperties": _count_like,
    "required": st.lists(st.sampled_from(["a", "b" * 5000, "c"])),
    "allOf": _several,
    "anyOf": _several,
    "oneOf": _several,
    "not": _any_schema,
    "const": st.sampled_from([1, "x" * 9000, [[]] * 3000, {str(i): i for i in range(3000)}]),
    "minLength": _count_like,
    "pattern": st.sampled_from(["^(a|a?)+$", "[^x]{200}", "(?:[a-z]{1,40}){1,60}", "^a+$"]),
    "format": st.sampled_from(["ipv6", "uri", "json-pointer"]),
    "minimum": _number_like,
    "exclusiveMaximum": _number_like,
    "multipleOf": _number_like.filter(lambda number: number > 0),
}


@pytest.mark.parametrize("examples", [8, pytest.param(25, marks=pytest.mark.slow)])
def test_any_schema_ends_soon(examples: int) -> None:
    """Schemas put together from what is costly end within the same bound."""
    most_s = here_s(2 * MAX_INSTANCE_S)

    @given(_any_schema, _any_schema)
    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    def ends_soon(schema: Schema, shared: Schema) -> None:
        whole = {**schema, "$defs": {"a": shared}}
        made: list[Any] = []
        took_s = cpu_s(lambda: made.append(made_or_refused(whole)))
        if took_s >= most_s:
            took_s = least(lambda: cpu_s(lambda: made_or_refused(whole)), below=most_s)

        assert took_s < most_s
        assert len(dumps(made[0])) < 640_000

    ends_soon()


def test_limits_are_told() -> None:
    """A schema that asks for too much is told the limit."""
    with pytest.raises(SchemaError, match=f"limit of {MAX_TEXT}"):
        instance({"type": "string", "minLength": 10**9}, random.Random(1))


def test_the_clock_ends_what_steps_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance whose steps take long is given up, as told, once its time is over."""
    monkeypatch.setattr("emulator.schema_instances.limits.MAX_INSTANCE_S", 0.001)

    with pytest.raises(SchemaError, match=r"the limit of 0\.001 s"):
        instance({"type": "array", "minItems": 4000}, random.Random(1))


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"allOf": [{}] * 1001}, "allOf: expected a list of 1 to 1000 schemas"),
        ({"anyOf": [{}] * 1001}, "anyOf: expected a list of 1 to 1000 schemas"),
        ({"allOf": [{"allOf": [{}] * 600}] * 2}, "more than the limit of 1000 schemas hold"),
        ({"allOf": [{"anyOf": [{"allOf": [{}] * 600}]}] * 2}, "the limit of 1000 schemas hold"),
        ({"const": {"a": [1, 10**400]}}, "const: a number is beyond a double's range"),
        ({"const": float("inf")}, "const: a number is beyond a double's range"),
        ({"const": float("nan")}, "const: a number is beyond a double's range"),
        ({"enum": [1, [-(10**400)]]}, "enum: a number is beyond a double's range"),
        (
            {"type": "number", "minimum": 10**400},
            "minimum: expected a number of at most 1.8e+308, as a double holds",
        ),
        (
            {"type": "number", "multipleOf": float("inf")},
            "multipleOf: expected a number above 0 and of at most 1.8e+308, as a double holds",
        ),
        (
            {"type": "integer", "allOf": [{"multipleOf": 10**299 + i} for i in range(3)]},
            "allOf.1.multipleOf: the least common multiple of all multipleOf is above 1.8e+308",
        ),
        (
            {"type": "number", "allOf": [{"multipleOf": 1 / (3 + i)} for i in range(99)]},
            "multipleOf: the least common multiple of all multipleOf is above 1.8e+308",
        ),
        ({"$ref": "#/" + "x" * 5000}, r"\$ref: '#/x+\.\.\.' leads nowhere"),
    ],
)
def test_bounds_are_told(schema: Schema, told: str) -> None:
    """What is above a bound is refused by name, in a message that is not long itself."""
    with pytest.raises(
        SchemaError, match=told.replace("+", r"\+") if "e+" in told else told
    ) as caught:
        instance(schema, random.Random(1))

    assert len(str(caught.value)) < 1000


def test_a_fault_can_be_sent_between_processes() -> None:
    """Helper processes may raise it: pickled and read again, it says the same."""
    with pytest.raises(SchemaError) as caught:
        instance(_age(False), random.Random(1))

    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - it is our own

    assert (type(copy), copy.path, str(copy)) == (
        type(caught.value),
        "properties.age",
        "properties.age: false allows nothing here",
    )


def test_compiled_patterns_are_not_kept_without_end() -> None:
    """Patterns that clients send do not stay in regex's caches, which have no bound in bytes."""
    regex.purge()
    for i in range(1100):
        parse_pattern(f"^[b-z]+{i}$")

    assert f"^[b-z]+{i}$" not in {key[0] for key in regex._main._cache}  # type: ignore[attr-defined]
    assert len(regex._main._locale_sensitive) <= 500  # type: ignore[attr-defined]


def test_a_schema_of_ten_properties_takes_less_than_a_millisecond() -> None:
    """Speed: the fastest of some runs is well below the shortest inter-token latency in use."""
    schema = {
        "type": "object",
        "properties": {f"p{i}": {"type": "string"} for i in range(5)}
        | {f"q{i}": {"type": "integer", "minimum": 1, "maximum": 9} for i in range(5)},
        "required": [f"p{i}" for i in range(5)],
    }
    most_s = here_s(0.001)

    def instances_s() -> float:
        """Return the least CPU time of a few instances."""
        return min(cpu_s(lambda: instance(schema, random.Random(seed))) for seed in SEEDS)  # noqa: B023 - at once

    assert least(instances_s, below=most_s) < most_s
