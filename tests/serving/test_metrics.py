"""Metrics that agree with what the clients see, in one worker and in two."""

import time
from collections.abc import Callable
from contextlib import ExitStack

import httpx
import pytest

from tests.support.server import PLAIN, TLS, Server, eventually, running_server
from tests.support.wire import CHAT_PATH, Post, chat, headers, post, post_together, stream, unread

BENTOML = "bentoml_service_request"
OURS = "openai_emulator"
TOOL = {"type": "function", "function": {"name": "look"}}


@pytest.fixture
def added(one_worker: Server) -> Callable[..., float]:
    """Return what tells by how much a metric has grown since the test began.

    What other tests have asked for is over by then.
    """
    assert eventually(one_worker.is_idle)
    before = one_worker.metrics()

    def added(name: str, **labels: str) -> float:
        return one_worker.metrics().total(name, **labels) - before.total(name, **labels)

    return added


def fails(server: Server, status: int, **parameters: object) -> None:
    """Send a request that is answered with this status."""
    assert post(server.address, chat(**parameters)).status == status


# --------------------------------------------------------------------------------------
# Times
# --------------------------------------------------------------------------------------

LAGS = [f"{OURS}_{kind}_lag_seconds_sum" for kind in ("ttft", "itl", "whole")]


def test_lags_are_the_reports(one_worker: Server, added: Callable[..., float]) -> None:
    """The lags of TTFT, ITL and whole answers are those that reports and clients tell, to 2 us.

    A whole answer leaves after its report was made, and before the client has it.
    """
    report = {"X-EMULATION-REPORT": "true"}
    posts = [
        Post(chat(stream=True), headers(60, 20, output_length=6) | report),
        Post(chat(), headers(70, output_length=1) | report),
    ]
    streamed, whole = post_together(one_worker.address, posts)
    ttft_ms, itl_ms, whole_ms = (added(name) * 1000 for name in LAGS)
    told = streamed.report
    lags_ms = [
        told["ttft_ms"]["actual"] - told["ttft_ms"]["asked"],
        max(told["itl_ms"]["max"] - told["itl_ms"]["asked"], 0),
    ]
    assert [ttft_ms, itl_ms] == pytest.approx(lags_ms, abs=0.002)
    assert whole.report["worst_lag_ms"] - 0.002 <= whole_ms
    assert whole_ms <= whole.blocks[-1].arrival_s * 1000 - 70


def test_lags_are_counted(one_worker: Server, added: Callable[..., float]) -> None:
    """Each stream has a TTFT, each with two tokens an ITL, and each other answer a lag."""
    posts = [
        Post(chat(stream=streamed), headers(5, 2, length))
        for streamed, length in [(True, 1), (True, 1), (True, 2), (True, 9), (False, 9)]
    ]
    post_together(one_worker.address, posts)
    counts = [added(f"{OURS}_{kind}_lag_seconds_count") for kind in ("ttft", "itl", "whole")]
    assert counts == [4, 2, 1]


def test_buckets_hold_what_is_below_them(one_worker: Server) -> None:
    """The buckets of a histogram grow up to its count."""
    stream(one_worker.address, headers(5, 2, 20))
    metrics = one_worker.metrics()
    buckets = {
        float(sample.labels["le"]): sample.value
        for sample in metrics.samples
        if sample.name == f"{OURS}_ttft_lag_seconds_bucket"
    }
    counts = [buckets[bound] for bound in sorted(buckets)]
    assert (min(buckets), sorted(buckets)[-2]) == (50e-6, 1.0)
    assert counts == sorted(counts)
    assert counts[-1] == metrics.total(f"{OURS}_ttft_lag_seconds_count") > 0


# --------------------------------------------------------------------------------------
# Counts
# --------------------------------------------------------------------------------------


def test_tokens(one_worker: Server, added: Callable[..., float]) -> None:
    """Tokens are those of the usage, of all choices, streamed and not, reasoning included."""
    for parameters in ({"stream": True}, {}, {"n": 3}, {"stream": True, "n": 2}):
        post(one_worker.address, chat(**parameters), headers(output_length=10))
    assert added(f"{OURS}_tokens_total") == 10 + 10 + 30 + 20
    for streamed in (False, True):
        asked = {**headers(output_length=10), "X-REASONING-LENGTH": "7"}
        post(one_worker.address, chat(stream=streamed, n=2), asked)
    assert added(f"{OURS}_tokens_total") == 70 + 2 * 2 * 17


