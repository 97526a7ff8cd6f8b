"""Reading a streamed chat completion and noting when each token arrived.

`ChatStream` takes bytes and knows nothing of sockets; `read_stream` feeds it from a response.
"""

import json
import ssl
import time
from collections.abc import Callable
from typing import Any

import gevent.socket
import gevent.ssl
from gevent.event import Event
from geventhttpclient.response import (
    HTTPConnectionClosed,
    HTTPParseError,
    HTTPResponse,
    HTTPSocketResponse,
)

from loadtest.failures import StreamError, after, connection_name, error_name

READ_SIZE = 65536
LOG_INTERVAL_S = 1.0
END_GRACE_S = 0.1  # how long the body's end may come after [DONE]
_READ = 1  # libev's event mask
_QUOTE = b'"'
_LINE_END = b"\n"
_END = b"\n\n"  # of an event
_NEVER = b"\xff"  # no event starts with it

# The fields of a delta that carry output, those of vLLM and OpenRouter among them.
_OUTPUT_FIELDS = ("content", "tool_calls", "reasoning_content", "reasoning", "refusal")


class ChatStream:
    """The server-sent events of one chat completion, read as they come.

    Decoding the JSON of every event would take most of the time. Between two output events only the
    text differs, so an event that is the last decoded one but for its text, which holds no quote,
    is taken for the next output event; any other is decoded, and so are all where they carry a
    running usage.

    ``arrivals_s`` holds one instant for each event that carries output, on the caller's clock: that
    of the read that completed it. Events that came in one read share an instant, so that the gaps
    between them are 0: they became visible together, whatever the server did before. Where a server
    puts several tokens in an event, the gaps are those between events; `completion_tokens` is right
    all the same. ``size`` counts bytes.
    """

    def __init__(self) -> None:
        self.arrivals_s: list[float] = []
        self.usage_tokens: int | None = None
        self.finish_reason: str | None = None
        self.called_tools = False
        self.done_s: float | None = None
        self.size = 0
        self._rest = b""
        self._prefix = self._suffix = _NEVER  # what stands before and after an event's text

    @property
    def completion_tokens(self) -> int:
        """Tokens by the server's usage; without one, the events that carried output."""
        return len(self.arrivals_s) if self.usage_tokens is None else self.usage_tokens

    def feed(self, data: bytes | bytearray, now_s: float) -> None:
        """Take what one read returned.

        Raises:
            StreamError: An event holds an error, or no chunk.
        """
        self.size += len(data)
        if not self._rest and self._is_output(data, self._suffix + _END):
            self.arrivals_s.append(now_s)  # what most reads bring: one event, and one like the last
            return
        data = self._rest + data
        if b"\r" in data:
            data = data.replace(b"\r\n", _LINE_END)
        events = data.split(_END)
        self._rest = events.pop()
        for event in events:
            if self._is_output(event, self._suffix):
                self.arrivals_s.append(now_s)
            else:
                self._decode(event, now_s)

    def _is_output(self, event: bytes | bytearray, suffix: bytes) -> bool:
        """Return whether an event is the last decoded one but for its text, if there is some."""
        start = len(self._prefix)
        return (
            event.startswith(self._prefix)
            and event.endswith(suffix)
            and start < event.find(_QUOTE, start) == len(event) - len(suffix)
        )

    def finish(self, now_s: float) -> None:
        """Take the end of the body.

        Raises:
            StreamError: The stream ended before ``[DONE]``, or its last event holds no chunk, or
                there was nothing at all.
        """
        if not self.size:
            raise StreamError("empty body")
        if self._rest.strip():
            self._decode(self._rest, now_s)
        if self.done_s is None and self.finish_reason is None:
            raise StreamError(f"no finish_reason, no [DONE]: ended {after(self.completion_tokens)}")
        if self.done_s is None:
            raise StreamError("no [DONE]")

    def _decode(self, event: bytes, now_s: float) -> None:
        payload = _payload(event)
        if payload == b"[DONE]":
            self.done_s = now_s
            return
        if not payload:  # a comment that keeps the connection alive
            return
        field = self._read_chunk(payload)
        if field:
            self.arrivals_s.append(now_s)
            has_usage = self.usage_tokens is not None
            self._prefix, self._suffix = (_NEVER, _NEVER) if has_usage else _frame(event, field)

    def _read_chunk(self, payload: bytes) -> str | None:
        """Note what a chunk says; return the name of the field that carries output, if one does."""
        try:
            chunk = json.loads(payload)
        except ValueError:
            raise StreamError(f"broken JSON {after(self.completion_tokens)}") from None
        try:
            return self._note(chunk)
        except (TypeError, LookupError, AttributeError):
            raise StreamError(f"an event is not a chunk: {payload[:80]!r}") from None

    def _note(self, chunk: dict[str, Any]) -> str | None:
        if chunk.get("error") or chunk.get("object") == "error":
            raise StreamError(f"error event: {error_name(chunk)}")
        tokens = usage_tokens(chunk)
        self.usage_tokens = self.usage_tokens if tokens is None else tokens
        output = None
        for choice in chunk.get("choices") or ():
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            delta = choice.get("delta") or {}
            self.called_tools = self.called_tools or bool(delta.get("tool_calls"))
            output = output or next((name for name in _OUTPUT_FIELDS if delta.get(name)), None)
        return output


