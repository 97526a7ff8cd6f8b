"""The arithmetic, the words and the shared table of rate limits, on simulated time."""

import hashlib
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.limits.buckets import (
    DAY,
    MINUTE,
    TICKS_PER_MS,
    Bucket,
    Limits,
    State,
    Verdict,
    Window,
    look,
    take,
)
from emulator.limits.shared import SharedTable, create_table
from emulator.limits.words import go_duration, header_lines, masked, too_many
from emulator.settings import MAX_RATE_LIMIT

MS = TICKS_PER_MS
NOW = 123_456_789_012  # any moment, in ticks
FULL: State = (0, 0, 0, 0, 0, 0)


def drained(limits: Limits, requests: int, tokens: int = 0) -> State:
    """Return the state after `requests` were taken at NOW, all `tokens` by the first."""
    state = FULL
    for index in range(requests):
        state, verdict = take(limits, state, 0 if index else tokens, NOW)
        assert verdict.refused is None
    return state


def told(limits: Limits, verdict: Verdict) -> dict[str, str]:
    """Return the headers of a verdict."""
    lines = header_lines(limits, verdict).decode().splitlines()
    return dict(line.split(": ") for line in lines)


def message(verdict: Verdict, model: str = "gpt-4o") -> str:
    """Return the words of a refusal."""
    assert verdict.refused is not None
    return too_many(verdict, verdict.refused, model).message


# --------------------------------------------------------------------------------------
# OpenAI's figures
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "limit", "window", "used", "remaining", "reset"),
    [
        ("requests", 500, MINUTE, 1, "499", "120ms"),
        ("requests", 3000, MINUTE, 1, "2999", "20ms"),
        ("requests", 10_000, DAY, 1, "9999", "8.64s"),
        ("tokens", 200_000, MINUTE, 779, "199221", "233ms"),
    ],
)
def test_recorded_figures(
    kind: str, limit: int, window: Window, used: int, remaining: str, reset: str
) -> None:
    """After a use the headers say what OpenAI's recorded answers say."""
    bucket = Bucket("requests" if kind == "requests" else "tokens", limit, window)
    limits = Limits(bucket, None) if kind == "requests" else Limits(None, bucket)

    _, verdict = take(limits, FULL, used, NOW)

    assert told(limits, verdict) == {
        f"x-ratelimit-limit-{kind}": str(limit),
        f"x-ratelimit-remaining-{kind}": remaining,
        f"x-ratelimit-reset-{kind}": reset,
    }


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0s"),
        (1, "1ms"),
        (20, "20ms"),
        (999, "999ms"),
        (1000, "1s"),
        (8640, "8.64s"),
        (18_642, "18.642s"),
        (60_000, "1m0s"),
        (60_500, "1m0.5s"),
        (360_000, "6m0s"),
        (3_600_000, "1h0m0s"),
        (5_400_000, "1h30m0s"),
        (86_400_000, "24h0m0s"),
    ],
)
def test_go_durations(milliseconds: int, text: str) -> None:
    """A duration is written as Go's time.Duration writes it."""
    assert go_duration(milliseconds) == text


def test_recorded_refusal() -> None:
    """A request that does not fit now is refused in OpenAI's words, with the time to wait."""
    limits = Limits(None, Bucket("tokens", 30_000))
    state = drained(limits, 1, tokens=14_567)

    _, verdict = take(limits, state, 24_754, NOW)
    assert verdict.refused is not None
    refusal = too_many(verdict, verdict.refused, "gpt-4o")

    assert (refusal.status, refusal.type, refusal.code) == (429, "tokens", "rate_limit_exceeded")
    assert refusal.message == (
        "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): "
        "Limit 30000, Used 14567, Requested 24754. Please try again in 18.642s. "
        "Visit https://platform.openai.com/account/rate-limits to learn more."
    )
    assert told(limits, verdict)["retry-after-ms"] == "18642"
    assert told(limits, verdict)["retry-after"] == "19"


def test_recorded_refusal_of_a_large_request() -> None:
    """A request that is larger than the limit is told so, and not when to come again."""
    limits = Limits(Bucket("requests", 500), Bucket("tokens", 30_000))

    state, verdict = take(limits, FULL, 40_000, NOW)

    assert message(verdict) == (
        "Request too large for gpt-4o in organization org-x on tokens per min (TPM): "
        "Limit 30000, Requested 40000. The input or output tokens must be reduced in order to run "
        "successfully. Visit https://platform.openai.com/account/rate-limits to learn more."
    )
    assert told(limits, verdict).keys().isdisjoint({"retry-after", "retry-after-ms"})
    assert look(limits, state, NOW) == Verdict(500, 30_000)


def test_refusal_names_requests_a_day() -> None:
    """A limit for a day is called RPD, and the wait is in hours, minutes and seconds."""
    limits = Limits(Bucket("requests", 10, DAY))

    _, verdict = take(limits, drained(limits, 10), 0, NOW)

    assert "on requests per day (RPD): Limit 10, Used 10, Requested 1. " in message(verdict)
    assert "Please try again in 2h24m0s." in message(verdict)


