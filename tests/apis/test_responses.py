"""Answers that go wrong on the way, and requests that come in odd ways."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from http.client import HTTPConnection
from typing import Any

import psutil
import pytest
from starlette.types import Send

from emulator.contract.error_words import overloaded
from emulator.serving.event_stream import EventStream
from emulator.settings import Settings
from emulator.state import State
from emulator.transport.exchange import Exchange
from schemas import ErrorBody, ErrorEnvelope
from tests.support.server import Server, eventually, is_alive
from tests.support.wire import ANSWER_TIMEOUT_S, CHAT_PATH, Post, chat, headers, unread


class InWords:
    """Writes a failure as an event of its own."""

    def error(self, error: ErrorBody) -> bytes:
        """Return the event."""
        return f"data: {ErrorEnvelope(error=error).model_dump_json()}\n\n".encode()


async def broken(send: Send) -> None:
    """Send one block, and fail."""
    await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
    raise RuntimeError("out of paper")


async def busy(send: Send) -> None:
    """Send one block, and find no helper for the rest."""
    await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
    raise overloaded()


@pytest.mark.parametrize(
    ("play", "status", "code", "message"),
    [
        (broken, 500, None, "The server had an error while processing your request."),
        (
            busy,
            503,
            "server_is_overloaded",
            "The server is currently overloaded. Please try again later.",
        ),
    ],
)
def test_fault_within_a_stream_is_told(
    caplog: pytest.LogCaptureFixture,
    play: Callable[[Send], Awaitable[None]],
    status: int,
    code: str | None,
    message: str,
) -> None:
    """A stream that fails ends with OpenAI's error in an event of its own, and ends properly.

    A fault of our own is logged with its traceback, and a busy server is none.
    """
    sent: list[Any] = []

    async def run() -> None:
        async def receive() -> dict[str, Any]:
            never: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
            return await never

        async def send(message: Any) -> None:  # noqa: ANN401 - any ASGI message
            sent.append(message)

        exchange = Exchange({"type": "http", "headers": []}, receive, State(Settings()))
        await EventStream(exchange, play, InWords(), [])({}, receive, send)
        assert exchange.status == status

    asyncio.run(run())
    start, first, error, end = sent
    assert (start["status"], first["body"]) == (200, b"data: {}\n\n")
    told = json.loads(error["body"].removeprefix(b"data: "))["error"]
    assert (told["message"], told["code"]) == (message, code)
    assert bool(caplog.records) == (status == 500)
    assert (end["body"], end["more_body"]) == (b"", False)


@pytest.mark.parametrize("apart", [False, True], ids=["in one packet", "body in a second packet"])
def test_offer_of_http2_is_ignored(address: tuple[str, int], apart: bool) -> None:
    """Requests that offer HTTP/2, as those of Java's HttpClient do, are served."""
    body = json.dumps(chat("upgrade: h2c", max_tokens=1)).encode()
    connection = HTTPConnection(*address, timeout=ANSWER_TIMEOUT_S)
    for _ in range(2):
        connection.putrequest("POST", CHAT_PATH)
        connection.putheader("Connection", "Upgrade, HTTP2-Settings")
        connection.putheader("Upgrade", "h2c")
        connection.putheader("HTTP2-Settings", "AAEAAEAA")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(None if apart else body)
        if apart:
            connection.send(body)
        response = connection.getresponse()
        assert (response.status, json.load(response)["object"]) == (200, "chat.completion")
    connection.close()


def test_composing_ends_with_its_client(one_worker: Server) -> None:
    """Answers that take seconds to compose cost nothing more when their client has gone away."""
    schema = {"type": "array", "minItems": 500, "items": {"type": "integer"}}
    wanted = {"type": "json_schema", "json_schema": {"name": "numbers", "schema": schema}}
    asked = Post(chat(n=128, response_format=wanted), headers(0, 0, 1))
    used_s = {helper: cpu_s(helper) for helper in one_worker.helpers}

    def busy() -> list[psutil.Process]:
        """Return the helpers that have taken 0.3 s of CPU since the request was sent."""
        return [h for h in one_worker.helpers if cpu_s(h) > used_s.get(h, 0) + 0.3]

    with unread(one_worker.address, [asked]):
        assert eventually(lambda: len(busy()) > 0)
        composing = busy()
    assert eventually(lambda: not any(map(is_alive, composing)))


def cpu_s(process: psutil.Process) -> float:
    """Return the CPU time that a process has taken, in s; 0 if it has ended."""
    try:
        return float(sum(process.cpu_times()[:2]))
    except psutil.NoSuchProcess:
        return 0.0