def usage_tokens(body: dict[str, Any]) -> int | None:
    """Return the completion tokens by the usage of a chunk or an answer, None if it has no number.

    >>> usage_tokens({"usage": {"completion_tokens": 5}}), usage_tokens({"usage": None})
    (5, None)
    """
    usage = body.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) else None


def _payload(event: bytes | bytearray) -> bytes:
    lines = event.split(b"\n")
    return b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))


def _frame(event: bytes, field: str) -> tuple[bytes, bytes]:
    """Return what stands before and after the text of an event's only string `field`."""
    key = b'"%s":' % field.encode()
    head, found, value = event.partition(key)
    opening = value[: len(value) - len(value.lstrip())] + _QUOTE
    if not found or not value.startswith(opening) or key in value or b"\n" in event:
        return _NEVER, _NEVER
    text, _, _ = value[len(opening) :].partition(_QUOTE)
    if text.endswith(b"\\"):  # the quote may be one of the text
        return _NEVER, _NEVER
    return head + key + opening, value[len(opening) + len(text) :]


def read_stream(
    response: HTTPSocketResponse,
    stream: ChatStream,
    silence_s: float,
    log: Callable[[], None],
) -> None:
    """Feed `stream` from a response whose headers have been read, until ``[DONE]``.

    The body may end a little later. If it does not, the connection is not used again. `log` is
    called every second while the stream is open, and at its end, however that comes.

    The event loop itself reads the socket and takes the time, on ``time.perf_counter()``; this
    greenlet sleeps until the body has ended. A blocking read for each token would cost a failed
    read, two switches of greenlet and the re-arming of a watcher, and would take the time only once
    the greenlet's turn had come.

    Raises:
        StreamError: An event holds an error or no chunk, the stream ended before ``[DONE]``, the
            connection broke, nothing came for `silence_s` seconds, or the server's HTTP is
            malformed.
    """
    try:
        _Reading(response, stream).run(silence_s, log)
        stream.finish(time.perf_counter())
    except (OSError, HTTPParseError) as error:
        where = after(stream.completion_tokens)
        raise StreamError(connection_name(error, where, silence_s)) from error
    finally:
        response.release()
        log()


class _Reading:
    """One response's body on its way from the socket through the HTTP parser to a `ChatStream`.

    geventhttpclient reads until it has as many bytes as asked, which would hold tokens back, so
    that its parser is fed here. The parser returns the socket to the pool with the body's end.
    """

    def __init__(self, response: HTTPSocketResponse, stream: ChatStream) -> None:
        self.response = response
        self.stream = stream
        self.feed_stream = stream.feed
        self.feed_parser = super(HTTPResponse, response).feed  # the layer between is for HEAD
        self.done = Event()  # [DONE] has come, or the body has ended
        self.ended = Event()
        self.error: Exception | None = None
        self.last_read_s = time.perf_counter()

    def run(self, silence_s: float, log: Callable[[], None]) -> None:
        """Read until ``[DONE]``, and the body's end if it follows at once."""
        response, sock = self.response, self.response._sock
        came_with_headers = bytes(response._body_buffer)
        response._body_buffer.clear()
        response._on_body = self._take_body  # type: ignore[method-assign,assignment]
        self._take_body(came_with_headers)
        if sock is None:
            return
        self.sock, self.timeout_s = sock, sock.gettimeout()
        self.is_tls = isinstance(sock, gevent.ssl.SSLSocket)
        self.watcher = gevent.get_hub().loop.io(sock.fileno(), _READ)
        sock.settimeout(0.0)
        try:
            self.watcher.start(self._read)
            self._read()  # TLS may hold bytes that came with the headers
            while not self.done.wait(min(LOG_INTERVAL_S, self._silence_left_s(silence_s))):
                log()
                if self._silence_left_s(silence_s) <= 0:
                    raise TimeoutError
            self.ended.wait(END_GRACE_S)
        finally:
            self._stop()
        if self.error and self.stream.done_s is None:
            raise self.error

    def _silence_left_s(self, silence_s: float) -> float:
        return max(0.0, self.last_read_s + silence_s - time.perf_counter())

    def _stop(self) -> None:
        """Leave the socket as it was found."""
        if not self.ended.is_set():
            self.done.set()
            self.ended.set()
            self.watcher.stop()
            self.watcher.close()
            if self.sock.fileno() >= 0:
                self.sock.settimeout(self.timeout_s)

    def _read(self) -> None:
        """Read what is there; `run` raises what goes wrong, as the event loop would swallow it.

        With the last byte the socket is back in the pool, where another greenlet may take it, so
        that it is left at once.
        """
        try:
            self._read_available()
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except Exception as error:  # noqa: BLE001 - kept for run
            self.error = error
        if self.error or self.response.message_complete:
            self._stop()

    def _read_available(self) -> None:
        """Read once, and again as long as TLS holds bytes that no watcher can see."""
        while True:
            data = self.sock.recv(READ_SIZE)
            self.last_read_s = time.perf_counter()
            try:
                self.feed_parser(data)
            except HTTPParseError:
                if data:
                    raise
            if self.response.message_complete:
                return
            if not data:
                raise HTTPConnectionClosed
            if not (self.is_tls and self.sock.pending()):
                return

    def _take_body(self, body: bytes | bytearray) -> None:
        self.feed_stream(body, self.last_read_s)
        if self.stream.done_s is not None:
            self.done.set()
