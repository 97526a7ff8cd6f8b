"""The websocket transport of the Responses API: a request in each frame, its events in frames.

A frame of the client is ``{"type": "response.create", ...}`` with the fields of a request beside
it. The events are those of the stream of server-sent events, each a text frame. A turn goes through
the same endpoint as a POST, so that limits, failures, the clock and metrics hold.
"""

import asyncio
import json
import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from emulator.apis.responses.ids import as_stored, says_unstored
from emulator.contract.errors import APIError
from emulator.reading.bodies import is_light
from emulator.transport.exchange import Exchange, openai_envelope
from emulator.transport.sending import Reply

# What a client may send before the answer to the one before it, and the sockets of a worker.
MAX_FRAMES_WAITING = 4
MAX_SOCKETS = 256
CREATE = "response.create"

# What belongs to the handshake alone; a turn has a body of its own.
_OF_THE_HANDSHAKE = (b"upgrade", b"connection", b"content-length", b"content-type", b"origin")
_TYPE = re.compile(rb'"type"\s*:\s*"%s"' % re.escape(CREATE).encode())
_CREATED = '{"type":"response.created"'
_ID = re.compile(r"resp_[0-9a-f]+")
_TOO_MANY = 1008
_UNSUPPORTED = 1003
_TRY_AGAIN_LATER = 1013

Answer = Callable[[Scope, Receive, Send], Coroutine[Any, Any, Any]]


