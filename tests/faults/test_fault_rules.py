"""What decides of failures, without a server: rules, chance, attempts, places, statuses."""

import hashlib
import multiprocessing
import time
import timeit
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emulator.answers.answer import Answer, Segment
from emulator.answers.ask import Ask
from emulator.faults import attempts
from emulator.faults.asking import FaultHeaders, Wish, contradiction, header_contradiction
from emulator.faults.attempts import Attempts
from emulator.faults.deciding import Call, Fault, decide, first_match, matches
from emulator.faults.kinds import KINDS, Kind, StreamWire, WholeWire, broken, first_half, pieces
from emulator.faults.rules import Match, Rule, read_rules
from emulator.faults.statuses import error_body
from emulator.injection.fault_injector import FaultInjector
from emulator.injection.faulty_answers import Place, instant_s
from emulator.settings import ConfigError, Settings
from emulator.state import State
from emulator.timing.plan import GenerationPlan
from emulator.transport.exchange import Exchange
from tests.serving.test_settings import failed_start
from tests.support.reference import here_s, least
from tokenizer import TokenGenerator

CALL = Call(model="gpt-4-flaky", path="/v1/chat/completions", stream=True, user="ann")


def asked(**headers: object) -> FaultHeaders:
    """Return headers by their names without X-FAULT-."""
    return FaultHeaders.model_validate(
        {f"X-FAULT-{name.upper().replace('_', '-')}": str(v) for name, v in headers.items()}
    )


def rules_of(folder: Path, text: str) -> tuple[Rule, ...]:
    """Return the rules that a file with this text holds."""
    file = folder / "faults.yaml"
    file.write_text(text)
    return read_rules(file)


# --------------------------------------------------------------------------------------
# The registry
# --------------------------------------------------------------------------------------


def test_every_kind_is_complete() -> None:
    """Every kind of the registry has a name, says what it does, and acts where it fits."""
    for name, kind in KINDS.items():
        assert kind.name == name
        assert kind.on_streams
        assert kind.on_wholes
        if kind.fits(stream=True, says_failed=True) and not kind.refuses(stream=True):
            assert type(kind).stream is not Kind.stream
        if kind.fits(stream=False, says_failed=True):
            assert type(kind).whole is not Kind.whole


def test_new_kind_is_one_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A kind that is entered in the registry is known to headers and to rules."""

    class Shout(Kind):
        name = "shout"
        on_streams = on_wholes = "all in capitals"

        async def stream(self, wire: StreamWire) -> None:
            """Shout."""

        async def whole(self, wire: WholeWire) -> None:
            """Shout."""

    monkeypatch.setitem(KINDS, "shout", Shout())
    fault = decide(asked(kind="shout"), 0, None)
    assert fault is not None
    assert fault.kind.name == "shout"
    assert rules_of(tmp_path, "- kind: shout")[0].kind_name == "shout"


def test_bytes_are_halved_broken_and_cut() -> None:
    """Half of an event is never nothing, broken JSON keeps its length, pieces lose nothing."""
    event = b'data: {"a":{"b":1}}\n\n'
    assert first_half(b"x") == b"x"
    assert len(broken(event)) == len(event)
    assert broken(event) == b'data: {"a":{"b":1}]\n\n'
    assert b"".join(pieces(event, 7)) == event
    assert {len(piece) for piece in pieces(event, 7)} == {7}


# --------------------------------------------------------------------------------------
# Rules
# --------------------------------------------------------------------------------------

EXAMPLE = """
- match: {model: "*-flaky", stream: true}     # glob on model
  kind: error
  after_tokens: {min: 5, max: 50}
  probability: 0.05
- match: {model: "gpt-4-busy"}
  status: 429
  probability: 0.3
  retry_after_ms: 1500
