"""Which rules a request matches, and that this is quick and bounded."""

import fnmatch
import hashlib
import time
import timeit
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.rules.globs import Budget, Glob, OverBudgetError, folded
from emulator.rules.subject import TextConversation, scope_of_key
from tests.rules.making import SAYS, asked_of, conversation, matched, rules_of, subject
from tests.support.reference import cpu_s, here_s, least

TOOL = {"type": "function", "function": {"name": "get_weather"}}
CALL = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
ASKED = {"role": "user", "content": "What is the\n  weather?"}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "very\tsunny"}
SYSTEM = {"role": "system", "content": "Be brief."}
SEEN = {
    "headers": {"x-team": "blue-1"},
    "key": hashlib.sha256(b"sk-1").hexdigest(),
}


@pytest.mark.parametrize(
    ("match", "does"),
    [
        ({}, True),
        ({"model": "gpt-*"}, True),
        ({"model": "GPT-*"}, False),
        ({"model": "gpt-[45]"}, True),
        ({"model": "gpt-?5"}, False),
        ({"path": "/v1/chat/*"}, True),
        ({"path": "/v1/completions"}, False),
        ({"stream": False}, True),
        ({"stream": True}, False),
        ({"user": "a*"}, True),
        ({"user": "b*"}, False),
        ({"api_key": hashlib.sha256(b"sk-1").hexdigest()[:8] + "*"}, True),
        ({"api_key": hashlib.sha256(b"sk-2").hexdigest()}, False),
        ({"header": {"X-Team": "blue*"}}, True),
        ({"header": {"x-team": "red*"}}, False),
        ({"header": {"x-other": "*"}}, False),
        ({"text": "What is the weather?"}, True),
        ({"text": "*weather*"}, True),
        ({"text": "What*weather[?]"}, True),
        ({"text": "*Weather*"}, False),
        ({"text_regex": r"the\s+weather"}, True),
        ({"text_regex": r"^weather"}, False),
        ({"system": "Be*"}, True),
        ({"system": "*long*"}, False),
        ({"tool_result": "very sunny"}, True),
        ({"tool_result": "*rainy*"}, False),
        ({"has_tool_result": True}, True),
        ({"has_tool_result": False}, False),
        ({"tools": "get_*"}, True),
        ({"tools": "put_*"}, False),
        ({"turn": 1}, True),
        ({"turn": 0}, False),
        ({"model": "gpt-*", "text": "*weather*", "turn": 0}, False),
    ],
)
def test_all_that_is_given_has_to_match(match: Mapping[str, Any], does: bool) -> None:
    """A rule is for the requests that match in all that it gives."""
    talk = conversation(messages=[SYSTEM, ASKED, CALLED, RESULT], tools=[TOOL])
    of = subject(talk, SEEN, user="ann")
    assert matched(rules_of({"match": match, **SAYS}), of) == (["rule-1"] if does else [])


def test_results_are_those_since_the_user_spoke() -> None:
    """An old result of a tool is none once the user has spoken again."""
    rules = rules_of({"match": {"has_tool_result": True}, **SAYS})
    answered = {"role": "assistant", "content": "Sunny."}
    assert matched(rules, asked_of([ASKED, CALLED, RESULT])) == ["rule-1"]
    assert matched(rules, asked_of([ASKED, CALLED, RESULT, answered, ASKED])) == []


def test_texts_of_parts_are_looked_at() -> None:
    """The text parts of a message are its text, a part a line."""
    parts = [{"type": "text", "text": "two"}, {"type": "text", "text": "parts"}]
    of = asked_of([{"role": "user", "content": parts}])
    rules = rules_of({"match": {"text": "two parts"}, **SAYS})
    assert matched(rules, of) == ["rule-1"]


def test_prompts_are_what_the_user_says() -> None:
    """The last prompt of a legacy completion, or input of embeddings, is the user's last word."""
    rules = rules_of({"match": {"text": "two"}, **SAYS}, {"match": {"turn": 0}, **SAYS})
    assert matched(rules, subject(TextConversation(["one", "two"]))) == ["rule-1", "rule-2"]
    assert matched(rules, subject(TextConversation([]))) == ["rule-2"]


def test_scope_sees_its_rules_alone() -> None:
    """A rule of a scope is seen by that scope, and one of none by all."""
    rules = rules_of({"scope": "a", **SAYS}, SAYS)
    assert matched(rules, subject(scope="a")) == ["rule-1", "rule-2"]
    assert matched(rules, subject(scope="b")) == matched(rules, subject()) == ["rule-2"]


@pytest.mark.parametrize(
    ("key", "scope"), [("sk-scope-a.1", "a.1"), ("sk-scope-", None), ("sk-1", None), ("", None)]
)
def test_keys_name_scopes(key: str, scope: str | None) -> None:
    """A key of the form sk-scope-<id> names a scope, and no other does."""
    assert scope_of_key(key) == scope


