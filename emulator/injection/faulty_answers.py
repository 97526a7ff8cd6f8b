"""Answers that fail: where on the clock that happens, and the wire that the kinds write to."""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from emulator.answers.answer import Answer
from emulator.contract.errors import ErrorBody
from emulator.faults.fault import Fault
from emulator.faults.kinds import split_events
from emulator.serving.event_stream import EventStream, stream_of
from emulator.serving.generation import Generation
from emulator.serving.opening import keep_alive, until_first_token
from emulator.timing.clock import sleep_until
from emulator.timing.plan import GenerationPlan, Schedule, Until
from emulator.transport.direct_write import RawHeaders
from emulator.transport.exchange import Exchange
from emulator.transport.sending import CLIENT_CLOSED_REQUEST, Reply, ended_by_disconnect
from emulator.transport.socket_control import Connection
from tokenizer import TokenGenerator


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stream fails.

    Before it leave ``events`` events, with ``tokens`` tokens of each choice in ``slots`` slots of
    the clock; where ``splits``, an event or a slot would hold more. It fails at ``instant_s``,
    in seconds after the start; ``next_event`` would have come then.
    """

    events: int
    tokens: int
    slots: int
    instant_s: float
    next_event: int
    splits: bool = False

    @classmethod
    def of(cls, fault: Fault, plan: GenerationPlan, answers: Sequence[Answer]) -> "Place":
        """Return where the fault's kind, its token or its time put it; at the latest at the end."""
        size = plan.sse_batch_size
        slots = max(answer.slots for answer in answers)
        tokens = max(answer.events for answer in answers)
        events = -(-slots // size)
        end = cls(events, tokens, slots, plan.total_s, events)
        if fault.kind.where == "end":
            return end
        if fault.kind.where == "start":
            return cls(0, 0, 0, instant_s(fault, plan, answers), 0)
        if fault.after_s is not None:
            return cls._at(fault.after_s, plan, answers) or end
        token = fault.after_tokens or 0
        slot = _slot_of(token, answers)
        if slot is None:
            return end
        if fault.kind.where == "event":
            event = slot // size
            return cls(event, token, event * size, plan.due_s(event * size), event)
        last = max((a.slot_of(min(token, a.events) - 1) for a in answers if a.events), default=-1)
        events = min(last, slot) // size + 1 if token else 0
        return cls(events, token, slot, plan.due_s(slot), slot // size, splits=True)

    @classmethod
    def _at(cls, after_s: float, plan: GenerationPlan, answers: Sequence[Answer]) -> "Place | None":
        """Return the place after all events that are due by then; None if all tokens are."""
        if after_s >= plan.total_s:
            return None
        size = plan.sse_batch_size
        slots = -(-plan.due_count(after_s) // size) * size
        tokens = max(answer.departed_by(slots) for answer in answers)
        return cls(slots // size, tokens, slots, after_s, slots // size)


def _slot_of(token: int, answers: Sequence[Answer]) -> int | None:
    """Return the first slot in which a choice's token leaves; None if no choice has it."""
    return min((a.slot_of(token) for a in answers if token < a.events), default=None)


def instant_s(fault: Fault, plan: GenerationPlan, answers: Sequence[Answer]) -> float:
    """Return when a whole answer fails, or what takes its place leaves, in seconds after the start.

    A status leaves at once if nothing is said; what does not end an answer leaves when that is due.
    """
    if not fault.kind.ends:
        return plan.total_s
    if fault.after_s is not None:
        is_free = fault.kind.refuses(stream=True)
        return fault.after_s if is_free else min(fault.after_s, plan.total_s)
    if fault.after_tokens is None and fault.kind.refuses(stream=False):
        return 0.0
    slot = _slot_of(fault.after_tokens or 0, answers)
    return plan.total_s if slot is None else plan.due_s(slot)


@dataclass(frozen=True, slots=True)
class Failure:
    """How an answer fails.

    Args:
        fault: The kind and its options.
        body: The error that tells the status, as the body of an answer.
        error: The same error, for an event.
        connection: The client's connection, if the kind acts on it.
    """

    fault: Fault
    body: bytes
    error: ErrorBody
    connection: Connection | None


async def wait_until(due_s: Callable[[], float], generation: Generation) -> None:
    """Sleep until an instant after the start; where an engine makes it, until it has come.

    Args:
        due_s: Returns the instant, infinite while the engine has not come so far.
        generation: The answer.
    """
    while (instant_s := due_s()) == math.inf and generation.times is not None:
        await generation.times.sleep_until(instant_s)
    await sleep_until(generation.start_s + instant_s)


class _Wire:
    """What kinds act on in streams and whole answers alike."""

    def __init__(self, failure: Failure) -> None:
        self.kind = failure.fault.kind
        self.slice_bytes = failure.fault.slice_bytes
        self._failure = failure
        self._send: Send | None = None
        self.has_failed = False

    def bind(self, send: Send) -> None:
        """Write to `send` from now on."""
        self._send = send

    async def send(self, message: Message) -> None:
        """Send a message of ASGI."""
        if self._send is None:
            raise RuntimeError("a wire has to be bound before something is written to it")
        await self._send(message)

    async def write(self, data: bytes) -> None:
        """Send a part of the body, in a write of its own."""
        await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def close(self) -> None:
        """Send FIN after what was written, within the HTTP message."""
        await self._connected.close()

    async def reset(self) -> None:
        """Send RST after what was written."""
        await self._connected.reset()

    async def stay_silent(self) -> None:
        """Leave the connection open until the client goes or the server's timeout is over."""
        await self._connected.stay_silent()

    @property
    def _connected(self) -> Connection:
        connection = self._failure.connection
        if connection is None:
            raise RuntimeError(f"{self.kind.name} has no connection to act on")
        return connection


# --------------------------------------------------------------------------------------
# Streams
# --------------------------------------------------------------------------------------


class StreamToFail(_Wire):
    """A stream up to where it fails, and then what its kind makes of it.

    To its kind it is the wire.
    """

    def __init__(
        self,
        generation: Generation,
        generator: TokenGenerator,
        failure: Failure,
        place: Place,
    ) -> None:
        super().__init__(failure)
        self._generation = generation
        self._generator = generator
        self._fault = failure.fault
        self._events = generation.open()
        self._all_events = self._events.events
        self._end: list[bytes] | None = None
        self._next = place.next_event
        self._lead = generation.lead
        self.place = place
        if place.splits:
            self._events.stop_before(place.tokens)
        self._events.events = place.events

    async def play(self, send: Send) -> None:
        """Send all that comes before the failure, when it is due, and fail.

        A stream that was cut on purpose has ended well, even if its client is gone by then.
        """
        self.bind(send)
        plan, place = self._generation.plan, self.place
        schedule = Until(plan, place.events * plan.sse_batch_size, total_s=0.0)
        try:
            if announced := self._generation.announce():
                if place.events:
                    await self.write(announced)
                else:
                    await self.kind.open(self, announced)
            await keep_alive(self._generation, self.write)
            if self._lead and (place.events or not self._all_events):
                await until_first_token(self._generation)
                await self.write(self._taken_lead())
            async with aclosing(self._blocks(0, schedule)) as blocks:
                async for block in blocks:
                    await self.write(block)
            await self.fail()
        except asyncio.CancelledError:
            if self.has_failed:
                return
            raise

    def _blocks(self, sent: int, schedule: Schedule) -> AsyncGenerator[bytes]:
        generation = self._generation
        return self._generator.generate(
            self._events, schedule, generation.start_s, generation.pace, generation.times, sent
        )

    def _taken_lead(self) -> bytes:
        """Return what leaves before the first token; once."""
        lead, self._lead = self._lead, ()
        return b"".join(lead)

    async def fail(self) -> None:
        """Wait until it is time, and let the kind act."""
        generation = self._generation
        await wait_until(
            lambda: Place.of(self._fault, generation.plan, generation.answers).instant_s, generation
        )
        self.has_failed = True
        self._events.events = self._all_events
        self._events.go_on()
        await self.kind.stream(self)

    async def next_events(self) -> Sequence[bytes]:
        """Take the next events: those before a token's event, and that event last."""
        events, pace = self._events, self._generation.pace
        while self._next < self._all_events:
            first, self._next = self._next, self._next + 1
            if events.is_quick:
                text = self._render(first)
            else:
                text = await asyncio.to_thread(self._render, first)
            pace.mark(monotonic(), 1, events.departing(first, first + 1))
            if text:
                return split_events(self._taken_lead() + text.encode())
        self._end = split_events(await self._generation.end())
        return [self._end.pop(0)]

    def _render(self, event: int) -> str:
        events = self._events
        return "".join([events.render(event, event + 1, share) for share in events.shares])

    async def rest(self) -> AsyncGenerator[bytes]:
        """Yield all that has not been taken, when it is due."""
        if self._lead:
            yield self._taken_lead()
        if self._next < self._all_events:
            generation = self._generation
            blocks = self._blocks(self._next, generation.plan)
            async with aclosing(blocks):
                async for block in blocks:
                    yield block
        yield await self._generation.end() if self._end is None else b"".join(self._end)

    async def end(self) -> bytes:
        """Return what comes after the last token."""
        return await self._generation.end()

    async def error_event(self) -> bytes:
        """Return what tells of the failure's status within the stream."""
        return self._generation.error(self._failure.error)

    async def failed_event(self) -> bytes:
        """Return the event whose answer says that it failed."""
        return self._generation.failed_event(self._failure.error)


def faulty_stream(wire: StreamToFail, generation: Generation, headers: RawHeaders) -> EventStream:
    """Return a stream that fails."""
    return stream_of(generation, wire.play, headers)


# --------------------------------------------------------------------------------------
# Whole answers
# --------------------------------------------------------------------------------------


class Whole(Protocol):
    """An answer that is not streamed, of any API."""

    async def whole(self) -> bytes | bytearray:
        """Return the answer as JSON."""

    def reported(self, body: bytes | bytearray, /) -> bytes | bytearray:
        """Return the answer with the report, if that was asked for."""


class FailedWhole:
    """The answer to a request that says that it failed, and why."""

    def __init__(self, generation: Generation, error: ErrorBody) -> None:
        self._error = error
        self._generation = generation
        self.reported = generation.reported

    async def whole(self) -> bytes | bytearray:
        """Return the answer as JSON."""
        return self._generation.failed(self._error)


class FaultyReply(_Wire, Reply):
    """A whole answer that fails, or the status in its place.

    Args:
        exchange: The request.
        whole: The answer that it would be.
        failure: How it fails.
        content: The answer as JSON; None where the status takes its place.
        wait: Waits until it fails.
        headers: Response headers.
    """

    def __init__(
        self,
        exchange: Exchange,
        whole: Whole,
        failure: Failure,
        content: bytes | bytearray | None,
        wait: Callable[[], Awaitable[None]],
        headers: RawHeaders,
    ) -> None:
        _Wire.__init__(self, failure)
        Reply.__init__(self, failure.fault.status if content is None else 200, headers)
        self.content = b""
        self._exchange = exchange
        self._rendered = content
        self._whole = whole
        self._wait = wait
        self._has_begun = False

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, or what becomes of it."""
        self.bind(send)
        try:
            async with ended_by_disconnect(receive):
                await self._wait()
                if self._rendered is not None:
                    self.content = bytes(self._whole.reported(self._rendered))
                self.has_failed = True
                await self.kind.whole(self)
        except ClientDisconnect:
            if not self.has_failed:
                self._exchange.status = CLIENT_CLOSED_REQUEST
        if not self._has_begun:
            # The client is gone and gets nothing, but BentoML's timer waits for a head.
            await self.begin(0)
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def begin(self, length: int) -> None:
        """Send the head of an answer that says this length."""
        self._has_begun = True
        self.headers = [
            (b"content-length", b"%d" % length),
            (b"content-type", b"application/json"),
            *self.headers,
        ]
        await self.start(self.send)

    async def refuse(self) -> None:
        """Answer with the failure's status."""
        body = self._failure.body
        await self.begin(len(body))
        await self.write(body)