"""


def test_example_is_read(tmp_path: Path) -> None:
    """The file that the documentation shows holds these rules."""
    flaky, busy = rules_of(tmp_path, EXAMPLE)
    assert (flaky.kind_name, flaky.probability) == ("error", 0.05)
    assert (busy.kind_name, busy.status, busy.retry_after_ms) == ("status", 429, 1500)


@pytest.mark.parametrize(
    ("match", "does"),
    [
        ({}, True),
        ({"model": "*-flaky"}, True),
        ({"model": "gpt-4"}, False),
        ({"model": "GPT-4-*"}, False),
        ({"path": "/v1/chat/*"}, True),
        ({"path": "/v1/completions"}, False),
        ({"stream": True}, True),
        ({"stream": False}, False),
        ({"user": "a*"}, True),
        ({"user": "b*"}, False),
        ({"api_key": hashlib.sha256(b"sk-1").hexdigest()[:8] + "*"}, True),
        ({"api_key": hashlib.sha256(b"sk-2").hexdigest()}, False),
        ({"model": "*-flaky", "user": "b*"}, False),
    ],
)
def test_all_that_is_given_has_to_match(match: dict[str, object], does: bool) -> None:
    """A rule is for the requests that match in all that it gives."""
    assert matches(Match.model_validate(match), replace(CALL, api_key="sk-1")) == does


def test_first_match_decides(tmp_path: Path) -> None:
    """The first rule that matches decides, also where chance says that nothing fails."""
    rules = rules_of(tmp_path, "- {kind: eof, probability: 0}\n- {kind: reset}")
    found = first_match(rules, CALL)
    assert found == (0, rules[0])
    assert decide(rules[0], 0, 1) is None


def test_rule_for_streams_passes_whole_answers(tmp_path: Path) -> None:
    """A rule whose kind whole answers do not have is for streams alone."""
    rules = rules_of(tmp_path, "- {kind: no-done}\n- {kind: eof}")
    assert first_match(rules, CALL) == (0, rules[0])
    assert first_match(rules, replace(CALL, stream=False)) == (1, rules[1])


def test_span_is_drawn_evenly(tmp_path: Path) -> None:
    """A span of tokens is drawn evenly, with both ends, and the same for the same seed."""
    (rule,) = rules_of(tmp_path, "- {kind: eof, after_tokens: {min: 5, max: 8}}")
    drawn = [_tokens(decide(rule, 0, seed)) for seed in range(2000)]
    assert set(drawn) == {5, 6, 7, 8}
    assert all(420 < drawn.count(value) < 580 for value in set(drawn))
    assert drawn == [_tokens(decide(rule, 0, seed)) for seed in range(2000)]


def _tokens(fault: Fault | None) -> int | None:
    assert fault is not None
    return fault.after_tokens


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("kind: eof", 1, "expected a list, but got fields with values"),
        ("- kind: eof\n- kind: explode", 2, "expected one of status, error, failed, eof"),
        (
            "- kind: eof\n  colour: blue",
            2,
            "colour: there is no such field; there are kind, status,",
        ),
        (
            "- match:\n    modle: x\n  kind: eof",
            2,
            "match.modle: there is no such field; did you mean model?",
        ),
        ("- match: {stream: 1}\n  kind: eof", 1, "match.stream"),
        ("- kind: eof\n\n  after_tokens: -1", 3, "after_tokens.min: "),
        ("- kind: eof\n  after_tokens: true", 2, "after_tokens: expected fields with values"),
        ("- kind: eof\n  after_tokens: {min: 5}", 2, "after_tokens.max: it is missing"),
        ("- kind: eof\n  after_tokens: {min: 5, max: 4}", 2, "expected a min of at most max (4)"),
        ("- status: 200", 1, "status: "),
        ("- kind: eof\n  probability: 1.5", 2, "but got 1.5"),
        ("- kind: eof\n  after_ms: 5\n  after_tokens: 5", 2, "expected no after_tokens beside it"),
        ("- kind: eof\n  status: 500", 2, "expected a kind that it says something to"),
        ("- probability: 0.5", 1, "expected kind, status or code beside it"),
        ("- kind: eof\n  - x", 2, ""),
        ("- {kind: eof", 1, ""),
    ],
)
def test_bad_rules_are_told(tmp_path: Path, text: str, line: int, problem: str) -> None:
    """A file that is no list of rules is refused with its name, the line and what is wrong."""
    with pytest.raises(ConfigError) as caught:
        rules_of(tmp_path, text)
    assert f"faults.yaml, line {line}: " in str(caught.value)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_rules_are_told(tmp_path: Path) -> None:
    """A file that is not there, or holds no text, is refused with its name."""
    for name, content in (("none.yaml", None), ("bytes.yaml", b"\xff\xfe\xff")):
        file = tmp_path / name
        if content:
            file.write_bytes(content)
        with pytest.raises(ConfigError, match=name):
            read_rules(file)


@pytest.mark.usefixtures("local_only")
def test_bad_rules_stop_the_start(tmp_path: Path) -> None:
    """A bad file ends ``bentoml serve`` with the line and what is wrong, and no traceback."""
    file = tmp_path / "faults.yaml"
    file.write_text("- kind: eof\n- kind: explode\n")
    message = failed_start("--arg", f"faults={file}")
    assert "The setting 'faults'" in message
    assert "faults.yaml, line 2: kind: expected one of status" in message
    assert "Traceback" not in message


# --------------------------------------------------------------------------------------
# Chance and attempts
# --------------------------------------------------------------------------------------


def test_probability_is_kept() -> None:
    """Of 5,000 seeded requests a tenth fails, within 3 sigma, and the same ones each time."""
    wish = asked(kind="eof", probability=0.1)
    failed = {seed for seed in range(5000) if decide(wish, 0, seed)}
    assert failed == {seed for seed in range(5000) if decide(wish, 0, seed)}
    assert abs(len(failed) - 500) < 3 * (5000 * 0.1 * 0.9) ** 0.5


def test_chance_without_a_seed_is_chance() -> None:
    """Without a seed a request that is repeated does not always meet the same fate."""
    wish = asked(kind="eof", probability=0.5)
    assert {decide(wish, 0, None) is None for _ in range(100)} == {True, False}


@pytest.mark.parametrize(("probability", "share"), [(0, 0), (1, 100)])
def test_certainties_are_certain(probability: int, share: int) -> None:
    """A probability of 0 never fails and one of 1 always does."""
    wish = asked(kind="eof", probability=probability)
    assert sum(decide(wish, 0, seed) is not None for seed in range(100)) == share


def test_first_attempts_fail() -> None:
    """With n attempts those before the n-th, counted from 0, fail."""
    wish = asked(kind="eof", attempts=2, key="k")
    assert [decide(wish, attempt, None) is not None for attempt in range(4)] == [
        True,
        True,
        False,
        False,
    ]


def count_many(file: Path, start_s: float, times: int) -> Sequence[int]:
    """Count a key in a process of its own, from an instant on."""
    counts = Attempts(file)
    while time.monotonic() < start_s:
        pass
    return [counts.count("key") for _ in range(times)]


def test_counts_are_exact_over_processes(tmp_path: Path) -> None:
    """Four processes that count one key at once never see the same count twice."""
    times = 20_000
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(count_many, [(tmp_path / "warm-up", 0, 1)] * 4, chunksize=1)
        start_s = time.monotonic() + 0.2
        seen = pool.starmap(count_many, [(tmp_path / "table", start_s, times)] * 4, chunksize=1)
    assert sorted(count for counts in seen for count in counts) == [*range(4 * times)]


def test_keys_are_counted_apart(tmp_path: Path) -> None:
    """Each key has a count of its own, which outlives the process that counted."""
    counts = Attempts(tmp_path / "table")
    assert [counts.count(key) for key in ("a", "b", "a", "a", "b")] == [0, 0, 1, 2, 1]
    assert Attempts(tmp_path / "table").count("a") == 3


def test_oldest_key_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room, the key that has not come for longest starts anew."""
    monkeypatch.setattr(attempts, "_SETS", 1)
    counts = Attempts(tmp_path / "table")
    for key in range(16):
        counts.count(str(key))
    counts.count("0")
    counts.count("one more")
    assert counts.count("0") == 2
    assert counts.count("1") == 0