def test_chance_is_drawn_anew_by_each_attempt() -> None:
    """Requests with one seed meet the same fate, but each attempt of theirs one of its own."""
    rules = rules_of({"probability": 0.5, **SAYS})

    def fates() -> list[bool]:
        return [
            matched(rules, subject(seen={"attempt": attempt}, seed=7)) != []
            for attempt in range(64)
        ]

    assert fates() == fates()
    assert 16 < sum(fates()) < 48


# --------------------------------------------------------------------------------------
# Globs
# --------------------------------------------------------------------------------------


@settings(derandomize=True, max_examples=400)
@given(st.text("ab*?[]! \n", max_size=10), st.text("ab \n", max_size=12))
def test_globs_are_those_of_fnmatch(pattern: str, text: str) -> None:
    """A glob matches what Python's own globs match."""
    if pattern:
        assert Glob(pattern).matches(text, Budget(10)) == fnmatch.fnmatchcase(text, pattern)


@settings(derandomize=True, max_examples=400)
@given(st.text("ab*?[]!", min_size=1, max_size=10), st.text("ab", max_size=12))
def test_literal_is_in_every_text_that_matches(pattern: str, text: str) -> None:
    """The literal part of a glob, by which rules are found, is in each text that matches."""
    glob = Glob(pattern)
    if glob.matches(text, Budget(10)):
        assert glob.literal in text
    elif not glob.needs_more:
        assert glob.literal not in text


@settings(derandomize=True, max_examples=200)
@given(st.text(" \n\ta\u00a0é", max_size=30))
def test_white_space_is_folded(text: str) -> None:
    """One space is left of each run of white space, and none around a text."""
    assert folded(text) == " ".join(text.split())


def test_long_texts_are_folded_as_short_ones() -> None:
    """A text that is folded in parts is as one that is folded in one go."""
    text = ("a" * 97 + " \n ") * 3000
    assert folded(text) == " ".join(text.split())


@pytest.mark.parametrize("pattern", ["*a?b*[xy]*a?c", "*" + "a*" * 100 + "b?", "*[!b]*a?" * 20])
def test_hostile_globs_end(pattern: str) -> None:
    """Whatever a glob and a text are, it ends within its budget, or tells that it would not."""

    def match() -> None:
        with suppress(OverBudgetError):
            Glob(pattern).matches("a" * 200_000, Budget(0.2))

    assert least(lambda: cpu_s(match), below=5) < 5


def test_hostile_expressions_end() -> None:
    """A regular expression that would take for ever is given up."""
    rules = rules_of({"match": {"text_regex": "(a+)+$"}, **SAYS})
    with pytest.raises(OverBudgetError):
        matched(rules, subject(TextConversation(["a" * 5000 + "b"])), seconds=0.05)


def test_a_thousand_rules_and_long_texts_are_bounded() -> None:
    """A thousand rules over 10 MB of text end with the budget."""
    rules = rules_of(*({"match": {"text": f"*{i}a*b?c*"}, **SAYS} for i in range(1000)))

    def match() -> None:
        with pytest.raises(OverBudgetError):
            matched(rules, subject(TextConversation(["ab" * 5_000_000])), seconds=0.1)

    assert least(lambda: cpu_s(match), below=10) < 10


# --------------------------------------------------------------------------------------
# Costs
# --------------------------------------------------------------------------------------


def cost_s(entries: list[dict[str, Any]]) -> float:
    """Return what it takes to judge a request by rules, of CPU."""
    rules = rules_of(*entries)

    def judge() -> None:
        of = subject(conversation(messages=[{"role": "user", "content": "What is the weather?"}]))
        rules.judge(of, frozenset(), Budget(10), strict=False)

    def nothing() -> None:
        subject(conversation(messages=[{"role": "user", "content": "What is the weather?"}]))

    judge()
    timer = time.process_time
    taken = min(timeit.repeat(judge, timer=timer, number=200, repeat=20)) / 200
    return taken - min(timeit.repeat(nothing, timer=timer, number=200, repeat=20)) / 200


@pytest.mark.parametrize("field", ["text", "system", "model"])
def test_a_hundred_globs_cost_little(field: str) -> None:
    """To find the rules of a request among 100 with globs takes under 20 us."""
    entries = [{"match": {field: f"*needle-{i}*"}, **SAYS} for i in range(100)]
    assert cost_s(entries) < here_s(20e-6)


def test_remembered_models_are_bounded() -> None:
    """However many models are asked for, and however long their names, memory is bounded."""
    rules = rules_of({"match": {"model": "slow-*"}, **SAYS})
    for number in range(3000):
        assert matched(rules, subject(model=f"slow-{number}")) == ["rule-1"]
        assert matched(rules, subject(model=f"slow-{number}{'x' * 200}")) == ["rule-1"]
    assert rules.matcher.remembered == 1024