def test_retry_after_is_at_least_a_second() -> None:
    """`retry-after` is in whole seconds and never 0, `retry-after-ms` is exact."""
    limits = Limits(Bucket("requests", 600))

    _, verdict = take(limits, drained(limits, 600), 0, NOW)

    assert told(limits, verdict)["retry-after"] == "1"
    assert told(limits, verdict)["retry-after-ms"] == "100"


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("sk-abcdewxyz", "sk-ab***wxyz"),
        ("sk-not-a-real-key", "sk-not-a*****-key"),
        ("sk-proj-0123456789abcdef", "sk-proj-************cdef"),
        ("dummy", "dummy"),
    ],
)
def test_masked_keys(key: str, shown: str) -> None:
    """A key is shown as OpenAI's recorded 401s show it."""
    assert masked(key) == shown


# --------------------------------------------------------------------------------------
# The arithmetic
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "passes"), [(400, True), (401, False)])
def test_tokens_fit_to_the_last(tokens: int, *, passes: bool) -> None:
    """What is left passes to the exact token."""
    limits = Limits(None, Bucket("tokens", 1000))

    _, verdict = take(limits, drained(limits, 1, tokens=600), tokens, NOW)

    assert (verdict.refused is None) is passes


@pytest.mark.parametrize(("wait_ms", "passes"), [(99.99, False), (100, True)])
def test_refill_is_continuous(wait_ms: float, *, passes: bool) -> None:
    """A unit is back after its share of the window, and not a tick earlier."""
    limits = Limits(Bucket("requests", 600))

    _, verdict = take(limits, drained(limits, 600), 0, NOW + round(wait_ms * MS))

    assert (verdict.refused is None) is passes


def test_a_refused_request_takes_nothing() -> None:
    """A request that tokens refuse leaves the requests as they were."""
    limits = Limits(Bucket("requests", 10), Bucket("tokens", 100))
    state = drained(limits, 1, tokens=50)

    for _ in range(5):
        state, verdict = take(limits, state, 60, NOW)

    assert (verdict.requests_left, verdict.tokens_left) == (9, 50)


def test_a_clock_set_back_refills_nothing() -> None:
    """A clock that was set back, as Redis's can be, neither refills nor stops refilling."""
    limits = Limits(Bucket("requests", 600))
    earlier = NOW - 1_000_000 * MS

    state, at_once = take(limits, drained(limits, 600), 0, earlier)
    _, later = take(limits, state, 0, earlier + 100 * MS)

    assert at_once.refused
    assert later.refused is None


limit_numbers = st.one_of(st.integers(1, 5000), st.integers(1, MAX_RATE_LIMIT))
windows = st.sampled_from([MINUTE, DAY])
pairs = st.builds(
    Limits,
    st.none() | st.builds(Bucket, st.just("requests"), limit_numbers, windows),
    st.none() | st.builds(Bucket, st.just("tokens"), limit_numbers, windows),
)
steps = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 3), st.integers(0, 100_000), st.integers(0, 10**10)),
        st.one_of(st.integers(0, 2000), st.integers(0, 2 * MAX_RATE_LIMIT)),
    ),
    max_size=30,
)


@given(pairs, steps)
def test_never_more_than_the_limit_and_what_refilled(
    limits: Limits, requests: list[tuple[int, int]]
) -> None:
    """Between any two moments no more passes than the limit and what refills between them."""
    state, now = FULL, NOW
    passed: list[tuple[int, int]] = []
    for wait, tokens in requests:
        now += wait
        state, verdict = take(limits, state, tokens, now)
        if verdict.refused is None:
            passed.append((now, tokens))
    for first, (start, _) in enumerate(passed):
        for bucket in filter(None, limits):
            taken = sum(1 if bucket.kind == "requests" else cost for _, cost in passed[first:])
            strides = passed[-1][0] // bucket.stride - start // bucket.stride
            assert taken * bucket.unit <= bucket.capacity + strides * bucket.limit


@given(pairs, steps)
def test_a_request_passes_if_both_buckets_let_it(
    limits: Limits, requests: list[tuple[int, int]]
) -> None:
    """A request passes exactly if what is left of both is enough, and then takes from both."""
    state, now = FULL, NOW
    for wait, tokens in requests:
        now += wait
        before = look(limits, state, now)
        state, verdict = take(limits, state, tokens, now)
        enough = all(
            left is None or left >= cost
            for left, cost in zip(before.left, (1, tokens), strict=True)
        )
        assert (verdict.refused is None) == enough
        assert verdict.left == tuple(
            left if left is None or not enough else left - cost
            for left, cost in zip(before.left, (1, tokens), strict=True)
        )


@given(pairs, steps, st.integers(0, 10_000))
def test_waiting_as_told_is_enough(
    limits: Limits, requests: list[tuple[int, int]], tokens: int
) -> None:
    """Whoever waits as long as the headers and the message say passes, if nobody comes before."""
    state, now = FULL, NOW
    for wait, cost in requests:
        now += wait
        state, _ = take(limits, state, cost, now)
    state, verdict = take(limits, state, tokens, now)
    if verdict.refused and verdict.retry_ms:
        _, again = take(limits, state, tokens, now + verdict.retry_ms * MS)
        assert again.refused is None