class ResponsesSocket:
    """Serves websockets.

    Args:
        answer: Answers one POST request, as an ASGI application does.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._sockets = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection: requests in turn, until the client leaves."""
        send = _Outlet(send)
        await receive()  # websocket.connect
        await send({"type": "websocket.accept"})
        if self._sockets >= MAX_SOCKETS:
            await _close(send, _TRY_AGAIN_LATER, "too many websockets")
            return
        self._sockets += 1
        try:
            await self._serve(scope, receive, send)
        finally:
            self._sockets -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        frames: asyncio.Queue[str | None] = asyncio.Queue()
        reading = asyncio.create_task(_read(receive, send, frames))
        turn: asyncio.Task[None] | None = None
        last = _LatestResponse()
        try:
            while (text := await frames.get()) is not None:
                turn = asyncio.create_task(self._turn(scope, text, send, last))
                await asyncio.wait([turn, reading], return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    return  # nobody waits for the other answers
        finally:
            reading.cancel()
            if turn is not None and not turn.done():
                turn.cancel()

    async def _turn(self, scope: Scope, text: str, send: Send, last: "_LatestResponse") -> None:
        """Answer one frame."""
        try:
            body = _request_of(last.known_in(text))
        except APIError as error:
            envelope = json.loads(openai_envelope(error.body))
            await _send_json(send, {"type": "error", "status": error.status, **envelope})
            return
        await self._answer(_posted(scope), _receiving(body), _Frames(send, last))


class _Outlet:
    """Sends frames until the connection is closed, by either side; nobody gets the later ones."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_open = True

    async def __call__(self, message: Message) -> None:
        """Send a frame."""
        if not self._is_open:
            return
        self._is_open = message["type"] != "websocket.close"
        try:
            await self._send(message)
        except OSError:  # of uvicorn, where the client has left
            self._is_open = False


class _LatestResponse:
    """The last response of a connection, which can be gone on from though nothing is stored.

    Its id says that it was not stored where the request said so. To the endpoint it is named by
    one that was, and that is the client's again in what comes back.
    """

    def __init__(self) -> None:
        self._id = ""
        self._renamed = ""

    def known_in(self, text: str) -> str:
        """Return a frame of the client that names the last response as one that is known."""
        self._renamed = self._id if says_unstored(self._id) and self._id in text else ""
        return text.replace(self._renamed, as_stored(self._renamed)) if self._renamed else text

    def restored_in(self, event: str) -> str:
        """Return an event that names it as the client does; the first one tells the next id."""
        if event.startswith(_CREATED) and (found := _ID.search(event)):
            self._id = found[0]
        return event.replace(as_stored(self._renamed), self._renamed) if self._renamed else event


async def _read(receive: Receive, send: Send, frames: "asyncio.Queue[str | None]") -> None:
    """Take the client's frames, and None when it has left or broken a rule."""
    try:
        await _take_frames(receive, send, frames)
    finally:
        frames.put_nowait(None)


async def _take_frames(receive: Receive, send: Send, frames: "asyncio.Queue[str | None]") -> None:
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is None:
            await _close(send, _UNSUPPORTED, "expected text frames")
            return
        if frames.qsize() >= MAX_FRAMES_WAITING:
            await _close(send, _TOO_MANY, "too many requests wait")
            return
        frames.put_nowait(text)


def _request_of(text: str) -> bytes:
    """Return the body of the POST request that asks for the same.

    A frame that is too large to be parsed here is cut and pasted: a helper parses it.

    Raises:
        APIError: The frame is none that creates a response.
    """
    body = text.encode()
    if is_light(body):
        return _light_request_of(body)
    body, found = _TYPE.subn(b'"stream":true', body, count=1)
    if not found:
        raise _other_type("another")
    return body.rstrip().removesuffix(b"}") + b',"stream":true}'


def _light_request_of(body: bytes) -> bytes:
    try:
        frame = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise APIError("We could not parse the JSON of your frame.") from None
    kind = frame.get("type") if isinstance(frame, dict) else None
    if kind != CREATE:
        raise _other_type(json.dumps(kind)[:128])
    fields: dict[str, Any] = {name: value for name, value in frame.items() if name != "type"}
    return json.dumps({**fields, "stream": True}).encode()


def _other_type(came: str) -> APIError:
    return APIError(
        f"Invalid 'type': expected '{CREATE}', but got {came} instead.",
        param="type",
        code="invalid_value",
    )


def _posted(scope: Scope) -> Scope:
    """Return the scope of a POST request with the handshake's headers."""
    kept = [(name, value) for name, value in scope["headers"] if name not in _OF_THE_HANDSHAKE]
    return {
        **scope,
        "type": "http",
        "method": "POST",
        "http_version": "1.1",
        "headers": [*kept, (b"content-type", b"application/json")],
    }


def _receiving(body: bytes) -> Receive:
    """Return what gives a request's body; that its client leaves is seen elsewhere."""
    parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if parts:
            return parts.pop()
        never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await never

    return receive


class _Frames:
    """Sends an HTTP answer as frames: each event of a stream, or an error with its status."""

    def __init__(self, send: Send, last: _LatestResponse) -> None:
        self._send = send
        self._last = last
        self._status = 0
        self._is_stream = False
        self._rest = b""

    async def __call__(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            fields = dict(message["headers"])
            self._is_stream = fields.get(b"content-type", b"").startswith(b"text/event-stream")
            return
        self._rest += message.get("body", b"")
        if self._is_stream:
            *events, self._rest = self._rest.split(b"\n\n")
            for event in events:
                await self._send_event(event)
        elif not message.get("more_body", False) and self._rest:
            envelope = from_json(self._rest)
            error = envelope if isinstance(envelope, dict) else {}
            await _send_json(self._send, {"type": "error", "status": self._status, **error})

    async def _send_event(self, event: bytes) -> None:
        for line in event.split(b"\n"):
            if line.startswith(b"data: "):
                text = self._last.restored_in(line.removeprefix(b"data: ").decode())
                await self._send({"type": "websocket.send", "text": text})


async def _close(send: Send, code: int, reason: str) -> None:
    await send({"type": "websocket.close", "code": code, "reason": reason})


async def _send_json(send: Send, value: Mapping[str, Any]) -> None:
    await send({"type": "websocket.send", "text": json.dumps(value, separators=(",", ":"))})


async def refuse_offer(exchange: Exchange) -> Reply:
    """Answer GET /v1/responses where no websocket can be had: clients then POST at once.

    Raises:
        APIError: 426 for the offer of a websocket.
        HTTPException: 405 for anything else.
    """
    if (exchange.header(b"upgrade") or "").lower() != "websocket":
        raise HTTPException(405)
    raise APIError(
        "This server speaks no websocket here. Send POST /v1/responses instead.",
        status=426,
        code="websocket_not_supported",
        headers={"connection": "close"},
    )
