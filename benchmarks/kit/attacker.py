"""A client that means no good: sends what it is told, reads at most the answer, and is nice'd."""

import json
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from threading import Thread

from tests.support.process import step_back

Address = tuple[str, int]

UNANSWERED = -1
CUT = 0
_PIECE_BYTES = 1 << 18
_KEPT_BYTES = 1 << 16
_POLL_MS = 200
_CONNECT_TIMEOUT_S = 10.0
_NEXT_REQUEST = b"GET /health HTTP/1.1\r\nHost: attacked\r\n\r\n"
_NEXT_TIMEOUT_S = 5.0
_ENVELOPE = {"message", "type", "param", "code"}


@dataclass(frozen=True, slots=True)
class Call:
    """What is sent on one connection.

    Args:
        parts: What is sent, one part after another.
        every_s: How long to wait between two parts.
        leaves_s: When to go away, in seconds after the start, answered or not.
        reads: Whether what comes back is read at all.
    """

    parts: Sequence[bytes]
    every_s: float = 0.0
    leaves_s: float | None = None
    reads: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: a status, `CUT` or `UNANSWERED`, and what is wrong with it, if anything."""

    status: int
    took_s: float
    problem: str = ""


@dataclass(slots=True)
class _Answer:
    """An answer as it arrives: its head, its first and its last bytes, and how much there was."""

    head: bytes = b""
    first: bytes = b""
    last: bytes = b""
    size: int = 0
    fields: dict[str, str] = field(default_factory=dict)

    def feed(self, data: bytes) -> None:
        if not self.fields:
            self.head += data
            head, mark, data = self.head.partition(b"\r\n\r\n")
            if not mark:
                return
            self.head = head
            lines = head.decode("latin-1").lower().split("\r\n")[1:]
            self.fields = {k: v.strip() for k, _, v in (line.partition(":") for line in lines)}
        self.size += len(data)
        self.first = (self.first + data[:_KEPT_BYTES])[:_KEPT_BYTES]
        self.last = (self.last + data[-_KEPT_BYTES:])[-_KEPT_BYTES:]

    @property
    def status(self) -> int:
        return int(self.head[9:12]) if self.fields else CUT

    @property
    def is_complete(self) -> bool:
        if self.fields.get("transfer-encoding") == "chunked":
            return self.last.endswith(b"0\r\n\r\n")
        length = self.fields.get("content-length")
        return length is not None and self.size >= int(length)

    def problem(self) -> str:
        """Tell what is wrong with an answer that is complete."""
        if self.status >= 400:
            return "" if _is_envelope(self.first) else "outside the envelope"
        return "an error in the stream" if b'data: {"error"' in self.last else ""


def _is_envelope(body: bytes) -> bool:
    try:
        return set(json.loads(body)["error"]) == _ENVELOPE
    except (ValueError, TypeError, KeyError):
        return False


def make_call(call: Call, address: Address, patience_s: float) -> Reply:
    """Send a call, and return what came back within `patience_s` seconds."""
    start_s = time.monotonic()
    end_s = start_s + (patience_s if call.leaves_s is None else call.leaves_s)
    answer = _Answer()
    problem = ""
    try:
        with socket.create_connection(address, _CONNECT_TIMEOUT_S) as connection:
            connection.setblocking(False)
            ended = _exchange(connection, call, answer, end_s)
            took_s = time.monotonic() - start_s
            if not ended:
                return Reply(UNANSWERED, took_s)
            if not answer.is_complete:
                return Reply(CUT, took_s, "cut")
            problem = answer.problem()
            if answer.fields.get("connection") != "close" and not problem:
                problem = _next_problem(connection)
    except OSError as error:
        return Reply(CUT, time.monotonic() - start_s, type(error).__name__)
    return Reply(answer.status, took_s, problem)


def _exchange(connection: socket.socket, call: Call, answer: _Answer, end_s: float) -> bool:
    """Send and read at once; return whether the answer, or the connection, is at its end."""
    pending = [memoryview(part) for part in reversed(call.parts)]
    poll = select.poll()
    reading = select.POLLIN if call.reads else 0
    next_s = 0.0
    while (now_s := time.monotonic()) < end_s:
        writing = select.POLLOUT if pending and now_s >= next_s else 0
        poll.register(connection, reading | writing)
        wait_s = min(end_s, next_s if pending and not writing else end_s) - now_s
        [(_, happened)] = poll.poll(min(wait_s * 1000 + 1, _POLL_MS)) or [(0, 0)]
        if happened & (select.POLLIN | select.POLLHUP | select.POLLERR) and call.reads:
            data = connection.recv(_PIECE_BYTES)
            answer.feed(data)
            if not data or answer.is_complete:
                return True
        elif happened & select.POLLOUT:
            sent = _send(connection, pending[-1])
            pending[-1] = pending[-1][sent:]
            if not pending[-1]:
                pending.pop()
                next_s = time.monotonic() + call.every_s
        elif happened:
            return True
    return False


def _send(connection: socket.socket, data: memoryview) -> int:
    """Send what the socket takes; what comes back on a broken one is still to be read."""
    try:
        return connection.send(data[:_PIECE_BYTES])
    except (BrokenPipeError, ConnectionResetError):
        return len(data)


def _next_problem(connection: socket.socket) -> str:
    """Ask once more on a connection that was left open."""
    answer = _Answer()
    try:
        ended = _exchange(
            connection, Call([_NEXT_REQUEST]), answer, time.monotonic() + _NEXT_TIMEOUT_S
        )
    except OSError:
        ended = True
    return "" if ended and answer.status == 200 else "the next request fails"


def make_calls(calls: Sequence[Call], address: Address, patience_s: float) -> list[Reply]:
    """Make all calls at once, each from a thread of its own."""
    replies: list[Reply] = []
    threads = [
        Thread(target=lambda call=call: replies.append(make_call(call, address, patience_s)))
        for call in calls
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies


def attack(
    name: str, address: Address, least_s: float, patience_s: float, pipe: Connection
) -> None:
    """Run an attack over and over for at least so long, and send its replies into the pipe.

    It begins with the first message from the pipe, and ends with a round that has no answer.
    """
    from benchmarks.kit.attacks import ATTACKS  # noqa: PLC0415 - it builds on this module

    step_back()
    calls = ATTACKS[name].calls()
    pipe.send("ready")
    pipe.recv()
    end_s = time.monotonic() + least_s
    replies: list[Reply] = []
    while not replies or (time.monotonic() < end_s and replies[-1].status > 0):
        replies += make_calls(calls, address, ATTACKS[name].lasts_s or patience_s)
    pipe.send(replies)
