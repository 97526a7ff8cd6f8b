"""A load client on raw sockets and one poll: many streams at once, and when each token arrived.

It parses no more than it counts, so that one process takes 1,000,000 tokens/s. On Linux the arrival
of a token is the kernel's receive time stamp of its packet (SO_TIMESTAMPNS), so that neither the
client's own scheduling nor its parsing is in the figures; `StreamResult.behind_ns` tells how much
later the client itself saw each packet. Elsewhere the arrival is when the client read the token.
"""

import gc
import json
import math
import random
import selectors
import socket
import struct
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter

from benchmarks.kit.server import Server

# asm-generic/socket.h: SO_TIMESTAMPNS; its control message holds a struct timespec.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
KERNEL_STAMPS = sys.platform == "linux"
_CONTROL_BYTES = socket.CMSG_SPACE(_TIMESPEC.size) if KERNEL_STAMPS else 0
_READ_BYTES = 1 << 18
SETTLE_S = 0.5  # the server accepts the connections, before any request's time runs
_EMPTY_CONTENT = (b'"content":""', b'"content": ""', b'"content":null', b'"content": null')
_ITEMS_CONTENT = b'"content":['  # of a response's items: what their deltas have said
_DELTA = b"event: response.output_text.delta\n"
_ENDS = (b"data: [DONE]", b"event: response.completed\n")

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Chat:
    """The request that the client sends; with `as_response` to the Responses API.

    With `as_json` the answer is an object, which a helper makes.
    """

    stream: bool
    ttft_ms: float
    itl_ms: float
    tokens: int
    as_response: bool = False
    as_json: bool = False

    def encode(self, host: str) -> bytes:
        """Return the HTTP request."""
        content = "Say something in JSON." if self.as_json else "Say something."
        messages = [{"role": "user", "content": content}]
        path, field = (
            ("responses", "input") if self.as_response else ("chat/completions", "messages")
        )
        wanted = {"response_format": {"type": "json_object"}} if self.as_json else {}
        body = json.dumps({"model": "gpt-4o", field: messages, "stream": self.stream, **wanted})
        return (
            f"POST /v1/{path} HTTP/1.1\r\nHost: {host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"X-TTFT-MS: {self.ttft_ms:.3f}\r\nX-ITL-MS: {self.itl_ms:g}\r\n"
            f"X-OUTPUT-LENGTH: {self.tokens}\r\n\r\n{body}"
        ).encode()


@dataclass(slots=True)
class StreamResult:
    """One stream: when the request left and each token arrived, ns on CLOCK_REALTIME."""

    sent_ns: int = 0
    arrived_ns: "array[int]" = field(default_factory=lambda: array("q"))
    behind_ns: "array[int]" = field(default_factory=lambda: array("q"))
    complete: bool = False


class ServerError(Exception):
    """The server did not answer with 200."""


def count_tokens(events: bytes) -> int:
    """Return how many events have content, or are a response's deltas: each is one token."""
    contents = events.count(b'"content":') - sum(map(events.count, _EMPTY_CONTENT))
    return contents - events.count(_ITEMS_CONTENT) + events.count(_DELTA)


class Stream:
    """One socket whose answer is read as a stream of events."""

    def __init__(self, address: Address) -> None:
        self.socket = connect(address)
        if KERNEL_STAMPS:
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.result = StreamResult()
        self._rest = b""

    def send(self, request: bytes) -> None:
        """Send the request, and note when."""
        self.result.sent_ns = time.time_ns()
        self.socket.sendall(request)

    def read(self) -> bool:
        """Read what has arrived; return whether the stream goes on."""
        data, control, _, _ = self.socket.recvmsg(_READ_BYTES, _CONTROL_BYTES)
        read_ns = arrived_ns = time.time_ns()
        if control:
            seconds, rest_ns = _TIMESPEC.unpack(control[0][2])
            arrived_ns = seconds * 1_000_000_000 + rest_ns
        if not data:
            return False
        data = self._rest + data
        end = data.rfind(b"\n\n") + 2
        if end < 2:
            check_status(data)
            self._rest = data
            return True
        events, self._rest = data[:end], data[end:]
        tokens = count_tokens(events)
        if tokens:
            self.result.behind_ns.append(read_ns - arrived_ns)
            self.result.arrived_ns.extend([arrived_ns] * tokens)
        self.result.complete = any(end in events for end in _ENDS)
        return not self.result.complete


