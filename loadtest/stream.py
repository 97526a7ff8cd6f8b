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
from geventhttpclient.response import HTTPParseError, HTTPResponse, HTTPSocketResponse

READ_SIZE = 65536
LOG_INTERVAL_S = 1.0
END_GRACE_S = 0.1  # how long the body's end may come after [DONE]
_READ = 1  # libev's event mask
_QUOTE = ord('"')
_NEVER = b"\xff"  # no event starts with it

# The fields of a delta that carry output, those of vLLM and OpenRouter among them.
_OUTPUT_FIELDS = ("content", "tool_calls", "reasoning_content", "reasoning", "refusal")


class StreamError(Exception):
    """A stream that is not what it should be; the message says what came."""


class ChatStream:
    """The server-sent events of one chat completion, read as they come.

    Decoding the JSON of every event would take most of the time. Between two output events only the
    text differs, so an event that starts like the last decoded one, up to its text, is taken for
    the next output event; any other is decoded, and so are all where they carry a running usage.

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
        self._prefix = _NEVER
        self._last: bytes | bytearray = b""

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
        prefix, length, arrivals_s = self._prefix, len(self._prefix), self.arrivals_s
        if (
            data.startswith(prefix)
            and data.find(b"\n\n") == len(data) - 2
            and data[length] != _QUOTE
            and not self._rest
        ):  # what most reads bring: one event, and one like the last
            arrivals_s.append(now_s)
            self._last = data
            return
        data = self._rest + data
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        events = data.split(b"\n\n")
        self._rest = events.pop()
        for event in events:
            if event.startswith(prefix) and event[length] != _QUOTE:
                arrivals_s.append(now_s)
                self._last = event
            else:
                self._decode(event, now_s)
                prefix, length = self._prefix, len(self._prefix)

    def finish(self, now_s: float) -> None:
        """Take the end of the body.

        Raises:
            StreamError: The stream ended before ``[DONE]``, or its last event holds no chunk.
        """
        if self._rest.strip():
            self._decode(self._rest, now_s)
        if self.done_s is None:
            raise StreamError(f"stream ended without [DONE], after {self.completion_tokens} tokens")
        if self._last and (self.usage_tokens is None or self.finish_reason is None):
            self._read_chunk(_payload(self._last))

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
            self._prefix = _prefix_of(event, field) if self.usage_tokens is None else _NEVER

    def _read_chunk(self, payload: bytes) -> str | None:
        """Note what a chunk says; return the name of the field that carries output, if one does."""
        try:
            return self._note(json.loads(payload))
        except (TypeError, LookupError, AttributeError, ValueError):
            raise StreamError(f"an event is not a chunk: {payload[:80]!r}") from None

    def _note(self, chunk: dict[str, Any]) -> str | None:
        if chunk.get("error") or chunk.get("object") == "error":
            raise StreamError(f"error in mid-stream: {error_message(chunk)}")
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


def error_message(body: dict[str, Any]) -> str:
    """Return the message of an OpenAI error envelope, or of what other servers send instead."""
    error = body.get("error") or body
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or body)


def _payload(event: bytes | bytearray) -> bytes:
    lines = event.split(b"\n")
    return b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))


def _prefix_of(event: bytes, field: str) -> bytes:
    """Return the part of an event before the text of its only string `field`."""
    key = b'"%s":' % field.encode()
    head, found, value = event.partition(key)
    start = value[: len(value) - len(value.lstrip())] + b'"'
    if not found or not value.startswith(start) or key in value or b"\n" in event:
        return _NEVER
    return head + key + start


def read_stream(
    response: HTTPSocketResponse,
    stream: ChatStream,
    idle_timeout_s: float,
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
        StreamError: An event holds an error or no chunk, or the stream ended before ``[DONE]``.
        OSError: The connection broke, or nothing came for `idle_timeout_s` seconds, to the second.
        HTTPParseError: The server's HTTP is malformed, or the connection closed within the body.
    """
    try:
        _Reading(response, stream).run(idle_timeout_s, log)
        stream.finish(time.perf_counter())
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

    def run(self, idle_timeout_s: float, log: Callable[[], None]) -> None:
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
            while not self.done.wait(LOG_INTERVAL_S):
                log()
                if time.perf_counter() - self.last_read_s >= idle_timeout_s:
                    raise TimeoutError(f"nothing came for {idle_timeout_s:g} s")
            self.ended.wait(END_GRACE_S)
        finally:
            self._stop()
        if self.error and self.stream.done_s is None:
            raise self.error

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
            self.feed_parser(data)
            if self.response.message_complete:
                return
            if not data:
                raise HTTPParseError("connection closed within the body")
            if not (self.is_tls and self.sock.pending()):
                return

    def _take_body(self, body: bytes | bytearray) -> None:
        self.feed_stream(body, self.last_read_s)
        if self.stream.done_s is not None:
            self.done.set()
