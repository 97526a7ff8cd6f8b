"""Answers on their way out: JSON and event streams with the server's headers."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic

from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from emulator.timing.clock import running_clock
from emulator.transport.direct_write import RawHeaders, direct_cycle, split_lines
from emulator.transport.exchange import Exchange

CLIENT_CLOSED_REQUEST = 499  # nginx's code; no client sees it, logs and metrics do

JSON = b"application/json"
PIECE = 1 << 16  # bytes
_LINES = b"content-length: %d\r\ncontent-type: %b\r\n%b"


def own_lines(exchange: Exchange) -> bytes:
    """Return the headers that the server adds to every answer, as ready lines."""
    more = exchange.limit_lines + exchange.told_lines
    if exchange.rules and exchange.state.settings.rules_header:
        more += b"x-emulation-rules: %b\r\n" % ", ".join(exchange.rules).encode("latin-1")
    exchange.request_id = random.getrandbits(128)
    elapsed_ms = (monotonic() - exchange.start_s) * 1000
    return exchange.state.dialect.lines(exchange.request_id, elapsed_ms, exchange.scope) + more


def own_headers(exchange: Exchange) -> RawHeaders:
    """Return the headers that the server adds to every answer."""
    return split_lines(own_lines(exchange))


class Reply:
    """An answer; calling it, as an ASGI application, sends it.

    Args:
        status: The HTTP status.
        headers: Headers, with names in lower case.
        body: What follows the head in one piece.
    """

    def __init__(self, status: int, headers: RawHeaders, body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body: bytes | memoryview = body

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """Send it."""
        await self.start(send)
        await send({"type": "http.response.body", "body": self.body, "more_body": False})

    async def start(self, send: Send) -> None:
        """Send the head."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})


class WholeReply(Reply):
    """A whole answer with headers that are ready lines; `headers` come before them."""

    def __init__(
        self, body: bytes | memoryview, status: int, lines: bytes, content_type: bytes = JSON
    ) -> None:
        super().__init__(status, [])
        self.body = body
        self._lines = _LINES % (len(body), content_type, lines)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, in one write where nothing has to see it."""
        cycle = direct_cycle(send)
        if cycle is not None:
            await cycle.send_whole(self.status, self.headers, self._lines, self.body)
            return
        self.headers += split_lines(self._lines)
        await super().__call__(scope, receive, send)


def whole_reply(
    exchange: Exchange,
    body: BaseModel | bytes | bytearray,
    status: int = 200,
    content_type: bytes = JSON,
) -> WholeReply:
    """Return `body`, as JSON if it is a model, with the server's headers."""
    content: bytes | memoryview
    if isinstance(body, BaseModel):
        content = body.model_dump_json().encode()
    else:
        # A copy of a large answer would stall the streams.
        content = body if isinstance(body, bytes) else memoryview(body)
    return WholeReply(content, status, own_lines(exchange), content_type)


def empty_reply(exchange: Exchange, status: int = 200) -> Reply:
    """Return a status without a body, with the dialect's headers."""
    lines = exchange.state.dialect.lines_of_probes(exchange.scope)
    return Reply(status, [(b"content-length", b"0"), *split_lines(lines)])


class PiecesReply(Reply):
    """JSON in pieces: each is a write that waits for the client and for its turn."""

    def __init__(
        self, pieces: Sequence[bytes | bytearray | memoryview], headers: RawHeaders
    ) -> None:
        length = sum(map(len, pieces))
        super().__init__(
            200,
            [
                (b"content-length", b"%d" % length),
                (b"content-type", b"application/json"),
                *headers,
            ],
        )
        self._pieces = pieces

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """Send it."""
        await self.start(send)
        *rest, last = self._pieces
        for piece in rest:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await running_clock().turn()
        await send({"type": "http.response.body", "body": last, "more_body": False})


def slices(body: bytes | bytearray) -> Iterator[memoryview]:
    """Yield a body in pieces of which none takes long to write."""
    view = memoryview(body)
    for at in range(0, len(view), PIECE):
        yield view[at : at + PIECE]


@asynccontextmanager
async def ended_by_disconnect(receive: Receive) -> AsyncIterator[None]:
    """Cancel the body of the `async with` as soon as the client goes away.

    Raises:
        ClientDisconnect: The client went away.
    """
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("what is to be cancelled must be a task")
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise ClientDisconnect from None
    finally:
        watcher.cancel()