# --------------------------------------------------------------------------------------
# What is asked
# --------------------------------------------------------------------------------------


def test_names_in_contradictions_are_the_askers() -> None:
    """A contradiction is told in headers to clients, and in fields to operators."""
    headers = asked(kind="eof", after_tokens=1, after_ms=1)
    assert header_contradiction(headers) == (
        "X-FAULT-AFTER-MS",
        "expected no X-FAULT-AFTER-TOKENS beside it, but got one",
    )
    assert contradiction(headers, str) == (
        "after_ms",
        "expected no after_tokens beside it, but got one",
    )
    assert header_contradiction(asked(kind="eof", after_ms=1)) is None


def test_status_alone_is_a_kind() -> None:
    """A status without a kind asks for the kind status."""
    fault = decide(asked(status=418), 0, None)
    assert fault is not None
    assert (fault.kind.name, fault.status) == ("status", 418)


@pytest.mark.parametrize(
    ("status", "type_", "code"),
    [
        (400, "invalid_request_error", None),
        (401, "invalid_request_error", None),
        (404, "invalid_request_error", "model_not_found"),
        (429, "tokens", "rate_limit_exceeded"),
        (500, "server_error", None),
        (503, "service_unavailable_error", "server_is_overloaded"),
        (599, "server_error", None),
    ],
)
def test_statuses_have_openais_words(status: int, type_: str, code: str | None) -> None:
    """Each status has the type and the code that OpenAI sends with it, and a message."""
    body = error_body(status, model="gpt-4o")
    assert (body.type, body.code) == (type_, code)
    assert body.message.endswith((".", "!"))


def test_rate_limit_names_its_wait() -> None:
    """A 429 says in words the wait that its headers say, and the tokens that make it."""
    message = error_body(429, model="gpt-4o", retry_after_ms=1500).message
    assert message == (
        "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): "
        "Limit 30000, Used 30000, Requested 750. Please try again in 1.5s. "
        "Visit https://platform.openai.com/account/rate-limits to learn more."
    )


