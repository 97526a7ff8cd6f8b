"""What OpenAI's Python client makes of failures, and that good streams beside them keep time."""

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from benchmarks.fidelity import summarize
from benchmarks.kit.client import Chat, run_streams
from emulator.faults.kinds import KINDS
from tests.faults.test_faults import fail, stream, whole
from tests.support.cut_wire import CHAT, exchange
from tests.support.process import step_back
from tests.support.server import Server, eventually, running_server
from tests.support.wire import Post, chat, headers, post_together

RETRY_AFTER_MS = 100


def client_of(server: Server, retries: int) -> openai.OpenAI:
    """Return the official client."""
    return openai.OpenAI(api_key="k", base_url=f"{server.url}/v1", max_retries=retries)


def ask(client: openai.OpenAI, asked: Mapping[str, str], **parameters: object) -> Any:  # noqa: ANN401
    """Ask for a chat."""
    create: Any = client.chat.completions.create
    return create(**chat(**parameters), extra_headers=dict(asked))


def text_until(chunks: Any) -> tuple[str, BaseException | None]:  # noqa: ANN401 - the SDK's stream
    """Return the text that a stream gave before it ended, and the exception that ended it."""
    text = ""
    try:
        for chunk in chunks:
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    except Exception as error:  # noqa: BLE001 - whatever the client raises
        return text, error
    return text, None


def rises(server: Server, act: Callable[[], None]) -> float:
    """Return how many failures were injected while something was done."""
    before = server.metrics().total("openai_emulator_faults_total")
    act()
    return server.metrics().total("openai_emulator_faults_total") - before


@pytest.mark.parametrize("streamed", [True, False])
def test_third_attempt_succeeds(one_worker: Server, streamed: bool) -> None:
    """A 429 on the first two attempts is retried as retry-after-ms says, and then succeeds."""
    asked = headers() | fail(
        "status", status=429, attempts=2, retry_after_ms=RETRY_AFTER_MS, probability=1
    )
    took_s = 0.0

    def act() -> None:
        nonlocal took_s
        start_s = time.monotonic()
        with client_of(one_worker, 2) as client:
            answer = ask(client, asked, stream=streamed)
            assert text_until(answer)[1] is None if streamed else answer.choices
        took_s = time.monotonic() - start_s

    assert rises(one_worker, act) == 2
    assert took_s >= 2 * RETRY_AFTER_MS / 1000


def test_too_few_retries_raise(one_worker: Server) -> None:
    """With one retry, two attempts that fail raise RateLimitError with OpenAI's code."""
    asked = headers() | fail("status", status=429, attempts=2, retry_after_ms=1)
    with client_of(one_worker, 1) as client, pytest.raises(openai.RateLimitError) as caught:
        ask(client, asked)
    assert caught.value.code == "rate_limit_exceeded"


@pytest.mark.parametrize("kind", ["close", "reset"])
def test_cut_streams_raise(one_worker: Server, kind: str) -> None:
    """A stream whose connection is cut raises after the text of its k tokens."""
    with client_of(one_worker, 2) as client:
        text, error = text_until(ask(client, headers() | fail(kind, after_tokens=3), stream=True))
        full, _ = text_until(ask(client, headers() | fail("eof", after_tokens=3), stream=True))
    assert error is not None
    assert len(text.split()) == len(full.split()) == 3


def test_error_events_raise(one_worker: Server) -> None:
    """An error within a stream raises APIError with the error's message, after the k tokens."""
    with client_of(one_worker, 2) as client:
        text, error = text_until(
            ask(client, headers() | fail("error", after_tokens=3), stream=True)
        )
    assert isinstance(error, openai.APIError)
    assert "The server had an error while processing your request." in error.message
    assert len(text.split()) == 3


def test_broken_json_raises(one_worker: Server) -> None:
    """A broken event raises the JSON parser's own error."""
    with client_of(one_worker, 2) as client:
        _, error = text_until(
            ask(client, headers() | fail("malformed", after_tokens=3), stream=True)
        )
    assert isinstance(error, json.JSONDecodeError)


@pytest.mark.parametrize("kind", ["eof", "no-done", "empty"])
def test_short_streams_pass_for_success(one_worker: Server, kind: str) -> None:
    """A stream that ends properly without its end raises nothing: what these kinds are for."""
    with client_of(one_worker, 2) as client:
        assert text_until(ask(client, headers() | fail(kind), stream=True))[1] is None


def test_slices_are_put_together(one_worker: Server) -> None:
    """An answer in pieces of one byte is read as if it were whole."""
    asked = headers() | fail("slice", slice_bytes=1)
    with client_of(one_worker, 0) as client:
        text, error = text_until(ask(client, asked, stream=True, seed=1))
        good, _ = text_until(ask(client, headers(), stream=True, seed=1))
        answer = ask(client, asked, seed=1)
    assert (text, error) == (good, None)
    assert answer.choices[0].message.content == good


def test_good_streams_go_on_beside_failures(one_worker: Server) -> None:
    """While streams of every kind fail, others get all of their tokens, none of them early."""
    asked = headers(20, 10, 30)
    with ThreadPoolExecutor(2 * len(KINDS)) as pool:
        failing = [
            pool.submit(ask_for, one_worker, CHAT, headers(5, 5, 20) | fail(kind))
            for kind in KINDS
            for ask_for in (stream, whole)
        ]
        good = post_together(one_worker.address, [Post(chat(stream=True), asked)] * 20)
        ended = [future.result().end for future in failing]
    assert all(len(answer.content) == 30 for answer in good)
    assert [early for answer in good for early in answer.early(20, 10)] == []
    assert {"FIN", "RST", "open"} == set(ended)
    active = "openai_emulator_active_streams"
    assert eventually(lambda: one_worker.metrics().total(active) == 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["error", "eof", "close", "reset"])