@given(pairs, steps)
def test_a_state_that_is_full_again_can_be_forgotten(
    limits: Limits, requests: list[tuple[int, int]]
) -> None:
    """From the tick that a state begins with a new one says what it says."""
    state, now = FULL, NOW
    for wait, tokens in requests:
        now += wait
        state, _ = take(limits, state, tokens, now)

    later = max(now, state[0])

    assert look(limits, state, later) == look(limits, FULL, later)


@pytest.mark.parametrize("latency_ms", [0, 3, 40])
def test_clients_that_wait_as_told_are_served_in_turn(latency_ms: int) -> None:
    """Of 20 clients that call without a pause none is refused more than 5 times in a row."""
    limits = Limits(Bucket("requests", 600))
    state, passed, worst = drained(limits, 600), 0, 0
    waiting = [(NOW + client * MS, 0) for client in range(20)]
    for _ in range(5000):
        now, refusals = min(waiting)
        waiting.remove((now, refusals))
        state, verdict = take(limits, state, 0, now)
        refusals = refusals + 1 if verdict.refused else 0
        passed += not refusals
        worst = max(worst, refusals)
        waiting.append((now + (verdict.retry_ms + latency_ms + 1) * MS, refusals))
    duration_ms = (now - NOW) / MS

    assert worst <= 5
    assert passed == pytest.approx(duration_ms / 100, rel=0.02)


# --------------------------------------------------------------------------------------
# The shared table
# --------------------------------------------------------------------------------------

HOUR_LIMITS = Limits(Bucket("requests", 1000, DAY))  # one refills in 86.4 s


def digest_of(name: object) -> bytes:
    """Return the digest of a key and a model."""
    return hashlib.blake2b(str(name).encode(), digest_size=16).digest()


def run(path: str, pipe: Connection, count: int) -> None:
    """Take `count` requests from one bucket, and tell what was left after each that passed."""
    table = SharedTable(path)
    pipe.recv()
    verdicts = [table.take(digest_of("shared"), HOUR_LIMITS, 0) for _ in range(count)]
    pipe.send([verdict.requests_left for verdict in verdicts if verdict.refused is None])


def run_forever(path: str, pipe: Connection, _: int) -> None:
    """Take requests until killed."""
    table = SharedTable(path)
    pipe.send(None)
    while True:
        table.take(digest_of("shared"), HOUR_LIMITS, 0)


def started(
    target: Callable[[str, Connection, int], None], path: str, count: int = 0
) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    """Start a process that uses the table at `path`."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(path, theirs, count))
    process.start()
    return process, ours


def test_processes_share_a_bucket_exactly() -> None:
    """Of many processes at one bucket just the limit passes, and each remaining value once."""
    path = create_table()
    running = [started(run, path, 600) for _ in range(4)]
    for _, pipe in running:
        pipe.send(None)
    left = Counter(value for _, pipe in running for value in pipe.recv())
    for process, _ in running:
        process.join()

    assert left == Counter(range(1000))


def test_a_killed_process_leaves_no_lock() -> None:
    """Processes that are killed at any moment neither block the bucket nor damage it."""
    path = create_table()
    table = SharedTable(path)
    left = [1000]
    for _ in range(3):
        process, pipe = started(run_forever, path)
        pipe.recv()
        time.sleep(0.01)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        verdict = table.take(digest_of("shared"), HOUR_LIMITS, 0)
        left.append(verdict.requests_left or 0)

    assert left == sorted(left, reverse=True)
    assert table.take(digest_of("another"), HOUR_LIMITS, 0).requests_left == 999


def test_two_tables_are_apart() -> None:
    """Each server start has a table of its own."""
    tables = [SharedTable(create_table()) for _ in range(2)]

    left = [table.take(digest_of("same"), HOUR_LIMITS, 0).requests_left for table in tables]

    assert left == [999, 999]


def test_ten_thousand_buckets_are_kept_in_bounded_memory() -> None:
    """10,000 keys and models each keep their own figures in under 5 MB."""
    path = create_table()
    table = SharedTable(path)

    for turn in (999, 998):
        left = {table.take(digest_of(n), HOUR_LIMITS, 0).requests_left for n in range(10_000)}
        assert left == {turn}

    assert Path(path).stat().st_size < 5_000_000


def test_a_crowded_table_gives_up_the_fullest() -> None:
    """When more buckets are in use than fit, those in heavy use stay what they are."""
    table = SharedTable(create_table())
    for _ in range(500):
        table.take(digest_of("heavy"), HOUR_LIMITS, 0)

    for n in range(60_000):
        table.take(digest_of(n), HOUR_LIMITS, 0)

    assert table.look(digest_of("heavy"), HOUR_LIMITS) == Verdict(500, None)
