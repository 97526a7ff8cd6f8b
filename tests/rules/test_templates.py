"""Templates: what they say, and that they end whatever they say."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.rules.globs import Budget, OverBudgetError
from emulator.rules.templates import NAMES, Template, TemplateError, fill, is_template
from tests.support.reference import cpu_s, least

VALUES: Mapping[str, Any] = {
    "user": "hi there",
    "messages": [{"role": "system", "content": "be"}, {"role": "user", "content": "hi there"}],
    "tool_result": "sunny",
    "model": "gpt-4",
    "turn": 2,
    "n": 3,
}


def rendered(source: str, seconds: float = 5, **values: object) -> str:
    """Return what a template makes of the values."""
    return Template(source).render({**VALUES, **values}, Budget(seconds))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("In Paris it is {{ tool_result }}.", "In Paris it is sunny."),
        ("{{ messages[-1].content }} {{ messages[0]['role'] }}", "hi there system"),
        ("{{ user | upper | replace('H', 'J') }}", "JI TJERE"),
        ("{% for m in messages %}{{ loop.index }}{{ m.role[0] }}{% endfor %}", "1s2u"),
        ("{% if turn > 1 and n in [3] %}yes{% else %}no{% endif %}", "yes"),
        ("{{ 'a' ~ user ~ n }}{{ n + 1 }}", "ahi there34"),
        ("{{ {'a': user} | tojson }}", '{"a": "hi there"}'),
        ("{{ user[:2] }}{{ messages | length }}", "hi2"),
        ("{{ messages[9] | default('none') }}", "none"),
        ("<b>{{ '<' }}\n", "<b><\n"),
        ("{{ user is string }}{# gone #}", "True"),
    ],
)
def test_templates_say(source: str, text: str) -> None:
    """Templates read the names that there are, in conditions, loops and filters."""
    assert rendered(source) == text


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{ usr }}", "there is no name 'usr'; did you mean user?"),
        ("{{ range(9) }}", "expected no call"),
        ("{{ user.upper() }}", "expected no call"),
        ("{{ self }}", "there is no name 'self'"),
        ("{{ _meter }}", "there is no name '_meter'"),
        ("{{ cycler }}", "there is no name 'cycler'"),
        ("a\n{% set x = 1 %}", "template line 2: expected no assign"),
        ("{% macro m() %}{% endmacro %}", "expected no macro"),
        ("{% include 'x' %}", "expected no include"),
        ("{% import 'x' as x %}", "expected no import"),
        ("{% extends 'x' %}", "expected no extends"),
        ("{% block x %}{% endblock %}", "expected no block"),
        ("{{ user | center(9) }}", "there is no filter 'center'; there are abs"),
        ("{{ user is sameas(1) }}", "test"),
        ("{{ (", "template line 1: unexpected"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested less deeply"),
        ("x" * 16_385 + "{{ n }}", "expected at most 16384 characters"),
    ],
)
def test_what_templates_are_not_made_of(source: str, problem: str) -> None:
    """A template that reads or does more than templates may does not compile."""
    with pytest.raises(TemplateError, match=problem.replace("(", r"\(")):
        Template(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[9].content }}",
        "{{ messages[0].nothing }}",
        "{{ user.upper }}",
        "{{ ''.__class__ }}",
        "{{ messages.append }}",
        "{{ n / 0 }}",
        "{{ n + user }}",
        "{{ 'x' * 1000000000 }}",
        "{{ [1] * 99 }}",
        "{{ '%0999999999d' % 1 }}",
        "{{ 2 ** 99999999 }}",
        "{{ (((9 ** 99) ** 99) ** 99) }}",
        "{{ user | int | float | abs + [] }}",
        "{{ messages | join(messages) }}",
    ],
)
def test_what_fails_when_rendered(source: str) -> None:
    """What is not there, does not fit or would be too large ends in an error."""
    with pytest.raises(TemplateError):
        rendered(source)


NESTED = "{% for a in user %}" * 5 + "{{ a ~ user }}" + "{% endfor %}" * 5


@pytest.mark.parametrize(
    ("source", "user"),
    [
        (NESTED, "x" * 100),
        ("{% for a in user %}{% endfor %}", "x" * 10_000_000),
        ("{% for a in user %}{{ user ~ user }}{% endfor %}", "x" * 400_000),
        ("{{ user | join('" + "x" * 1000 + "') }}", "x" * 100_000),
        ("{{ user | replace('x', user) }}", "x" * 100_000),
        ("{{ " + " ~ ".join(["user"] * 2000) + " }}", "x" * 100_000),
        ("{{ user }}" * 1000, "x" * 100_000),
    ],
)
def test_what_takes_long_ends(source: str, user: str) -> None:
    """However it loops and grows, a template ends in an error, in time."""

    def render() -> None:
        with pytest.raises((TemplateError, OverBudgetError)):
            rendered(source, 1, user=user)

    assert least(lambda: cpu_s(render), below=10) < 10


_STATEMENTS = ("{% for a in ", " %}", "{% endfor %}", "{% if ", "{% endif %}")
_WORDS = ("a", "user", "messages", "n", "9", "'x'", " | join", "{{ ", " }}")
_PIECES = st.sampled_from([*_STATEMENTS, *_WORDS, *"[]().~*+", " ** "])


@settings(derandomize=True, max_examples=300)
@given(st.lists(_PIECES, max_size=20))
def test_anything_is_a_text_or_an_error(pieces: list[str]) -> None:
    """Whatever a template is made of, it renders, or tells what is wrong with it."""
    with suppress(TemplateError, OverBudgetError):
        assert isinstance(rendered("".join(pieces), 1), str)


def test_names_are_those_that_it_reads() -> None:
    """A template knows which names it reads, so that no other value is made."""
    assert Template("{{ user }}{% if n %}{{ n }}{% endif %}").names == {"user", "n"}
    assert Template("{{ " + " ~ ".join(NAMES) + " }}").names == set(NAMES)


def test_braces_make_a_template() -> None:
    """A text without Jinja's marks is none."""
    assert [is_template(text) for text in ("{a}", '{"a": {}}', "{{ a }}", "{% a", "{# a #}")] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_json_is_filled_leaf_by_leaf() -> None:
    """Of JSON each text is rendered, wherever it stands but in names."""
    assert fill({"a": ["x", 1, None], "b": {"x": "x"}}, str.upper) == {
        "a": ["X", 1, None],
        "b": {"x": "X"},
    }
