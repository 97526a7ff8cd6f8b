"""What a connection may ask of the server before a request is one: sizes, times, and how many wait.

uvicorn's own bounds are those of its other parser: with httptools it has none.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Container
from typing import NoReturn

import httptools
from starlette.types import ASGIApp

from emulator import metrics
from emulator.contract.errors import APIError, ErrorEnvelope
from emulator.metrics import TALLY
from emulator.timing.clock import running_clock
from emulator.timing.deadlines import Deadlines
from emulator.transport.direct_write import new_cycle
from emulator.transport.uvicorn_seam import STATUS_LINE, HttpToolsProtocol, install

MAX_URL_BYTES = 8_192
MAX_HEADER_BYTES = 16_384  # of one header's value
MAX_HEADERS_BYTES = 65_536  # of all names and values; of what comes between parts of a body too
MAX_WAITING = 16  # requests that wait on a connection for the answer to the one before
HEADERS_TIMEOUT_S = 10.0

# A head, or a body in chunks, is fed to the parser in slices, and with more headers or chunks than
# these in turn with the streams: a chunk of a byte takes 3 us.
SLICE_BYTES = 4096
MAX_PARTS_AT_ONCE = 256

# Where there are more connections than these, those that clients close are closed in turn with the
# streams: each takes 40 us, and a crowd may leave at once.
MAX_CLOSED_AT_ONCE = 64

# After a refusal, what the client still sends is thrown away for so long: if the connection were
# closed at once, it would be reset, and the client would lose the answer.
LINGER_S = 1.0

_FRAMING = (b"content-length", b"transfer-encoding")

logger = logging.getLogger("bentoml.openai_emulator")


class _Nowhere(list[tuple[bytes, bytes]]):
    """Takes a body's trailers, which are no headers, and keeps none."""

    def append(self, _: tuple[bytes, bytes], /) -> None:
        """Forget a trailer."""


