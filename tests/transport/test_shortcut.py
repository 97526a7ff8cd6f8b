"""What an operator configures in BentoML holds for completions too."""

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.server import PLAIN, Server, args, configured, eventually, running_server
from tests.support.servers.ahead import shared
from tests.support.wire import CHAT_PATH, DONE, Post, chat, headers, post, stream, unread

pytestmark = pytest.mark.usefixtures("local_only")

LIMIT = """
    traffic:
      max_concurrency: 2
"""
ORIGIN = {"Origin": "https://chat.example"}


@shared("module")
def limited(folder: Path) -> AbstractContextManager[Server]:
    """Yield a server that takes two requests at a time."""
    return configured(folder, LIMIT)


def test_cors_of_answers(behind_middleware: Server) -> None:
    """With CORS configured, answers, streams and errors carry its header."""
    posts = [chat(), chat(stream=True), chat(n=0)]
    answers = [post(behind_middleware.address, body, {**headers(), **ORIGIN}) for body in posts]
    allowed = [answer.headers.get("access-control-allow-origin") for answer in answers]
    assert [answer.status for answer in answers] == [200, 200, 400]
    assert allowed == [ORIGIN["Origin"]] * 3


def test_cors_of_preflights(behind_middleware: Server) -> None:
    """With CORS configured a browser's question before the request is answered."""
    asked = {**ORIGIN, "Access-Control-Request-Method": "POST"}
    answer = PLAIN.options(behind_middleware.url + CHAT_PATH, headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]


def test_limit_of_concurrency(limited: Server) -> None:
    """Above the configured concurrency completions are refused with 429, below it served."""
    held = Post(chat(stream=True), headers(itl_ms=60_000))
    with unread(limited.address, [held] * 2) as sockets:
        assert all(connection.recv(1) for connection in sockets)
        assert post(limited.address, chat(), headers()).status == 429


def test_answers_behind_middleware(behind_middleware: Server) -> None:
    """On BentoML's own way answers, times and metrics are those of the shortcut."""
    check_answers(behind_middleware)


def test_answers_below_a_limit(limited: Server) -> None:
    """So are they where an operator limits concurrency."""
    check_answers(limited)


def check_answers(server: Server) -> None:
    """Look at a stream, a whole answer, and the metrics."""
    labels = {"endpoint": CHAT_PATH, "http_response_code": "200"}
    before = server.metrics()
    answer = stream(server.address, headers(30, 10, 10))
    whole = post(server.address, chat(), headers(30, 10, 10))
    after = server.metrics()

    assert (len(answer.content), answer.events[-1].data) == (10, DONE)
    assert all(e.arrival_s >= 0.030 + 0.010 * i for i, e in enumerate(answer.content))
    assert whole.status == 200
    assert whole.blocks[-1].arrival_s >= 0.120
    for metric in ("total", "duration_seconds_count"):
        name = f"bentoml_service_request_{metric}"
        assert after.total(name, **labels) - before.total(name, **labels) == 2


@pytest.mark.slow
def test_access_lines() -> None:
    """Where uvicorn's access log is on, whole answers and streams have a line in it."""
    with running_server(*args(workers=1), "--debug") as server:
        post(server.address, chat(), headers())
        stream(server.address, headers())
        line = f'"POST {CHAT_PATH} HTTP/1.1" 200'
        assert eventually(lambda: server.log().count(line) == 2)
