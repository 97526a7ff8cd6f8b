"""What OpenAI's Python client makes of failures, and that good streams beside them keep time."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from benchmarks.beside import ask_again_and_again
from emulator.faults.kinds import KINDS
from tests.faults.test_faults import fail, stream, whole
from tests.support.cut_wire import CHAT
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
def test_failures_leave_nothing(watched: Server) -> None:
    """After 100 connections have failed in every kind, again and again, nothing of them is left.

    `benchmarks.beside` prints that good streams keep their times meanwhile.
    """
    ask_again_and_again(watched.address, 2, fails=True)  # what is kept for ever is there now
    before = resources(watched)
    count = ask_again_and_again(watched.address, 6, fails=True)
    kept = ("connections", "descriptors", "tasks")
    assert eventually(watched.is_idle)
    assert eventually(lambda: all(resources(watched)[name] <= before[name] for name in kept))
    assert count > 100
    assert resources(watched)["memory_mb"] - before["memory_mb"] < 10