@pytest.mark.parametrize(("key", "said"), [("sk-abcdefghijklmnop", "sk-abcde"), ("", "Bearer")])
def test_keys_are_told_as_openai_tells_them(key: str, said: str) -> None:
    """A 401 names the key without its middle, or says how to send one."""
    message = error_body(401, model="gpt-4o", api_key=key).message
    assert said in message
    assert not key or key not in message


# --------------------------------------------------------------------------------------
# Places
# --------------------------------------------------------------------------------------


def plan(tokens: int = 10, batch: int = 1, hidden: int = 0) -> GenerationPlan:
    """Return a plan with a TTFT of 1 s and an ITL of 0.1 s."""
    return GenerationPlan(
        tokens,
        "stop",
        1.0,
        0.1,
        sse_batch_size=batch,
        reasoning_tokens=hidden,
        hidden_tokens=hidden,
    )


def answer(tokens: int = 10, token_slots: Sequence[int] | None = None) -> Answer:
    """Return an answer of so many words."""
    return Answer(0, [Segment(["a"] * tokens)], "stop", tokens, token_slots)


def fault(kind: str, **options: object) -> Fault:
    """Return a failure that is certain."""
    decided = decide(asked(kind=kind, **options), 0, None)
    assert decided is not None
    return decided


@pytest.mark.parametrize("kind", ["error", "eof", "close", "reset", "stall"])
@pytest.mark.parametrize(("k", "events", "due_s"), [(0, 0, 1.0), (3, 3, 1.3), (9, 9, 1.9)])
def test_place_is_the_tokens(kind: str, k: int, events: int, due_s: float) -> None:
    """A stream fails in place of token k, when that is due."""
    place = Place.of(fault(kind, after_tokens=k), plan(), [answer()])
    assert (place.events, place.tokens) == (events, k)
    assert place.instant_s == pytest.approx(due_s)


@pytest.mark.parametrize("kind", ["eof", "malformed"])
@pytest.mark.parametrize("k", [10, 131072])
def test_place_beyond_is_the_end(kind: str, k: int) -> None:
    """A token that is not there is after the last, when that is due."""
    place = Place.of(fault(kind, after_tokens=k), plan(), [answer()])
    assert (place.events, place.tokens) == (10, 10)
    assert place.instant_s == pytest.approx(1.9)


def test_place_in_a_batch() -> None:
    """In an event of several tokens a stream's end splits it, and a broken event is all of it."""
    split = Place.of(fault("eof", after_tokens=6), plan(batch=4), [answer()])
    assert (split.events, split.tokens) == (2, 6)
    assert split.instant_s == pytest.approx(1.6)
    broken_event = Place.of(fault("malformed", after_tokens=6), plan(batch=4), [answer()])
    assert broken_event.events == 1
    assert broken_event.instant_s == pytest.approx(1.4)


def test_place_of_held_back_tokens() -> None:
    """Tokens that are held back and leave together are told apart: k of them leave."""
    held = answer(token_slots=[0, 1, 5, 5, 5, 5, 6, 7, 8, 9])
    place = Place.of(fault("eof", after_tokens=4), plan(), [held])
    assert (place.events, place.tokens) == (6, 4)
    assert place.instant_s == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("kind", "options", "expected_s"),
    [
        ("status", {}, 0),
        ("status", {"after_ms": 5000}, 5),
        ("status", {"after_tokens": 2}, 1.2),
        ("error", {}, 0),
        ("eof", {}, 1.0),
        ("eof", {"after_ms": 5000}, 1.9),
        ("eof", {"after_tokens": 99}, 1.9),
        ("malformed", {"after_tokens": 2}, 1.9),
        ("slice", {}, 1.9),
    ],
)
def test_instants_of_whole_answers(
    kind: str, options: dict[str, object], expected_s: float
) -> None:
    """Whole answers fail in place of a token, at a time, at once, or when they are due."""
    moment = instant_s(fault(kind, **options), plan(), [answer()])
    assert moment == pytest.approx(expected_s)


def test_every_option_is_a_field() -> None:
    """What a kind says it listens to is a field that can be asked."""
    fields = {*Wish.model_fields, "after_tokens"}
    assert all(kind.options <= fields for kind in KINDS.values())


async def nothing() -> dict[str, Any]:
    """Receive nothing."""
    return {}


def test_request_without_a_fault_pays_little() -> None:
    """Where nothing is asked and no rule is, to decide so takes under 1 us of CPU."""
    injector, ask = FaultInjector(TokenGenerator()), Ask("gpt-4")
    exchange = Exchange({"type": "http", "headers": []}, nothing, State(Settings()))
    assert injector.wish(exchange, ask) is None
    most_s = here_s(1e-6)

    def each_s() -> float:
        return timeit.timeit(
            lambda: injector.wish(exchange, ask), timer=time.thread_time, number=1000
        )

    assert least(lambda: each_s() / 1000, below=most_s) < most_s
