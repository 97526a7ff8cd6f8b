"""Schemas that stand in a text: found wherever they are, in linear time whatever is around them."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.schema_instances import schema_in_text
from tests.support.reference import cpu_s, least

Schema = dict[str, Any]

CITY: Schema = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": 'A "city", {say}'}},
    "required": ["city"],
}
OTHER: Schema = {"properties": {}, "type": "object", "title": "Other"}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(CITY),
        f"Answer by this schema:\n{json.dumps(CITY, indent=2)}\nand nothing else.",
        f"```json\n{json.dumps(CITY, indent=4)}\n```",
        f'Earlier: {json.dumps(OTHER)} now: {json.dumps(CITY)} It\'s "quoted" {{so}}',
        f"Use {{braces}}, {{see: {json.dumps(CITY)}}}",
        f'{{"an object that never ends": [1, {json.dumps(CITY)}, oh',
        f'{{"a string that never ends: {json.dumps(CITY)}',
        f'{{"a": "value that never ends: {json.dumps(CITY)}',
        json.dumps({"name": "city", "schema": CITY, "strict": True}),
        json.dumps(CITY, ensure_ascii=True).replace("city", "\\u0063ity"),
    ],
)
def test_a_schema_is_found(text: str) -> None:
    """The last schema of an object is found, fenced or not, whole or in another object."""
    assert schema_in_text(text) == CITY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The properties of an object",
        '{"type": "object"} "properties"',
        '{"type": "object", "properties": []}',
        '{"type": "object", "properties": {',
        '{"type": "array", "properties": {}}',
        '{"type": ["object"], "properties": {}}',
        '{"type": "Feature", "properties": {"height": {"type": "string"}}}',
        '{"type": "object", "properties": {"a": 01}}',
        '{"type": "object", "properties": {"a": "\\x"}}',
        f'{{"type": "object", "properties": {{"a": {json.dumps(CITY)}}}, "title": "\\x"}}',
        '{"properties": {"a": ["b"]}}',
        '{"properties": {"a": {"b": 1}}}',
        '{"type": "object" "properties": {}}',
        '{"a":' * 500 + '{"type":"object","properties":' + '{"a":' * 500 + "1" + "}" * 1001,
    ],
)
def test_what_is_no_schema_of_an_object_is_not_found(text: str) -> None:
    """Broken JSON, other types and data with properties are no schemas."""
    assert schema_in_text(text) is None


def test_a_property_of_a_schema_is_part_of_it() -> None:
    """Of schemas within one another the outermost counts."""
    outer = {"type": "object", "properties": {"inner": CITY, "properties": OTHER}}

    assert schema_in_text(json.dumps(outer)) == outer


def test_a_type_may_be_missing() -> None:
    """LangChain's instructions, which leave the type out and hold an example, are understood."""
    text = (
        'For the schema {"properties": {"foo": {"type": "array"}}, "required": ["foo"]} the object '
        '{"foo": ["bar"]} is well-formatted, {"properties": {"foo": ["bar"]}} is not.\n'
        '```\n{"properties": {"setup": {"type": "string"}}, "required": ["setup"]}\n```'
    )

    assert schema_in_text(text) == {
        "type": "object",
        "properties": {"setup": {"type": "string"}},
        "required": ["setup"],
    }


def test_line_breaks_within_strings_are_let_pass() -> None:
    """A description that a template wrote over two lines does not hide the schema."""
    text = '{"type": "object", "description": "a\nb", "properties": {}}'

    assert schema_in_text(text) == {"type": "object", "description": "a\nb", "properties": {}}


_junk = st.text('{}[]",: \\a1\n', max_size=60)


@given(_junk, _junk)
@settings(max_examples=100, deadline=None)
def test_nothing_around_a_schema_hides_it(before: str, after: str) -> None:
    """Whatever stands around a schema, were it half an object or half a string, it is found."""
    assert schema_in_text(f"{before}\n{json.dumps(CITY)}\n{after}") == CITY


LENGTH = 300_000
HOSTILE = {
    **{
        unit: unit * (LENGTH // len(unit))
        for unit in [
            *(
                "{",
                '{"a":',
                '{"',
                '{"a" ',
                '{"\\"',
                '{"a\\',
                "{   ",
                '{"a":"',
                '{"a":{}},',
                '{"a":1',
            ),
            *('{"type":"object","properties":{}} ', '{"a":{"type":"object","properties":{}},'),
            *('{"a":[' + "[" * 90, '{"' + "x{ " * 3000 + '" '),
        ]
    },
    "one string": '{"a":"' + "x" * LENGTH,
    "one run of escapes": '{"a":"' + "\\n" * (LENGTH // 2),
    "one run of spaces": "{" + " " * LENGTH,
    "one number": '{"type":"object","properties":{"a":' + "1" * LENGTH + "}}",
}


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: name[:40])
def test_the_time_is_linear(name: str) -> None:
    """300 KB of anything take 0.1 s (ten times that here), where a square would take minutes."""
    text = HOSTILE[name] + '"properties"'

    assert least(lambda: cpu_s(lambda: schema_in_text(text)), below=1) < 1