_NOWHERE = _Nowhere()


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's connection with bounds, each with an answer in OpenAI's envelope.

    Offers to change to another protocol are ignored, as a server may (RFC 9110, 7.8), but for those
    of a websocket where there is one. Java's HttpClient makes one on every plain connection.
    """

    over: Callable[[ASGIApp], ASGIApp]
    sockets: Container[str] = ()
    _takes_socket = False
    _refusal: APIError | None = None  # where there is one nothing more is read
    _head_is_done = False
    _has_large_part = False
    _is_resuming = False
    _unproductive = 0  # bytes since the last that were headers or body
    _chunks = 0  # since the loop had its turn
    _rest = b""  # what has come, and waits for its turn

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to serve a client."""
        super().connection_made(transport)
        self.app = self.over(self.app)
        # What the system does not take at once has to wait; nothing is put off to a later write.
        transport.set_write_buffer_limits(high=0)
        # uvicorn asks whether its log has handlers, and makes lines of a level that none takes.
        self.access_log = self.access_logger.isEnabledFor(logging.INFO)

    # ----------------------------------------------------------------------------------
    # Bytes
    # ----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take the next part of what the client sends."""
        if self._refusal is not None:
            return
        if self._rest:
            self._rest += data
            return
        self._unset_keepalive_if_required()
        size = len(data)
        if size > MAX_HEADER_BYTES:
            self._has_large_part = True
        if size > SLICE_BYTES:
            self._feed_slices(data)
        else:
            self._unproductive += size
            self._feed(data)
        if not self._takes_socket:  # else another protocol has the connection
            self._look_at_what_came()

    def _look_at_what_came(self) -> None:
        """Watch over a head that is not complete, or over a connection that has nothing to do."""
        if not self._head_is_done:
            if self._unproductive > MAX_HEADERS_BYTES:
                self._refuse(self._too_large())
            elif self not in _HEADS and self._refusal is None:
                _HEADS.add(self)
            return
        self._has_large_part = False
        if self._unproductive > MAX_HEADERS_BYTES:
            self._refuse(_headers_too_large("a body's trailers and extensions"))
        elif self.timeout_keep_alive_task is None and self.cycle.response_complete:
            self._wait_for_next()

    def _feed_slices(self, data: bytes) -> None:
        """Feed the parser; if it finds many parts, the rest is fed in turn with the streams."""
        view, at = memoryview(data), 0
        self._chunks = 0
        known = len(self.headers or ())
        while at < len(view) and self._refusal is None and self._unproductive <= MAX_HEADERS_BYTES:
            is_whole = self._head_is_done and not self._is_in_chunks()
            piece = view[at:] if is_whole else view[at : at + SLICE_BYTES]
            at += len(piece)
            self._unproductive += len(piece)
            self._feed(piece)
            parts = self._chunks + len(self.headers or ()) - known
            if parts > MAX_PARTS_AT_ONCE and at < len(view):
                self._rest = bytes(view[at:])
                self.transport.pause_reading()
                running_clock().wake_in_turn([_Turn(self, self.take_rest)])
                return

    def _is_in_chunks(self) -> bool:
        return any(name == b"transfer-encoding" for name, _ in self.scope["headers"])

    def take_rest(self) -> None:
        """Go on with what waited for its turn."""
        rest, self._rest = self._rest, b""
        if self.transport.is_closing():
            return
        self.data_received(rest)
        if not self._rest and not self.flow.read_paused:
            self.transport.resume_reading()

    def _feed(self, data: bytes | memoryview) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            if self._takes_socket:
                self.handle_websocket_upgrade()
            else:
                self._ignore_offer(data[offer.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, APIError) else _malformed())

    def _ignore_offer(self, rest: bytes | memoryview) -> None:
        """Read on where the parser has stopped, which takes the body for another protocol."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        framing = [
            b"%b: %b\r\n" % (name, value)
            for name, value in self.scope["headers"]
            if name in _FRAMING
        ]
        if framing:
            self.cycle.more_body = True
            self.cycle.message_event.clear()
            self._is_resuming = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))
            self._is_resuming = False
        if rest:
            self._feed(rest)

    def _should_upgrade(self) -> bool:
        return self._takes_socket

    def _is_offer_of_socket(self) -> bool:
        path = self.url.partition(b"?")[0].decode("latin-1")
        return path in self.sockets and super()._should_upgrade()

    def _wait_for_next(self) -> None:
        """Close the connection in a while, as after an answer: what came was no request."""
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    # ----------------------------------------------------------------------------------
    # What the parser finds
    # ----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self._is_resuming:
            return
        self._head_is_done = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin to answer.

        Raises:
            APIError: The request is beyond a bound.
        """
        if self._is_resuming:
            return
        self._head_is_done = True
        if len(self.url) > MAX_URL_BYTES:
            raise _url_too_long(len(self.url))
        if self._has_large_part or self._unproductive > MAX_HEADER_BYTES:
            _check_sizes(self.headers)
        if len(self.pipeline) >= MAX_WAITING:
            raise _too_many_waiting()
        self._unproductive = 0
        _HEADS.discard(self)
        if self.parser.should_upgrade():
            self._takes_socket = self._is_offer_of_socket()
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before and not self.parser.should_keep_alive():
            self.cycle.keep_alive = False  # uvicorn before 0.53 finds it out when it answers
        self.headers = _NOWHERE

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._unproductive = 0
        self._chunks += 1
        super().on_body(body)

    # ----------------------------------------------------------------------------------
    # Ends
    # ----------------------------------------------------------------------------------

    def end_late_headers(self) -> None:
        """Refuse a request whose headers have not arrived in time.

        While an answer is under way, what follows may wait for the server, not for the client.
        """
        if self.cycle is not None and not self.cycle.response_complete:
            _HEADS.add(self)
        else:
            self._refuse(_headers_too_late())

    def on_response_complete(self) -> None:
        """Go on to the next request, or to the refusal of what was wrong with it."""
        if self._refusal is None or self.pipeline:
            super().on_response_complete()
            if not self._head_is_done:  # the next has begun, and has a time of its own
                self._unset_keepalive_if_required()
        elif not self.transport.is_closing():
            self._send_refusal(self._refusal)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Close the connection, as the client has; return whether that has to wait for its turn."""
        if len(self.connections) <= MAX_CLOSED_AT_ONCE:
            return False
        running_clock().wake_in_turn([_Turn(self, self.transport.close)])
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the client is gone."""
        _HEADS.discard(self)
        super().connection_lost(exc)

    def _refuse(self, refusal: APIError) -> None:
        """Answer with an error when all that came before is answered, and close the connection."""
        if self._refusal is not None:
            return
        self._refusal = refusal
        _HEADS.discard(self)
        cycle = self.cycle
        if self.pipeline and cycle.more_body:  # its body broke off
            self.pipeline.popleft()
        elif cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                return
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
                return
        if not self.pipeline and (cycle is None or cycle.response_complete or cycle.disconnected):
            self._send_refusal(refusal)

    def _send_refusal(self, refusal: APIError) -> None:
        code = refusal.body.code or refusal.body.type
        TALLY.add(metrics.ERRORS.labels(refusal.status, code))
        logger.info("connection status=%d error=%s", refusal.status, code)
        self.transport.write(self._rendered(refusal))
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(LINGER_S, self.transport.abort)
        else:
            self.transport.close()

    def _rendered(self, refusal: APIError) -> bytes:
        body = ErrorEnvelope(error=refusal.body).model_dump_json().encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", b"req_%032x" % random.getrandbits(128)),
            (b"connection", b"close"),
        ]
        lines = [b"%b: %b\r\n" % header for header in headers]
        return b"".join([STATUS_LINE[refusal.status], *lines, b"\r\n", body])

    def _too_large(self) -> APIError:
        if len(self.url) > MAX_URL_BYTES:
            return _url_too_long(len(self.url))
        return _headers_too_large("a request's headers")


