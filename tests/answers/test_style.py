"""What instances look like where a schema leaves it open: optional properties, whole numbers."""

import random
from typing import Any

import pytest

from emulator.schema_instances import PLAIN, Style, instance

Schema = dict[str, Any]
SEEDS = range(40)
OMITTING = Style(fills_optional=False)
FRACTIONAL = Style(whole_numbers=False)

WHOLE: dict[str, Schema] = {
    "no bounds": {},
    "from 0": {"minimum": 0},
    "between fractions": {"minimum": 0.5, "maximum": 2.5},
    "open ends": {"exclusiveMinimum": 0, "exclusiveMaximum": 2},
    "large": {"minimum": 1_000_000},
    "below 0": {"maximum": -0.5},
    "whole step": {"multipleOf": 5},
    "one of two types": {"type": ["number", "null"]},
    "in an anyOf": {"anyOf": [{"type": "number"}, {"type": "null"}]},
    "two sets of bounds": {"allOf": [{"minimum": 0.5}, {"maximum": 7.5}]},
}
FRACTIONS: dict[str, Schema] = {
    "no whole number between": {"minimum": 0.5, "maximum": 0.9},
    "open ends": {"exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "step": {"multipleOf": 0.3, "minimum": 0.1, "maximum": 0.8},
    "bounds of two schemas": {"allOf": [{"minimum": 3.2}, {"maximum": 3.8}]},
}


def made(schema: Schema, style: Style = PLAIN) -> list[Any]:
    """Return instances of one schema."""
    return [instance(schema, random.Random(seed), style) for seed in SEEDS]


@pytest.mark.parametrize("bounds", WHOLE.values(), ids=WHOLE)
def test_numbers_are_whole_where_they_may_be(bounds: Schema) -> None:
    """A number is written without a fraction, for clients that read it as an integer."""
    assert all(type(value) is int for value in made({"type": "number", **bounds}))


@pytest.mark.parametrize("bounds", FRACTIONS.values(), ids=FRACTIONS)
def test_numbers_are_fractions_where_they_must_be(bounds: Schema) -> None:
    """Bounds and steps that leave no whole number out are kept."""
    assert {type(value) for value in made({"type": "number", **bounds})} == {float}


def test_fractions_can_be_asked_for() -> None:
    """With the other style a number without bounds has a fraction, an integer never."""
    assert float in map(type, made({"type": "number"}, FRACTIONAL))
    assert all(type(value) is int for value in made({"type": "integer"}, FRACTIONAL))


PERSON: Schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "home": {
            "type": "object",
            "properties": {"street": {"type": "string"}, "zip": {"type": "string"}},
            "required": ["street"],
        },
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "home"],
}


def test_optional_properties_are_left_out() -> None:
    """Objects have what is required, inner objects too, in the schema's order."""
    for value in made(PERSON, OMITTING):
        assert list(value) == ["name", "home"]
        assert list(value["home"]) == ["street"]


NEEDED: dict[str, tuple[Schema, set[str]]] = {
    "minProperties": ({"minProperties": 3}, set()),
    "dependentRequired": ({"dependentRequired": {"name": ["age"]}}, {"age"}),
    "anyOf": ({"anyOf": [{"required": ["tags"]}]}, {"tags"}),
    "if and then": (
        {"if": {"required": ["name"]}, "then": {"required": ["age"]}},
        {"age"},
    ),
}


@pytest.mark.parametrize("rule", NEEDED)
def test_what_rules_ask_for_is_not_left_out(rule: str) -> None:
    """A property that is optional by itself is there if another keyword asks for it."""
    more, needed = NEEDED[rule]
    least = more.get("minProperties", 2)
    for value in made({**PERSON, **more}, OMITTING):
        assert needed <= set(value)
        assert len(value) >= least


def test_described_members_of_a_dict_are_no_optional_properties() -> None:
    """An object without declared properties whose values are described still has some."""
    schema = {"type": "object", "additionalProperties": {"type": "integer"}}
    assert all(value for value in made(schema, OMITTING))
