"""Streams tokens at their due times: epoll, a timerfd and a heap, in Python and nothing else.

It stands in for timerfd_server.c where there is no C compiler: what it is late, the machine is, or
Python. ``python -m benchmarks.kit.timerfd_server PORT``, on Linux.
"""

import ctypes
import os
import re
import select
import socket
import struct
import sys
from dataclasses import dataclass
from heapq import heappop, heappush
from time import CLOCK_MONOTONIC, monotonic_ns

from benchmarks.kit.bare_app import END, ROLE, TOKEN, response_head

_TFD_TIMER_ABSTIME = 1
_ITIMERSPEC = struct.Struct("@llll")
_HEADER = re.compile(rb"\r\n(x-ttft-ms|x-itl-ms|x-output-length|content-length): ([\d.e+-]+)")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class Asking:
    """A connection whose request is not whole yet."""

    connection: socket.socket
    request: bytes = b""


@dataclass(slots=True)
class Stream:
    """What one connection asked for, and how far it is."""

    connection: socket.socket
    itl_ns: int
    tokens_left: int
    lead: bytes = ROLE

    def step(self) -> bool:
        """Send the next token, and the end after the last; return whether more follow."""
        self.tokens_left -= 1
        body = self.lead + TOKEN if self.tokens_left else self.lead + TOKEN + END
        last = b"" if self.tokens_left else b"0\r\n\r\n"
        self.lead = b""
        try:
            self.connection.send(b"%x\r\n%s\r\n%s" % (len(body), body, last))
        except OSError:
            self.tokens_left = 0  # it was closed, or is not read
        if not self.tokens_left:
            self.connection.close()
        return self.tokens_left > 0


class TimerServer:
    """A listener, a timer and the heap of streams by their next due time."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._timer = _libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK)
        self._asking: dict[int, Asking] = {}
        self._streams: list[tuple[int, int, Stream]] = []
        self._poller = select.epoll()
        self._poller.register(self._listener, select.EPOLLIN)
        self._poller.register(self._timer, select.EPOLLIN)

    def run(self) -> None:
        """Serve until the process ends."""
        while True:
            self._set_timer(self._streams[0][0] if self._streams else 0)
            ready = self._poller.poll()
            now_ns = monotonic_ns()
            while self._streams and self._streams[0][0] <= now_ns:
                due_ns, key, stream = heappop(self._streams)
                if stream.step():
                    heappush(self._streams, (due_ns + stream.itl_ns, key, stream))
            for file, _ in ready:
                if file == self._listener.fileno():
                    self._accept()
                elif file in self._asking:
                    self._read(file, monotonic_ns())

    def _set_timer(self, due_ns: int) -> None:
        """Wake the poller at `due_ns`, never if it is 0; this also clears the last expiry."""
        value = _ITIMERSPEC.pack(0, 0, *divmod(due_ns, 1_000_000_000))
        if _libc.timerfd_settime(self._timer, _TFD_TIMER_ABSTIME, value, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._asking[connection.fileno()] = Asking(connection)
        self._poller.register(connection, select.EPOLLIN)

    def _read(self, file: int, now_ns: int) -> None:
        """Read what has come of a request; begin the answer of a whole one."""
        asking = self._asking[file]
        more = asking.connection.recv(4096).lower()
        asking.request += more
        head, end, body = asking.request.partition(b"\r\n\r\n")
        values = {name: float(value) for name, value in _HEADER.findall(head)}
        if more and (not end or len(body) < values.get(b"content-length", 0)):
            return
        self._poller.unregister(file)
        del self._asking[file]
        if not head.startswith(b"post "):
            asking.connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            asking.connection.close()
            return
        asking.connection.send(response_head())
        itl_ns, tokens = int(values[b"x-itl-ms"] * 1e6), int(values[b"x-output-length"])
        stream = Stream(asking.connection, itl_ns, tokens)
        heappush(self._streams, (now_ns + int(values[b"x-ttft-ms"] * 1e6), file, stream))


if __name__ == "__main__":
    TimerServer(int(sys.argv[1])).run()