def connect(address: Address) -> socket.socket:
    """Return a connection that sends small requests at once and never blocks on reading."""
    connection = socket.create_connection(address, timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setblocking(False)
    return connection


def check_status(head: bytes) -> None:
    """Raise ServerError if the answer has begun and is not a 200."""
    if len(head) > 12 and head[9:12] != b"200":
        raise ServerError(head[:500].decode(errors="replace"))


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep the collector from stalling the client; what it measures has no cycles."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def run_streams(
    address: Address,
    chat: Chat,
    streams: int,
    within_s: float,
    timeout_s: float,
    actions: Sequence[tuple[float, Callable[[], object]]] = (),
    *,
    together: bool = False,
) -> list[StreamResult]:
    """Run streams that start at random within `within_s` seconds, all at once if it is 0.

    Args:
        address: The server's.
        chat: What each stream asks for.
        streams: How many there are.
        within_s: All requests leave within this time.
        timeout_s: When to give up; what is not complete then stays so.
        actions: What else to do, and how many seconds after the start, while streams run.
        together: Ask each stream for a TTFT that much shorter as it starts later, so that the
            tokens of all streams are due at the same instants.
    """
    waiting = [Stream(address) for _ in range(streams)]
    results = [stream.result for stream in waiting]
    time.sleep(SETTLE_S)
    with no_garbage_collection(), selectors.DefaultSelector() as selector:
        for stream in waiting:
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        sends = [(random.random() * within_s, stream) for stream in waiting]
        agenda_of_sends: list[tuple[float, Callable[[], object]]] = [
            (
                at_s,
                partial(
                    stream.send,
                    replace(chat, ttft_ms=chat.ttft_ms - at_s * 1000 * together).encode(address[0]),
                ),
            )
            for at_s, stream in sends
        ]
        agenda = sorted([*agenda_of_sends, *actions], key=itemgetter(0), reverse=True)
        left, start_s, now_s = streams, time.monotonic(), 0.0
        while left and now_s < timeout_s:
            while agenda and agenda[-1][0] <= now_s:
                agenda.pop()[1]()
            for key, _ in selector.select(agenda[-1][0] - now_s if agenda else 1):
                if not key.data.read():
                    selector.unregister(key.fileobj)
                    key.data.socket.close()
                    left -= 1
            now_s = time.monotonic() - start_s
        for key in list(selector.get_map().values()):
            key.data.socket.close()
    return results


@contextmanager
def open_streams(address: Address, chat: Chat, streams: int) -> Iterator[Sequence[Stream]]:
    """Hold `streams` requests open, unread; close them at the end."""
    request = chat.encode(address[0])
    opened = []
    try:
        for _ in range(streams):
            stream = Stream(address)
            opened.append(stream)
            stream.send(request)
            time.sleep(0.001)
        yield opened
    finally:
        for stream in opened:
            stream.socket.close()


class Connection:
    """One kept-alive socket that sends its next request when it has the answer to the last."""

    def __init__(self, address: Address, request: bytes, stream: bool) -> None:
        self.socket = connect(address)
        self.answers = 0
        self.tokens = 0
        self._request = request
        self._stream = stream
        self._data = b""
        self._due = -1

    def send(self) -> None:
        """Send the request."""
        self._data, self._due = b"", -1
        self.socket.sendall(self._request)

    def read(self) -> None:
        """Read what has arrived; if the answer is complete, ask again."""
        if self._read_stream() if self._stream else self._read_whole():
            self.answers += 1
            self.send()

    def _read_stream(self) -> bool:
        data = self._data + self.socket.recv(_READ_BYTES)
        end = data.rfind(b"\n\n") + 2
        if end < 2:
            check_status(data)
            end = 0
        self.tokens += count_tokens(data[:end])
        self._data = data[end:]
        return data.endswith(b"\r\n0\r\n\r\n")

    def _read_whole(self) -> bool:
        self._data += self.socket.recv(_READ_BYTES)
        if self._due < 0 and (end := self._data.find(b"\r\n\r\n")) > 0:
            check_status(self._data)
            head = self._data[:end].lower()
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._due = end + 4 + int(length)
        return len(self._data) == self._due


@dataclass(frozen=True, slots=True)
class Rate:
    """What a closed loop got: answers/s and tokens/s, and the server's CPU time for each answer."""

    answers_per_s: float
    tokens_per_s: float
    cpu_us_per_answer: float


def closed_loop(server: Server, chat: Chat, connections: int, duration_s: float) -> Rate:
    """Keep one request in flight on each of some connections, and return the rates.

    The first fifth of the time is for warming up and does not count.
    """
    request = chat.encode(server.host)
    opened = [Connection(server.address, request, chat.stream) for _ in range(connections)]
    with no_garbage_collection(), selectors.DefaultSelector() as selector:
        for connection in opened:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send()

        def run(seconds: float) -> tuple[float, float, int, int]:
            start_s = now_s = time.monotonic()
            while now_s < start_s + seconds:
                for key, _ in selector.select(1):
                    key.data.read()
                now_s = time.monotonic()
            answers, tokens = sum(c.answers for c in opened), sum(c.tokens for c in opened)
            return now_s, server.cpu().sum_s, answers, tokens

        before, after = run(duration_s / 5), run(duration_s)
    for connection in opened:
        connection.socket.close()
    elapsed_s, cpu_s, answers, tokens = (b - a for a, b in zip(before, after, strict=True))
    cpu_us = cpu_s / answers * 1e6 if answers else math.nan
    return Rate(answers / elapsed_s, tokens / elapsed_s, cpu_us)
