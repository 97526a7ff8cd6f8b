"""What rules decide of a request, with and without counts."""

from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from emulator.contract.errors import APIError
from emulator.rules.counting import counted
from emulator.rules.deciding import Decision
from emulator.rules.globs import Budget
from emulator.rules.ruleset import Rules
from emulator.rules.subject import Subject, TextConversation
from tests.rules.making import decided, rules_of, subject

A, B = {"text": "a"}, {"text": "b"}
CALL = {"tool_calls": [{"name": "f"}]}
EOF: Mapping[str, Any] = {"kind": "eof"}


class Counting:
    """Counts in this process alone."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def add(self, name: str, scope: str = "", since: int = 0) -> int:
        """Count something."""
        counted = f"{since} {scope} {name}"
        before = self.names.count(counted)
        self.names.append(counted)
        return before


class Server:
    """Decides one request after the other, as a server does."""

    def __init__(self, *entries: Mapping[str, Any]) -> None:
        self.rules: Rules = rules_of(*entries)
        self.counts = Counting()
        self.since = 0

    def decide(self, of: Subject | None = None, *, strict: bool = False) -> Decision:
        """Return what is decided of a request."""
        of = of or subject()
        decision, undecided = self.rules.judge(of, frozenset(), Budget(10), strict=strict)
        if undecided is None:
            return decision
        return anyio.run(counted, self.rules, undecided, of.ask, self.counts, self.since)

    def says(self, times: int, of: Subject | None = None) -> list[str | None]:
        """Return the texts that so many requests get."""
        return [self._text(self.decide(of)) for _ in range(times)]

    def _text(self, decision: Decision) -> str | None:
        choice = decision.choice
        return choice and self.rules.rules[choice.rule].answers[choice.answer].text


# --------------------------------------------------------------------------------------
# Fields
# --------------------------------------------------------------------------------------


def test_first_that_says_something_decides_it() -> None:
    """Each field of timing, the fault and the answer are decided by the first that says it."""
    rules = rules_of(
        {"name": "x", "ttft_ms": 1},
        {"name": "y", "ttft_ms": 2, "itl_ms": 3, "fault": EOF},
        {"name": "idle", "ttft_ms": 4, "fault": {"kind": "reset"}},
        {"name": "z", "answer": A},
    )
    decision = decided(rules, subject())
    assert decision.timing == {"ttft_ms": 1, "itl_ms": 3}
    assert decision.sources == {"ttft_ms": "x", "itl_ms": "y"}
    assert (decision.fault_rule, decision.fault and decision.fault.kind) == ("y", "eof")
    assert decision.choice is not None
    assert decision.rules == ("x", "y", "z")


def test_client_decides_before_rules() -> None:
    """What a client says no rule decides, and one that has nothing else to say is not named."""
    rules = rules_of({"name": "x", "ttft_ms": 1}, {"name": "y", "itl_ms": 1, "fault": EOF})
    decision = decided(rules, subject(), "ttft_ms", "fault")
    assert (decision.timing, decision.fault, decision.rules) == ({"itl_ms": 1}, None, ("y",))


@pytest.mark.parametrize(
    ("kind", "ask", "fails"),
    [
        ("no-done", {"stream": True}, True),
        ("no-done", {"stream": False}, False),
        ("failed", {"stream": True}, False),
        ("failed", {"says_failed": True}, True),
    ],
)
def test_rule_passes_what_cannot_fail_so(kind: str, ask: dict[str, Any], fails: bool) -> None:
    """A rule of a kind that an answer does not have leaves it to the next."""
    rules = rules_of({"fault": {"kind": kind}}, {"fault": EOF})
    decision = decided(rules, subject(**ask))
    assert decision.fault is not None
    assert decision.fault.kind == (kind if fails else "eof")


def test_answers_that_cannot_be_said_are_passed() -> None:
    """A vector is for embeddings, a text for all else, a call for requests that offer the tool."""
    rules = rules_of({"answer": {"embedding": [1]}}, {"answer": CALL}, {"answer": A})
    for talk, name in (
        (TextConversation(["x"], answers="vectors"), "rule-1"),
        (TextConversation(["x"]), "rule-3"),
        (None, "rule-3"),
    ):
        assert decided(rules, subject(talk)).rules == (name,)


# --------------------------------------------------------------------------------------
# Counts
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"times": 2, "answer": A}, ["a", "a", None, None]),
        ({"after": 1, "answer": A}, [None, "a", "a", "a"]),
        ({"after": 1, "times": 2, "answer": A}, [None, "a", "a", None]),
        ({"answer": [A, B]}, ["a", "b", "b", "b"]),
        ({"answer": [A, B], "at_end": "repeat"}, ["a", "b", "a", "b"]),
        ({"answer": [A, B], "at_end": "pass"}, ["a", "b", None, None]),
        ({"after": 1, "answer": [A, B], "at_end": "pass"}, [None, "a", "b", None]),
        ({"times": 3, "answer": [A, B], "at_end": "repeat"}, ["a", "b", "a", None]),
        ({"probability": 0, "answer": A}, [None, None, None, None]),
    ],
)
def test_matches_are_counted(rule: dict[str, Any], said: list[str | None]) -> None:
    """A rule is for the matches that its counts say, and goes through its answers."""
    assert Server(rule).says(4) == said


def test_rules_follow_each_other() -> None:
    """A rule counts what it has something to decide of, so that the next begins where one ends."""
    server = Server({"times": 2, "answer": A}, {"times": 1, "answer": B}, {"answer": {"text": "c"}})
    assert server.says(5) == ["a", "a", "b", "c", "c"]


def test_timing_goes_on_when_answers_are_over() -> None:
    """A rule whose answers are over still decides its times."""
    server = Server({"answer": [A, B], "at_end": "pass", "ttft_ms": 1})
    for _ in range(2):
        server.decide()
    decision = server.decide()
    assert (decision.choice, decision.timing) == (None, {"ttft_ms": 1})


def test_number_of_the_match() -> None:
    """The number that templates get counts the matches that the rule is for."""
    server = Server({"after": 2, "answer": {"text": "{{ n }}"}})
    choices = [server.decide().choice for _ in range(4)]
    assert [choice and choice.number for choice in choices] == [None, None, 1, 2]


def test_scopes_count_apart() -> None:
    """Each scope has counts of its own, which begin anew since another revision."""
    server = Server({"answer": [A, B], "at_end": "pass"})
    assert server.says(2, subject(scope="one")) == ["a", "b"]
    assert server.says(2, subject(scope="two")) == ["a", "b"]
    assert server.says(2) == ["a", "b"]
    server.since = 1
    assert server.says(1, subject(scope="one")) == ["a"]


def test_changed_rules_begin_anew() -> None:
    """Counts are kept by a rule's name and all that it says."""
    old, new = (rules_of({"name": "a", "times": n, "answer": A}).rules[0] for n in (1, 2))
    assert old.identity != new.identity
    assert new.identity == rules_of({"name": "a", "times": 2, "answer": A}).rules[0].identity


