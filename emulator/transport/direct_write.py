"""Whole answers and parts of streams written to the connection, past uvicorn's `send`."""

import sys
from typing import Any, TypeAlias

from starlette.types import Receive, Send

from emulator.transport.uvicorn_seam import STATUS_LINE, RequestResponseCycle

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]

# No body is as long; uvicorn counts down from what it takes for the length.
MOST_OF_A_BODY = sys.maxsize // 2
_CLOSES = b"connection: close\r\n"
_as_line = b"%b: %b\r\n".__mod__  # a comprehension takes twice as long


class _DefaultLines:
    """uvicorn's own headers as lines; it makes a new list of them each second."""

    def __init__(self) -> None:
        self._headers: RawHeaders = []
        self._lines = b""

    def of(self, headers: RawHeaders) -> bytes:
        """Return the lines of a list."""
        if headers is not self._headers:
            self._lines = b"".join(map(_as_line, headers))
            self._headers = headers
        return self._lines


_DEFAULT_LINES = _DefaultLines()


def split_lines(lines: bytes) -> RawHeaders:
    """Return the headers of ready lines, each of which ends as in HTTP."""
    named = (line.partition(b": ") for line in lines.split(b"\r\n")[:-1])
    return [(name, value) for name, _, value in named]


class DirectCycle(RequestResponseCycle):
    """uvicorn's request and its answer.

    uvicorn validates each header of each answer, and checks its state again for each chunk; we made
    both ourselves. `benchmarks.throughput --measure whole cost` shows what that saves.
    """

    def take_body(self) -> bytes | None:
        """Return the body if all of it has arrived, without waiting; else None."""
        if self.more_body or self.disconnected or self.waiting_for_100_continue:
            return None
        body, self.body = bytes(self.body), bytearray()
        self.message_event.clear()
        return body

    async def send_whole(
        self, status: int, headers: RawHeaders, lines: bytes, body: bytes | memoryview
    ) -> None:
        """Send an answer in one write, when the client has taken what was written before.

        Args:
            status: The HTTP status of an answer with a body.
            headers: They hold nothing that came from a client, for nobody looks at what they say;
                their names are in lower case.
            lines: More of them, ready to be sent, content-length among them.
            body: It is as long as content-length says.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        head = _DEFAULT_LINES.of(self.default_headers)
        if headers:
            head += b"".join(map(_as_line, headers))
        if _CLOSES in head:
            self.keep_alive = False
        elif not self.keep_alive:
            head += _CLOSES
        self.transport.write(b"".join([STATUS_LINE[status], head, lines, b"\r\n", body]))
        self.waiting_for_100_continue = False
        self.response_started = self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def send_part(self, part: bytes) -> bool:
        """Send a part of a body whose length was not told, unless the client is behind.

        It returns whether it did; `send` waits until the client takes it.
        """
        if self.flow.write_paused:
            return False
        if not self.disconnected:
            self.transport.write(b"%x\r\n%b\r\n" % (len(part), part))
        return True


class Http10Cycle(DirectCycle):
    """A request of HTTP/1.0, which knows no chunks: the connection's end ends a stream."""

    async def send(self, message: Any) -> None:  # noqa: ANN401 - uvicorn's own type
        """Send a part of an answer."""
        if message["type"] == "http.response.start":
            lengths = [value for name, value in message["headers"] if name == b"content-length"]
            if not lengths:
                # uvicorn frames a body in chunks unless it knows the length.
                self.chunked_encoding, self.expected_content_length = False, sys.maxsize
        elif self.expected_content_length > MOST_OF_A_BODY and not message.get("more_body", False):
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)

    def send_part(self, part: bytes) -> bool:
        """Send a part of a body as it is, unless the client is behind."""
        if self.flow.write_paused:
            return False
        if not self.disconnected:
            self.transport.write(part)
        return True


def new_cycle(*, scope: Any, **more: Any) -> DirectCycle:  # noqa: ANN401 - uvicorn's own types
    """Return the cycle of a request, as uvicorn makes its own."""
    cls = Http10Cycle if scope["http_version"] == "1.0" else DirectCycle
    return cls(scope=scope, **more)


def direct_cycle(send: Send) -> DirectCycle | None:
    """Return the cycle that `send` belongs to; None if something in between has to see the answer.

    Only `FastPath` hands a `send` on as it is, so that none of these answers is one to HEAD.
    """
    cycle = getattr(send, "__self__", None)
    return cycle if isinstance(cycle, DirectCycle) and not cycle.access_log else None


def arrived_body(receive: Receive) -> bytes | None:
    """Return the body of a request if all of it has arrived; else None, and `receive` tells."""
    cycle = getattr(receive, "__self__", None)
    return cycle.take_body() if isinstance(cycle, DirectCycle) else None
