"""The kinds of failure: what each does to the bytes of a stream or of a whole answer.

Kinds are independent of APIs and of the server. A new kind is one class and one entry in `KINDS`.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from time import monotonic
from typing import ClassVar, Literal, Protocol, TypeAlias

from emulator.timing.clock import sleep_until

EVENT_END = b"\n\n"

# The time between the pieces of a sliced write, unless there are so many that it would add up.
APART_S = 0.0001
MOST_PIECES_APART = 5000

# Where a stream fails: before its first event; in place of a token, after all events before it; in
# place of the event with the token; after the last token.
Where: TypeAlias = Literal["start", "token", "event", "end"]

PLACED = frozenset({"after_tokens", "after_ms"})
TELLING = frozenset({"status", "code", "message", "retry_after_ms"})  # an error


class Wire(Protocol):
    """A connection to a client; methods that end it do not return."""

    slice_bytes: int

    async def write(self, data: bytes) -> None:
        """Send a part of the body in one write."""

    async def close(self) -> None:
        """Send FIN after what was written, without completing the HTTP message."""

    async def reset(self) -> None:
        """Send RST after what was written."""

    async def stay_silent(self) -> None:
        """Keep the connection open until the client leaves or the server's timeout is over."""


class StreamWire(Wire, Protocol):
    """A connection whose stream has reached the place of the failure."""

    async def next_events(self) -> Sequence[bytes]:
        """Take the next events up to one with a token."""

    def rest(self) -> AsyncGenerator[bytes]:
        """Yield the events that were not taken, when they are due."""

    async def end(self) -> bytes:
        """Return the bytes after the last token."""

    async def error_event(self) -> bytes:
        """Return the bytes with the error of the failure's status within a stream."""

    async def failed_event(self) -> bytes:
        """Return the event whose answer says that it failed."""


class WholeWire(Wire, Protocol):
    """A connection whose client waits for a whole answer."""

    content: bytes

    async def begin(self, length: int) -> None:
        """Send the head of an answer with this content length."""

    async def refuse(self) -> None:
        """Answer with the failure's status."""


class Kind:
    """One way to fail.

    ``where`` is where a stream fails; ``ends``: whether it ends then; ``options``: the fields that
    apply; ``needs_connection``: whether it acts on the TCP connection; ``says_failed``: whether it
    needs an API whose answers can say that they failed.
    """

    name: ClassVar[str]
    on_streams: ClassVar[str]
    on_wholes: ClassVar[str]
    where: ClassVar[Where] = "token"
    ends: ClassVar[bool] = True
    options: ClassVar[frozenset[str]] = PLACED
    needs_connection: ClassVar[bool] = False
    says_failed: ClassVar[bool] = False

    def fits(self, *, stream: bool, says_failed: bool) -> bool:  # noqa: ARG002 - most fit all
        """Return whether an answer can fail like this.

        Args:
            stream: Whether it is a stream.
            says_failed: Whether the answers of its API can say that they failed.
        """
        return says_failed or not self.says_failed

    def refuses(self, *, stream: bool) -> bool:  # noqa: ARG002 - most refuse neither
        """Return whether the answer is replaced by an error status, before any token."""
        return False

    async def open(self, wire: Wire, data: bytes) -> None:
        """Send what announces a stream that fails with its first event."""
        await wire.write(data)

    async def stream(self, wire: StreamWire) -> None:
        """Send a stream from the place of the failure on."""
        raise NotImplementedError

    async def whole(self, wire: WholeWire) -> None:
        """Send a whole answer, or its replacement."""
        raise NotImplementedError


class Status(Kind):
    """An error before the answer."""

    name = "status"
    on_streams = on_wholes = "the status, in OpenAI's envelope, in the answer's place"
    options = PLACED | TELLING

    def refuses(self, *, stream: bool) -> bool:  # noqa: ARG002 - streams and whole answers
        """Refuse every answer."""
        return True

    async def whole(self, wire: WholeWire) -> None:
        """Answer with the status."""
        await wire.refuse()


class Error(Kind):
    """An error within the stream."""

    name = "error"
    on_streams = "k tokens, then an event that holds the error; the body ends properly"
    on_wholes = "as `status`"
    options = PLACED | TELLING

    def refuses(self, *, stream: bool) -> bool:
        """Refuse whole answers."""
        return not stream

    async def stream(self, wire: StreamWire) -> None:
        """Send the error as an event."""
        await wire.write(await wire.error_event())

    async def whole(self, wire: WholeWire) -> None:
        """Answer with the status."""
        await wire.refuse()


class Failed(Kind):
    """A success that says that it failed."""

    name = "failed"
    on_streams = "k tokens, then `response.failed`; the body ends properly (Responses alone)"
    on_wholes = "200 and a response with the status `failed` (Responses alone)"
    options = PLACED | TELLING
    says_failed = True

    async def stream(self, wire: StreamWire) -> None:
        """End with the answer that says so."""
        await wire.write(await wire.failed_event())

    async def whole(self, wire: WholeWire) -> None:
        """Send the answer that says so."""
        await wire.begin(len(wire.content))
        await wire.write(wire.content)


class Eof(Kind):
    """An early end that looks like a regular one."""

    name = "eof"
    on_streams = "k tokens, then the body ends properly: no `finish_reason`, no `[DONE]`"
    on_wholes = "200 and half of the JSON, its length truly said"

    async def stream(self, wire: StreamWire) -> None:
        """Send nothing more."""

    async def whole(self, wire: WholeWire) -> None:
        """Send half of the answer as if it were all."""
        half = first_half(wire.content)
        await wire.begin(len(half))
        await wire.write(half)