@pytest.mark.parametrize(
    ("extra", "parameters", "sent"),
    [
        ({}, {}, 1),
        ({}, {"n": 3}, 3),
        ({"X-SSE-BATCH-SIZE": "4"}, {"n": 2}, 8),
    ],
    ids=["one", "choices", "batches"],
)
def test_tokens_of_a_stream_that_was_left(
    one_worker: Server,
    added: Callable[..., float],
    extra: dict[str, str],
    parameters: dict[str, int],
    sent: int,
) -> None:
    """Of a stream whose client went away the tokens count that had left, of all choices."""
    asked = Post(chat(stream=True, **parameters), {**headers(0, 60_000, 10), **extra})
    with unread(one_worker.address, [asked]) as sockets:
        last = b'"index":%d,"delta":{"content":"' % (parameters.get("n", 1) - 1)
        assert eventually(lambda: last in sockets[0].recv(10_000))
    assert eventually(lambda: added(f"{OURS}_tokens_total") == sent)
    assert added(f"{OURS}_completions_total") == 0


def test_completions_by_finish_reason(one_worker: Server, added: Callable[..., float]) -> None:
    """Completions are counted by what ended them, each choice by itself."""
    for parameters in (
        {"stream": True},
        {"n": 2},
        {"max_tokens": 2},
        {"stream": True, "tools": [TOOL], "tool_choice": "required"},
        {"functions": [TOOL["function"]], "function_call": {"name": "look"}},
    ):
        post(one_worker.address, chat(**parameters), headers())
    counts = {
        reason: added(f"{OURS}_completions_total", finish_reason=reason)
        for reason in ("stop", "length", "tool_calls", "function_call")
    }
    assert counts == {"stop": 3, "length": 1, "tool_calls": 1, "function_call": 1}


def test_errors_by_code(one_worker: Server, added: Callable[..., float]) -> None:
    """Errors are counted by status and code, those of BentoML's way too."""
    before = one_worker.metrics().errors()
    fails(one_worker, 400, n=0)
    fails(one_worker, 400, temperature="hot")
    PLAIN.put(one_worker.url + CHAT_PATH)
    counts = [
        added(f"{OURS}_errors_total", status=status, code=code)
        for status, code in [
            ("400", "integer_below_min_value"),
            ("400", "invalid_type"),
            ("405", "method_not_supported"),
        ]
    ]
    assert counts == [1, 1, 1]
    assert one_worker.metrics().errors() == before + 3


def test_two_workers(two_workers: Server) -> None:
    """Whichever worker is asked tells the sums of both soon."""
    posts = [Post(chat(stream=index < 30), headers(5, 1, 10)) for index in range(60)]
    bad = [Post(chat(n=0), {})] * 10

    def told() -> list[float]:
        metrics = two_workers.metrics()
        return [
            metrics.total(f"{OURS}_tokens_total"),
            metrics.total(f"{OURS}_completions_total", finish_reason="stop"),
            metrics.errors(),
            metrics.total(f"{OURS}_ttft_lag_seconds_count"),
            metrics.total(f"{OURS}_whole_lag_seconds_count"),
            metrics.total(f"{OURS}_active_streams"),
            metrics.total(f"{BENTOML}_total", endpoint=CHAT_PATH, http_response_code="200"),
            metrics.total(f"{BENTOML}_total", endpoint=CHAT_PATH, http_response_code="400"),
            metrics.total(f"{BENTOML}_in_progress", endpoint=CHAT_PATH),
        ]

    assert eventually(two_workers.is_idle)
    for worker in two_workers.workers:
        with two_workers.alone(worker):
            told()  # so that it hands over what it has counted
    added = [600, 60, 10, 30, 30, 0, 60, 10, 0]
    expected = [before + more for before, more in zip(told(), added, strict=True)]
    for index, worker in enumerate(two_workers.workers):
        with two_workers.alone(worker):
            asked = [*posts[index::2], *bad[index::2]]
            answers = post_together(two_workers.address, asked, apart_s=0.002)
        assert [answer.status for answer in answers] == [200] * 30 + [400] * 5
    assert eventually(lambda: told() == expected)
    assert all(told() == expected for _ in range(10))