# --------------------------------------------------------------------------------------
# Strict
# --------------------------------------------------------------------------------------


def refused(server: Server, of: Subject | None = None) -> APIError:
    """Return the error of a request that has to be refused."""
    with pytest.raises(APIError) as caught:
        server.decide(of, strict=True)
    return caught.value


def test_strict_names_the_nearest() -> None:
    """A request that no rule has an answer for is told the three nearest, the nearest first."""
    server = Server(
        {"name": "far", "match": {"model": "x", "turn": 5}, "answer": A},
        {"name": "near", "match": {"model": "gpt-4", "stream": False, "turn": 5}, "answer": A},
        {"name": "timing", "match": {"turn": 5}, "ttft_ms": 1},
        {"name": "next", "match": {"text": "*weather*"}, "answer": A},
        {"name": "last", "match": {"text": "*climate*"}, "answer": A},
    )
    error = refused(server)
    assert (error.status, error.body.code) == (400, "no_rule_matched")
    message = error.body.message
    assert "'near' (match.turn: expected 5, but got 0)" in message
    assert "'next' (match.text: expected '*weather*', but got 'Hello!')" in message
    assert message.index("'near'") < message.index("'next'") < message.index("'last'")
    assert "far" not in message
    assert "timing" not in message


def test_strict_tells_exhausted_apart() -> None:
    """A rule that matches but has no more answers is told as such."""
    for rule in ({"times": 1, "answer": A}, {"answer": [A, B], "at_end": "pass"}):
        server = Server({"name": "mine", **rule})
        server.decide(strict=True)
        if "times" not in rule:
            server.decide(strict=True)
        error = refused(server)
        assert (error.status, error.body.code) == (400, "rule_exhausted")
        assert "'mine'" in error.body.message


def test_strict_takes_a_fault_for_an_answer() -> None:
    """A request that a rule has fail is not refused."""
    assert Server({"fault": EOF}).decide(strict=True).fault is not None


def test_strict_without_rules() -> None:
    """Where there are no rules with an answer, that is told."""
    assert "There are no such rules." in refused(Server()).body.message


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"every": 3}, [None, None, "a", None, None, "a", None]),
        ({"every": 2, "after": 1}, [None, None, "a", None, "a", None, "a"]),
        ({"every": 2, "times": 2}, [None, "a", None, "a", None, None, None]),
    ],
)
def test_every_third_match(fields: Mapping[str, Any], expected: list[str | None]) -> None:
    """A rule for every so many matches decides the last of each so many, from `after` on."""
    assert Server({"answer": A, **fields}).says(7) == expected


def test_rule_that_is_off_decides_nothing() -> None:
    """A rule that is not enabled is kept, decides nothing, and keeps its count when it is back."""
    off, on = (rules_of({"name": "r", "enabled": is_on, "answer": A}) for is_on in (False, True))
    assert decided(off, subject()).choice is None
    assert off.source == [{"name": "r", "enabled": False, "answer": [A]}]
    assert on.rules[0].identity == rules_of({"name": "r", "answer": A}).rules[0].identity
