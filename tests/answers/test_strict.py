"""Strict mode: the first fault of a schema is told as OpenAI tells it."""

from typing import Any

import pytest

from emulator.schema_instances import strict_fault
from tests.support.reference import cpu_s, least

OPEN = "'additionalProperties' is required to be supplied and to be false."
LEAF: dict[str, Any] = {"type": "object", "properties": {}}


def missing(name: str) -> str:
    """Return OpenAI's words for a property that is not required."""
    return (
        "'required' is required to be supplied and to be an array including every key in "
        f"properties. Missing '{name}'."
    )


def closed(**properties: object) -> dict[str, Any]:
    """Return a strict schema of an object."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (LEAF, f"In context=(), {OPEN}"),
        ({**closed(a={}), "additionalProperties": True}, f"In context=(), {OPEN}"),
        ({**closed(a={}), "additionalProperties": {}}, f"In context=(), {OPEN}"),
        ({**closed(a={}, b={}), "required": ["a"]}, f"In context=(), {missing('b')}"),
        ({**closed(a={}), "required": None}, f"In context=(), {missing('a')}"),
        ({"properties": {}}, f"In context=(), {OPEN}"),
        (closed(a=LEAF), f"In context=('properties', 'a'), {OPEN}"),
        (closed(a={**LEAF, "type": ["object", "null"]}), f"In context=('properties', 'a'), {OPEN}"),
        (
            closed(a={"type": "array", "items": LEAF}),
            f"In context=('properties', 'a', 'items'), {OPEN}",
        ),
        (
            closed(a={"anyOf": [{"type": "null"}, LEAF]}),
            f"In context=('properties', 'a', 'anyOf', '1'), {OPEN}",
        ),
        (
            {**closed(a={"$ref": "#/$defs/b"}), "$defs": {"b": LEAF}},
            f"In context=('$defs', 'b'), {OPEN}",
        ),
        ({**closed(), "definitions": {"b": LEAF}}, f"In context=('definitions', 'b'), {OPEN}"),
    ],
)
def test_the_first_fault_is_told(schema: dict[str, Any], told: str) -> None:
    """A missing rule is named with the place where it is missing."""
    assert str(strict_fault(schema)) == told


def test_the_order_is_from_the_outside_in_as_written() -> None:
    """Of several faults the outermost counts, then the first that is written."""
    inner = closed(x=LEAF, y=LEAF)
    schema = {"$defs": {"d": LEAF}, **closed(a=inner, b=LEAF)}

    fault = strict_fault(schema)

    assert fault is not None
    assert fault.context == ("properties", "a", "properties", "x")


@pytest.mark.parametrize(
    "schema",
    [
        closed(),
        closed(a=closed(b={"type": "array", "items": closed()}), c={"type": ["string", "null"]}),
        {"type": "string"},
        {"$ref": "#/$defs/a", "$defs": {"a": closed(next={"$ref": "#/$defs/a"})}},
        # What is no schema is refused elsewhere.
        {"type": 3, "items": 4, "anyOf": {}, "$defs": [1], "properties": 5},
        closed() | {"properties": ["a"], "required": "a"},
        True,
        None,
    ],
)
def test_strict_schemas_have_no_fault(schema: object) -> None:
    """Schemas that keep the rules pass, and so does what is none."""
    assert strict_fault(schema) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{"type": "string"}] * 300_000},
        {"anyOf": [True] * 300_000},
        closed(**{f"p{i}": {} for i in range(100_000)}),
    ],
    ids=["alternatives", "booleans", "properties"],
)
def test_a_schema_too_large_is_told_so(schema: dict[str, Any]) -> None:
    """More schemas than the limit are refused, soon."""
    assert "more than 10000 schemas" in str(strict_fault(schema))

    assert least(lambda: cpu_s(lambda: strict_fault(schema)), below=2) < 2


def test_a_deep_schema_is_walked() -> None:
    """Depth neither ends in a recursion error nor in time that grows with its square."""
    schema: dict[str, Any] = LEAF
    for _ in range(5_000):
        schema = {"type": "array", "items": schema}

    fault = strict_fault(schema)

    assert fault is not None
    assert fault.context == ("items",) * 5_000