class NoDone(Kind):
    """A stream without its last event."""

    name = "no-done"
    on_streams = "everything but `[DONE]` (Responses: but `response.completed`)"
    on_wholes = "400: there is none"
    where = "end"
    ends = False
    options = frozenset()

    def fits(self, *, stream: bool, says_failed: bool) -> bool:  # noqa: ARG002
        """Fit streams alone."""
        return stream

    async def stream(self, wire: StreamWire) -> None:
        """Send the end but for its last event."""
        await wire.write(b"".join(split_events(await wire.end())[:-1]))


class Close(Kind):
    """A connection that is closed within the answer."""

    name = "close"
    on_streams = "k tokens and half of the next event, then FIN without the last chunk"
    on_wholes = "FIN in the middle of the promised length"
    needs_connection = True

    async def stream(self, wire: StreamWire) -> None:
        """Send half of the next event and FIN."""
        await wire.write(first_half((await wire.next_events())[0]))
        await wire.close()

    async def whole(self, wire: WholeWire) -> None:
        """Send half of the answer and FIN."""
        await wire.begin(len(wire.content))
        await wire.write(first_half(wire.content))
        await wire.close()


class Reset(Kind):
    """A connection that is reset within the answer."""

    name = "reset"
    on_streams = "k tokens and half of the next event, then RST"
    on_wholes = "RST in the middle of the promised length"
    needs_connection = True

    async def stream(self, wire: StreamWire) -> None:
        """Send half of the next event and RST."""
        await wire.write(first_half((await wire.next_events())[0]))
        await wire.reset()

    async def whole(self, wire: WholeWire) -> None:
        """Send half of the answer and RST."""
        await wire.begin(len(wire.content))
        await wire.write(first_half(wire.content))
        await wire.reset()


class Stall(Kind):
    """A server that hangs."""

    name = "stall"
    on_streams = "k tokens, then silence until the client goes or `timeout_s` is over; then FIN"
    on_wholes = "silence, no header"
    needs_connection = True

    async def stream(self, wire: StreamWire) -> None:
        """Send nothing more, and no end."""
        await wire.stay_silent()

    async def whole(self, wire: WholeWire) -> None:
        """Send nothing."""
        await wire.stay_silent()


class Malformed(Kind):
    """Invalid JSON."""

    name = "malformed"
    on_streams = "event k is broken JSON, the stream goes on"
    on_wholes = "broken JSON, its length truly said"
    where = "event"
    ends = False

    async def stream(self, wire: StreamWire) -> None:
        """Break the next event that holds a token."""
        *lead, event = await wire.next_events()
        await wire.write(b"".join([*lead, broken(event)]))
        async for block in wire.rest():
            await wire.write(block)

    async def whole(self, wire: WholeWire) -> None:
        """Break the answer."""
        await wire.begin(len(wire.content))
        await wire.write(broken(wire.content))


class Empty(Kind):
    """A success without content."""

    name = "empty"
    on_streams = "200 and an empty body, no event"
    on_wholes = "200 and an empty body"
    where = "start"

    async def open(self, wire: Wire, data: bytes) -> None:
        """Send nothing."""

    async def stream(self, wire: StreamWire) -> None:
        """Send nothing."""

    async def whole(self, wire: WholeWire) -> None:
        """Send a head with content length 0."""
        await wire.begin(0)


class Slice(Kind):
    """An answer in pieces that end within events and characters."""

    name = "slice"
    on_streams = "all of it from event k on, in pieces of `X-FAULT-SLICE-BYTES`, each in its write"
    on_wholes = "the same"
    where = "event"
    ends = False
    options = PLACED | {"slice_bytes"}

    async def open(self, wire: Wire, data: bytes) -> None:
        """Send it in pieces too."""
        await self._write(wire, data)

    async def stream(self, wire: StreamWire) -> None:
        """Send the rest in pieces."""
        async for block in wire.rest():
            await self._write(wire, block)

    async def whole(self, wire: WholeWire) -> None:
        """Send the answer in pieces."""
        await wire.begin(len(wire.content))
        await self._write(wire, wire.content)

    async def _write(self, wire: Wire, data: bytes) -> None:
        apart_s = APART_S if len(data) <= MOST_PIECES_APART * wire.slice_bytes else 0
        for piece in pieces(data, wire.slice_bytes):
            await wire.write(piece)
            await sleep_until(monotonic() + apart_s)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        *(Status(), Error(), Failed(), Eof(), NoDone(), Close(), Reset(), Stall(), Malformed()),
        Empty(),
        Slice(),
    )
}


# --------------------------------------------------------------------------------------
# Bytes
# --------------------------------------------------------------------------------------


def split_events(data: bytes) -> list[bytes]:
    r"""Return the events of a part of a stream.

    >>> split_events(b"data: 1\n\ndata: 2\n\n")
    [b'data: 1\n\n', b'data: 2\n\n']
    """
    return [event + EVENT_END for event in data.split(EVENT_END)[:-1]]


def first_half(data: bytes) -> bytes:
    """Return the first half, rounded down, but at least one byte.

    >>> first_half(b"12345")
    b'12'
    """
    return data[: max(len(data) // 2, 1)]


def broken(data: bytes) -> bytes:
    r"""Return JSON, or an event with JSON, with its last brace replaced by a bracket.

    >>> broken(b'data: {"a":{}}\n\n')
    b'data: {"a":{}]\n\n'
    """
    head, _, tail = data.rpartition(b"}")
    return head + b"]" + tail


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """Yield pieces of `size` bytes, and the rest."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
