"""HTTP answers: JSON and event streams with OpenAI's headers, ended when the client goes away."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol, TypeAlias

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from emulator import metrics
from emulator.contract.error_words import server_error
from emulator.contract.errors import ErrorBody
from emulator.metrics import TALLY
from emulator.timing.clock import running_clock
from emulator.transport.direct_write import RawHeaders, short_way, split_lines
from tokenizer import Write

CLIENT_CLOSED_REQUEST = 499  # nginx's code; no client sees it, logs and metrics do

_OPENAI_LINES = (
    b"x-request-id: req_%032x\r\nopenai-processing-ms: %d\r\nopenai-version: 2020-10-01\r\n%b"
)

logger = logging.getLogger("bentoml.openai_emulator")


def openai_lines(request: Request) -> bytes:
    """Return the headers that OpenAI adds to every answer, as ready lines."""
    scope = request.scope
    return _OPENAI_LINES % (
        random.getrandbits(128),
        (time.monotonic() - scope["start_s"]) * 1000,
        scope.get("limit_lines", b""),
    )


def openai_headers(request: Request) -> RawHeaders:
    """Return the headers that OpenAI adds to every answer."""
    return split_lines(openai_lines(request))


class JSONResponse(Response):
    """JSON that has been rendered, with headers that have been; Starlette takes longer for them.

    What is added to ``headers`` comes before them.
    """

    def __init__(self, body: bytes | memoryview, status: int, lines: bytes) -> None:
        self.status_code = status
        self.background = None
        self.body = body
        self.raw_headers = []
        self._lines = b"content-length: %d\r\ncontent-type: application/json\r\n%b" % (
            len(body),
            lines,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        cycle = short_way(send)
        if cycle is None:
            self.raw_headers += split_lines(self._lines)
            await super().__call__(scope, receive, send)
        else:
            await cycle.send_whole(self.status_code, self.raw_headers, self._lines, self.body)


def json_response(
    request: Request, body: BaseModel | bytes | bytearray, status: int = 200
) -> Response:
    """Return `body` as JSON with OpenAI's headers."""
    content: bytes | memoryview
    if isinstance(body, BaseModel):
        content = body.model_dump_json().encode()
    else:
        # A copy of a large answer would stall the streams.
        content = body if isinstance(body, bytes) else memoryview(body)
    return JSONResponse(content, status, openai_lines(request))


class PiecesResponse(Response):
    """JSON in pieces: each is a write that waits for the client and for its turn."""

    def __init__(
        self, pieces: Sequence[bytes | bytearray | memoryview], headers: RawHeaders
    ) -> None:
        self.status_code = 200
        self.background = None
        self.raw_headers = [
            (b"content-length", b"%d" % sum(map(len, pieces))),
            (b"content-type", b"application/json"),
            *headers,
        ]
        self._pieces = pieces

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """Send the answer."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        *rest, last = self._pieces
        for piece in rest:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await running_clock().turn()
        await send({"type": "http.response.body", "body": last, "more_body": False})


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("what is to be cancelled must be a task")
    return task


@asynccontextmanager
async def ended_by_disconnect(receive: Receive) -> AsyncIterator[None]:
    """Cancel the body of the `async with` as soon as the client goes away.

    Raises:
        ClientDisconnect: The client went away.
    """
    task = _current_task()
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


class Deadline:
    """Ends the body of a `with` that takes longer than `timeout_s` seconds, in any task.

    All tasks have the same time, so that one timer serves them: asyncio.timeout() would cost each
    request about 15 us.

    Raises:
        TimeoutError: The time is over.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._ends_s: dict[asyncio.Task[Any], float] = {}  # in the order in which they come
        self._is_watching = False

    def __enter__(self) -> None:
        """Give the current task its time."""
        self._ends_s[_current_task()] = time.monotonic() + self._timeout_s
        if not self._is_watching:
            self._is_watching = True
            asyncio.get_running_loop().call_later(self._timeout_s, self._watch)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let go of the current task."""
        task = _current_task()
        is_over = self._ends_s.pop(task, None) is None
        if is_over and task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise TimeoutError

    def _watch(self) -> None:
        """Cancel the tasks whose time is over, and come back for the next."""
        now_s = time.monotonic()
        while self._ends_s:
            task, end_s = next(iter(self._ends_s.items()))
            if end_s > now_s:
                asyncio.get_running_loop().call_later(end_s - now_s, self._watch)
                return
            del self._ends_s[task]
            task.cancel()
        self._is_watching = False


Play: TypeAlias = Callable[[Write | None], AsyncGenerator[bytes]]


class Stream(Protocol):
    """What an event stream sends after its tokens, and who wants to know how it ended."""

    async def end(self) -> bytes:
        """Return what comes after the last token."""

    def error(self, error: ErrorBody) -> bytes:
        """Return the event of a failure in mid-stream."""

    def finish(self, status: int) -> None:
        """Note that it has ended with a status, as logs and metrics tell it."""


class EventStream(Response):
    """A stream of server-sent events; it ends at once when the client goes away.

    A fault of our own ends it with an event that holds the error, and nothing after it.

    Args:
        stream: What comes after the tokens.
        play: Returns what yields the blocks that leave together, each to be sent in one write;
            but not those that it has sent itself by what it is given.
        headers: Response headers beside those of every event stream.
    """

    def __init__(self, stream: Stream, play: Play, headers: RawHeaders) -> None:
        self.status_code = 200
        self.background = None
        self.raw_headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            *headers,
        ]
        self.stream = stream
        self.play = play

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        status = CLIENT_CLOSED_REQUEST
        TALLY.add(metrics.ACTIVE_STREAMS)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            # In a task of its own: else each token would wake all that has called this.
            async with ended_by_disconnect(receive):
                await asyncio.create_task(self._play(send))
            status = 200
        except ClientDisconnect:
            pass
        except Exception:
            status = 500
            TALLY.add(metrics.ERRORS.labels(status, "server_error"))
            logger.exception("a stream broke off")
            body = self.stream.error(server_error().body)
            await send({"type": "http.response.body", "body": body, "more_body": True})
        finally:
            TALLY.add(metrics.ACTIVE_STREAMS, -1)
            self.stream.finish(status)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _play(self, send: Send) -> None:
        """Send the blocks as they come, and what comes after them."""
        cycle = short_way(send)
        write = None if cycle is None else cycle.send_part
        async with aclosing(self.play(write)) as blocks:
            async for block in blocks:
                if write is None or not write(block):
                    await send({"type": "http.response.body", "body": block, "more_body": True})
        end = await self.stream.end()
        await send({"type": "http.response.body", "body": end, "more_body": True})