def test_failure_is_within_a_millisecond(one_worker: Server, kind: str) -> None:
    """Half of the failures come within 1 ms of their token's due time, as a client sees due times.

    It sees them later by what connecting and reading take, as tokens of good streams show: on a
    slow machine both take longer.
    """
    late_s, good_s = [], []
    for index in range(30):
        k = index % 5
        asked, due_s = headers(20, 10, 8), 0.020 + k * 0.010
        came = stream(one_worker, CHAT, asked | fail(kind, after_tokens=k))
        assert came.tokens(CHAT) == k
        late_s.append(came.ended_s - due_s)
        (good,) = post_together(one_worker.address, [Post(chat(stream=True), asked)])
        good_s.append(good.content[k].arrival_s - due_s)
    assert min(late_s) >= 0
    assert np.median(late_s) < max(0.001, 3 * np.median(good_s))


GOOD, BESIDE, EVERY_S = 200, 100, 0.6
ROUNDS = 3
QUIET_S, LOUD_S = 3, 6  # of each round


def gap_error_p99_s(server: Server, lasts_s: int) -> float:
    """Return the p99 of how far gaps of `GOOD` streams are from 20 ms, as the kernel receives."""
    asked = Chat(stream=True, ttft_ms=500, itl_ms=20, tokens=lasts_s * 50)
    results = run_streams(server.address, asked, GOOD, 0.4, lasts_s + 30)
    assert all(len(result.arrived_ns) == asked.tokens for result in results)
    return summarize("watched", asked, results, None, None).gap_error_p99_ms / 1000


def ask_again_and_again(address: tuple[str, int], lasts_s: float, *, fails: bool) -> int:
    """Ask on `BESIDE` connections, for failures in every kind or none; return how often.

    Each asks every `EVERY_S`, as a server that is full would be late with or without failures.
    """
    start_s, kinds = time.monotonic(), [*KINDS]

    def ask_on(first: int) -> int:
        count = 0
        while (now_s := time.monotonic()) < start_s + lasts_s:
            due_s = start_s + (first / BESIDE + count) * EVERY_S
            time.sleep(max(0.0, due_s - now_s))
            kind = kinds[(first + count) % len(kinds)]
            body = CHAT.body(kind == "no-done" or (first + count) // len(kinds) % 2 == 0)
            asked = headers(100, 20, 10) | (fail(kind) if fails else {"Connection": "close"})
            exchange(address, CHAT.path, body, asked, stalls=kind == "stall")
            count += 1
        return count

    with ThreadPoolExecutor(BESIDE) as pool:
        return sum(pool.map(ask_on, range(BESIDE)))


@pytest.fixture
def watched(local_only: None) -> Iterator[Server]:  # noqa: ARG001 - skips
    """Yield a server with one worker that tells how many tasks it has."""
    target = "tests.support.servers.watched_service:OpenAIEmulator"
    with running_server("--arg", "workers=1", target=target) as server:
        yield server


def resources(server: Server) -> dict[str, float]:
    """Return tasks, descriptors, connections and resident memory of the one worker."""
    (worker,) = server.workers
    return {
        "tasks": int(httpx.get(f"{server.url}/tasks", trust_env=False).text),
        "descriptors": worker.num_fds(),
        "connections": len(worker.net_connections("tcp")),
        "memory_mb": worker.memory_info().rss / 1e6,
    }


@pytest.mark.slow
def test_failures_disturb_nobody(watched: Server) -> None:
    """Beside 100 connections that fail in every kind, 200 good streams keep time; nothing leaks.

    Failures move the p99 by less than 2 ms; on a machine that 100 good connections disturb by
    more, failures do by no more than half as much again. Other work on the machine only adds to a
    figure, so that the least of a few rounds counts. Whoever asks beside the good streams gives
    way to whoever reads them: what is asked of the server is watched, not how clients share two
    cores.
    """
    quiet_s, good_s, failing_s, count = [], [], [], 0
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, step_back) as pool:

        def beside(lasts_s: int, *, fails: bool) -> tuple[float, int]:
            """Return the good streams' p99 while others are asked beside them, and how often."""
            asked = pool.apply_async(
                ask_again_and_again, (watched.address, lasts_s + 1), {"fails": fails}
            )
            p99_s = gap_error_p99_s(watched, lasts_s)
            return p99_s, asked.get()

        pool.apply(ask_again_and_again, (watched.address, 2), {"fails": True})  # warms up
        before = resources(watched)
        for _ in range(ROUNDS):
            quiet_s.append(gap_error_p99_s(watched, QUIET_S))
            good_s.append(beside(QUIET_S, fails=False)[0])
            p99_s, asked = beside(LOUD_S, fails=True)
            failing_s.append(p99_s)
            count += asked
    active = "openai_emulator_active_streams"
    assert eventually(lambda: watched.metrics().total(active) == 0)
    kept = ("connections", "descriptors", "tasks")
    assert eventually(lambda: all(resources(watched)[name] <= before[name] for name in kept))
    after = resources(watched)
    told = {"quiet": quiet_s, "beside good": good_s, "beside failures": failing_s}
    for name, p99s_s in told.items():
        print(f"{name}: p99 {[round(p99_s * 1e3, 2) for p99_s in p99s_s]} ms")  # noqa: T201 - pytest -s
    print(f"{count} failures", before, after)  # noqa: T201 - pytest -s
    assert count > 1000
    assert after["memory_mb"] - before["memory_mb"] < 10
    assert min(failing_s) < max(min(quiet_s) + 0.002, 1.5 * min(good_s))