@pytest.mark.slow  # BentoML looks for dead workers every 10 s
def test_streams_of_all_workers(local_only: None) -> None:  # noqa: ARG001 - skips
    """Streams under way are those of both workers; those of one that is killed are forgotten."""
    asked = Post(chat(stream=True), headers(0, 60_000))
    with running_server("--arg", "workers=2") as server, ExitStack() as stack:

        def streams() -> float:
            return server.metrics().total(f"{OURS}_active_streams")

        for worker, count in zip(server.workers, (3, 5), strict=True):
            with server.alone(worker):
                for connection in stack.enter_context(unread(server.address, [asked] * count)):
                    assert connection.recv(1)
        assert eventually(lambda: streams() == 8)
        worker.kill()
        # BentoML looks for dead workers every few seconds.
        assert eventually(lambda: streams() == 3, timeout_s=120)


# --------------------------------------------------------------------------------------
# BentoML's
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "asked"), [(CHAT_PATH, chat()), ("/v1/completions", {"prompt": "x"})]
)
def test_bentomls_counts(
    one_worker: Server, added: Callable[..., float], path: str, asked: dict[str, object]
) -> None:
    """BentoML's metrics count each answer and its duration, by path and status."""
    began_s = time.monotonic()
    with httpx.Client(base_url=one_worker.url, trust_env=False, verify=TLS) as client:
        for choices in (1, 0, 1):
            body = {"model": "m", **asked, "n": choices}
            client.post(path, json=body, headers=headers(ttft_ms=50, output_length=1))
    for status, count in (("200", 2), ("400", 1)):
        labels = {"endpoint": path, "http_response_code": status}
        labels["runner_name"] = labels["service_name"] = OURS
        assert added(f"{BENTOML}_total", **labels) == count
        assert added(f"{BENTOML}_duration_seconds_count", **labels) == count
    took_s = time.monotonic() - began_s
    assert 0.1 <= added(f"{BENTOML}_duration_seconds_sum", endpoint=path) < took_s
    assert added(f"{BENTOML}_in_progress", endpoint=path) == 0


def test_bentomls_requests_in_progress(one_worker: Server, added: Callable[..., float]) -> None:
    """BentoML's metrics tell how many requests are under way."""
    posts = [Post(chat(stream=flag), headers(ttft_ms=100_000)) for flag in (True, False, True)]
    with unread(one_worker.address, posts):
        assert eventually(lambda: added(f"{BENTOML}_in_progress", endpoint=CHAT_PATH) == 3)
    assert eventually(lambda: added(f"{BENTOML}_in_progress", endpoint=CHAT_PATH) == 0)


def test_bentomls_time_of_the_last_request(one_worker: Server) -> None:
    """BentoML's metrics tell when the last request came."""

    def stamp() -> float:
        metrics = one_worker.metrics()
        return metrics.total(f"{BENTOML.removesuffix('_request')}_last_request_timestamp_seconds")

    before = stamp()
    post(one_worker.address, chat(), headers(ttft_ms=60))
    post(one_worker.address, chat(), headers())
    assert stamp() > before


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("OPTIONS", 405), ("PUT", 405)])
def test_other_methods_are_counted(
    one_worker: Server, added: Callable[..., float], method: str, status: int
) -> None:
    """A method that no shortcut takes is counted on BentoML's way, served or refused."""
    answer = PLAIN.request(method, one_worker.url + CHAT_PATH)
    assert answer.status_code == status
    labels = {"endpoint": CHAT_PATH, "http_response_code": str(status)}
    assert eventually(lambda: added(f"{BENTOML}_total", **labels) == 1)


def test_other_paths_are_counted(one_worker: Server, added: Callable[..., float]) -> None:
    """Other paths go BentoML's way, those that do not exist too."""
    for path, status in (("/v1/models", "200"), ("/v1/nothing", "404")):
        PLAIN.get(one_worker.url + path)
        assert added(f"{BENTOML}_total", endpoint=path, http_response_code=status) == 1


def test_metrics_are_prometheus_text(one_worker: Server) -> None:
    """All of the emulator's metrics say what they are."""
    text = PLAIN.get(f"{one_worker.url}/metrics").text
    kinds = {
        "ttft_lag_seconds": "histogram",
        "itl_lag_seconds": "histogram",
        "whole_lag_seconds": "histogram",
        "tokens_total": "counter",
        "completions_total": "counter",
        "errors_total": "counter",
        "active_streams": "gauge",
    }
    stream(one_worker.address, headers())
    assert all(f"# TYPE {OURS}_{name} {kind}" in text for name, kind in kinds.items())
