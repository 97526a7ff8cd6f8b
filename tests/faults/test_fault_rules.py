"""What decides of failures, without a server: rules, chance, attempts, places, statuses."""

import time
import timeit
from collections.abc import Sequence
from typing import Any

import pytest

from emulator.answers.answer import Answer, Segment
from emulator.answers.ask import Ask
from emulator.faults.asking import (
    FaultHeaders,
    FaultRule,
    Wish,
    contradiction,
    header_contradiction,
)
from emulator.faults.fault import Fault, draw, kind_of
from emulator.faults.kinds import KINDS, Kind, StreamWire, WholeWire, broken, first_half, pieces
from emulator.faults.statuses import error_body
from emulator.injection.fault_injector import FaultInjector
from emulator.injection.faulty_answers import Place, instant_s
from emulator.rules.deciding import NOTHING
from emulator.rules.reading import check_rules
from emulator.settings import Settings
from emulator.state import State
from emulator.timing.plan import GenerationPlan
from emulator.transport.exchange import Exchange
from tests.support.reference import here_s, least
from tokenizer import TokenGenerator


def asked(**headers: object) -> FaultHeaders:
    """Return headers by their names without X-FAULT-."""
    return FaultHeaders.model_validate(
        {f"X-FAULT-{name.upper().replace('_', '-')}": str(v) for name, v in headers.items()}
    )


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


def test_new_kind_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind that is entered in the registry is known to headers and to rules."""

    class Shout(Kind):
        name = "shout"
        on_streams = on_wholes = "all in capitals"

        async def stream(self, wire: StreamWire) -> None:
            """Shout."""

        async def whole(self, wire: WholeWire) -> None:
            """Shout."""

    monkeypatch.setitem(KINDS, "shout", Shout())
    fault = draw(asked(kind="shout"), 0, None)
    assert fault is not None
    assert fault.kind.name == "shout"
    rules = check_rules([{"fault": {"kind": "shout"}}], Settings(), {})
    assert rules.rules[0].fault is not None
    assert kind_of(rules.rules[0].fault).name == "shout"


def test_bytes_are_halved_broken_and_cut() -> None:
    """Half of an event is never nothing, broken JSON keeps its length, pieces lose nothing."""
    event = b'data: {"a":{"b":1}}\n\n'
    assert first_half(b"x") == b"x"
    assert len(broken(event)) == len(event)
    assert broken(event) == b'data: {"a":{"b":1}]\n\n'
    assert b"".join(pieces(event, 7)) == event
    assert {len(piece) for piece in pieces(event, 7)} == {7}


# --------------------------------------------------------------------------------------
# Chance and attempts
# --------------------------------------------------------------------------------------


def test_span_is_drawn_evenly() -> None:
    """A span of tokens is drawn evenly, with both ends, and the same for the same seed."""
    wish = FaultRule.model_validate({"kind": "eof", "after_tokens": {"min": 5, "max": 8}})

    def tokens(seed: int) -> int | None:
        fault = draw(wish, 0, seed)
        assert fault is not None
        return fault.after_tokens

    drawn = [tokens(seed) for seed in range(2000)]
    assert set(drawn) == {5, 6, 7, 8}
    assert all(420 < drawn.count(value) < 580 for value in set(drawn))
    assert drawn == [tokens(seed) for seed in range(2000)]


def test_probability_is_kept() -> None:
    """Of 5,000 seeded requests a tenth fails, within 3 sigma, and the same ones each time."""
    wish = asked(kind="eof", probability=0.1)
    failed = {seed for seed in range(5000) if draw(wish, 0, seed)}
    assert failed == {seed for seed in range(5000) if draw(wish, 0, seed)}
    assert abs(len(failed) - 500) < 3 * (5000 * 0.1 * 0.9) ** 0.5


def test_chance_without_a_seed_is_chance() -> None:
    """Without a seed a request that is repeated does not always meet the same fate."""
    wish = asked(kind="eof", probability=0.5)
    assert {draw(wish, 0, None) is None for _ in range(100)} == {True, False}


@pytest.mark.parametrize(("probability", "share"), [(0, 0), (1, 100)])
def test_certainties_are_certain(probability: int, share: int) -> None:
    """A probability of 0 never fails and one of 1 always does."""
    wish = asked(kind="eof", probability=probability)
    assert sum(draw(wish, 0, seed) is not None for seed in range(100)) == share


def test_retries_draw_anew() -> None:
    """Requests with one seed meet the same fate, but each attempt of theirs one of its own."""
    wish = asked(kind="eof", probability=0.5)
    fates = [draw(wish, attempt, 7) is not None for attempt in range(64)]
    assert fates == [draw(wish, attempt, 7) is not None for attempt in range(64)]
    assert 16 < sum(fates) < 48


def test_first_attempts_fail() -> None:
    """With n attempts those before the n-th, counted from 0, fail."""
    wish = asked(kind="eof", attempts=2, key="k")
    assert [draw(wish, attempt, None) is not None for attempt in range(4)] == [
        True,
        True,
        False,
        False,
    ]


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
    fault = draw(asked(status=418), 0, None)
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
    decided = draw(asked(kind=kind, **options), 0, None)
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
    assert injector.wish(exchange, ask, NOTHING) is None
    most_s = here_s(1e-6)

    def each_s() -> float:
        return timeit.timeit(
            lambda: injector.wish(exchange, ask, NOTHING), timer=time.thread_time, number=1000
        )

    assert least(lambda: each_s() / 1000, below=most_s) < most_s
