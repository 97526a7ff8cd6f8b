"""A new API is a file and a line: limits, failures, the clock, errors and metrics come with it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.support.server import TLS, Server, args, running_server
from tests.support.servers.ahead import shared
from tests.support.wire import headers

TARGET = "tests.support.servers.toy_service:OpenAIEmulator"
PATH = "/v1/lines"


@shared("module")
def toy(_: Path) -> AbstractContextManager[Server]:
    """Yield the service with one more API, and limits."""
    return running_server(*args(workers=1, rpm=1000, tpm=100_000), target=TARGET)


@pytest.fixture
def http(toy: Server) -> Iterator[httpx.Client]:
    """Yield a client of it."""
    with httpx.Client(base_url=toy.url, timeout=30, trust_env=False, verify=TLS) as client:
        yield client


def body(**more: object) -> dict[str, object]:
    """Return a request."""
    return {"model": "gpt-4", "prompt": "Hello!", **more}


@pytest.mark.parametrize("stream", [False, True])
def test_its_own_form_on_the_common_clock(http: httpx.Client, stream: bool) -> None:
    """Its answers are lines, as many as were asked for, and none comes before it is due."""
    answer = http.post(PATH, json=body(stream=stream), headers=headers(60, 5, 4))
    lines = answer.text.splitlines()
    assert answer.headers["content-type"] == "text/plain"
    assert len(lines) == (5 if stream else 4)  # the stream's last line is its end
    assert answer.elapsed.total_seconds() >= (0 if stream else 0.075)


def test_limits(http: httpx.Client) -> None:
    """Limits charge its prompt and its planned tokens, and its answers tell what is left."""
    answer = http.post(PATH, json=body(model="toy"), headers=headers(0, 0, 10))
    left = int(answer.headers["x-ratelimit-remaining-tokens"])
    assert answer.headers["x-ratelimit-remaining-requests"] == "999"
    assert left == 100_000 - 10 - 2  # "Hello!" has two tokens


@pytest.mark.parametrize("stream", [False, True])
def test_failures(http: httpx.Client, stream: bool) -> None:
    """It fails on purpose where it is asked to, in its own form."""
    asked = headers(0, 0, 5) | {"X-FAULT-KIND": "error", "X-FAULT-AFTER-TOKENS": "2"}
    answer = http.post(PATH, json=body(stream=stream), headers=asked)
    assert answer.headers["x-fault-injected"] == "error"
    assert answer.status_code == (200 if stream else 500)
    assert answer.text.splitlines()[-1].startswith("! The server had an error")
    assert len(answer.text.splitlines()) == (3 if stream else 1)


def test_errors(http: httpx.Client) -> None:
    """Bad bodies and bad headers are refused in its own form, and take nothing from limits."""
    bad = [
        http.post(PATH, json={"model": "toy-2"}),
        http.post(PATH, json=body(model="toy-2"), headers={"X-TTFT-MS": "soon"}),
        http.post(PATH, json=body(model="toy-2"), headers={"X-ITL-JITTER": "wild"}),
    ]
    assert [answer.status_code for answer in bad] == [400, 400, 400]
    assert [answer.text[0] for answer in bad] == ["!"] * 3
    assert {answer.headers["x-ratelimit-remaining-requests"] for answer in bad} == {"1000"}


def test_metrics(toy: Server, http: httpx.Client) -> None:
    """Its tokens, its answers and its errors are counted, and BentoML's metrics have its path."""
    before = toy.metrics()
    http.post(PATH, json=body(), headers=headers(0, 0, 7))
    http.post(PATH, json=body(), headers={"X-TTFT-MS": "-1"})
    after = toy.metrics()
    names = {
        "openai_emulator_tokens_total": 7,
        "openai_emulator_completions_total": 1,
        "openai_emulator_errors_total": 1,
    }
    assert {name: after.total(name) - before.total(name) for name in names} == names
    assert after.total("bentoml_service_request_total", endpoint=PATH) > 0