# Headers that came in parts, and are not complete yet; others cost nothing.
_HEADS = Deadlines(HEADERS_TIMEOUT_S, BoundedProtocol.end_late_headers)


class _Turn:
    """Lets a connection do something when it is its turn.

    Args:
        connection: It is left alone if it is gone by then.
        act: What it is to do.
    """

    def __init__(self, connection: BoundedProtocol, act: Callable[[], None]) -> None:
        self._connection = connection
        self._act = act

    def done(self) -> bool:
        """Return whether the connection is gone."""
        return self._connection.transport.is_closing()

    def set_result(self, _: None, /) -> None:
        """Let it go on."""
        self._act()

    def set_exception(self, _: Exception, /) -> None:
        """Close it."""
        self._connection.transport.close()


def bound_connections(over: Callable[[ASGIApp], ASGIApp], sockets: Container[str]) -> None:
    """Make the server that is about to start use `BoundedProtocol` and `DirectCycle`.

    Args:
        over: Returns the application to call in place of the server's own.
        sockets: The paths at which offers of websockets are taken.
    """
    BoundedProtocol.sockets = sockets
    BoundedProtocol.over = staticmethod(over)
    install(BoundedProtocol, new_cycle)


def _check_sizes(headers: list[tuple[bytes, bytes]]) -> None:
    total = 0
    for name, value in headers:
        total += len(name) + len(value)
        if len(value) > MAX_HEADER_BYTES:
            _refuse_header(name, len(value))
    if total > MAX_HEADERS_BYTES:
        raise _headers_too_large("a request's headers")


def _refuse_header(name: bytes, size: int) -> NoReturn:
    shown = name[:64].decode("latin-1")
    raise APIError(
        f"The header '{shown}' is too large. Expected at most {MAX_HEADER_BYTES} bytes, "
        f"but got {size}.",
        param=shown,
        code="headers_too_large",
        status=431,
    )


def _headers_too_large(what: str) -> APIError:
    return APIError(
        f"Too many bytes of headers. Expected at most {MAX_HEADERS_BYTES} bytes for {what}, "
        "but got more.",
        code="headers_too_large",
        status=431,
    )


def _url_too_long(size: int) -> APIError:
    return APIError(
        f"The URL is too long. Expected at most {MAX_URL_BYTES} bytes, but got {size} or more.",
        code="url_too_long",
        status=414,
    )


def _headers_too_late() -> APIError:
    return APIError(
        f"The request's headers did not arrive within {HEADERS_TIMEOUT_S:g} s.",
        code="request_timeout",
        status=408,
    )


def _too_many_waiting() -> APIError:
    return APIError(
        f"Too many requests wait on this connection. Expected at most {MAX_WAITING} that are sent "
        "before the answer to the one before them.",
        code="too_many_waiting_requests",
    )


def _malformed() -> APIError:
    return APIError("We could not parse your HTTP request.", code="malformed_request")
