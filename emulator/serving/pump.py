"""The tokens of one stream at load: what `TokenGenerator.generate` does, at a third of the cost.

Three things make it cheap. The clock itself takes the steps, so that no task wakes for a token. The
events of a plain text are rendered some ahead. Blocks are written past uvicorn's `send`.
`benchmarks.throughput --measure cost` prints what a token costs.
"""

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import TypeAlias

from emulator.timing.clock import running_clock
from emulator.timing.pace import NOTES_KEPT, Pace
from emulator.timing.plan import Schedule
from tokenizer import TokenStream, due_upto

Write: TypeAlias = Callable[[bytes], bool]
"""Sends a block at once and returns True, or returns False as the client is behind."""

# Wait until an instant; send a block that could not be written at once; there is no more.
_Step: TypeAlias = float | bytes | None


@dataclass(slots=True)
class Pump:
    """Lets out the events of one stream, which is rendered quickly, by the event loop's clock.

    Args:
        stream: Renders the events.
        schedule: Says when each token is due.
        start_s: The start, on ``time.monotonic()``.
        pace: Is told when each event left.
        write: Sends a block at once.
        send: Sends a block when the client has taken what was written before.
    """

    stream: TokenStream
    schedule: Schedule
    start_s: float
    pace: Pace
    write: Write
    send: Callable[[bytes], Awaitable[None]]
    _sent: int = field(default=0, init=False)
    _due_s: float = field(default=0.0, init=False)
    _now_s: float = field(default=0.0, init=False)

    async def run(self) -> None:
        """Let out all events; it ends when the last token is due."""
        clock = running_clock()
        with closing(self._steps()) as steps:
            step = next(steps)
            while step is not None:
                if isinstance(step, bytes):
                    await self.send(step)
                elif step <= monotonic():
                    await clock.turn()
                else:
                    waiter = clock.drive(step, steps.send)
                    try:
                        step = await waiter
                    except CancelledError:
                        clock.forget(waiter)
                        raise
                    continue
                step = steps.send(monotonic())
        if self.stream.tokens_per_event > 1 or not self.stream.events:
            await clock.sleep_until(self.start_s + self.schedule.total_s)

    def _steps(self) -> Generator[_Step, float, None]:
        """Yield what is to be done; expect the time when it is done."""
        stream, pace = self.stream, self.pace
        self._due_s = self._event_due_s(0)
        try:
            while self._sent < stream.events:
                if self._due_s > self._now_s and (ready := stream.ahead(self._sent)):
                    yield from self._let_out(ready)
                else:
                    yield from self._render()
                pace.settle(NOTES_KEPT)
        finally:
            pace.settle()
        yield None

    def _event_due_s(self, event: int) -> float:
        """Return the instant of an event; of one past the end, infinity."""
        if event >= self.stream.events:
            return inf
        return self.start_s + self.schedule.due_s(event * self.stream.tokens_per_event)

    def _let_out(self, ready: Sequence[bytes]) -> Generator[_Step, float, None]:
        """Let out events that have been rendered, each when it is due."""
        pace, write, due_s, now_s = self.pace, self.write, self._due_s, 0.0
        note, base = pace.note, self._sent
        sent, upto = base, base + len(ready)
        after_s = [self._event_due_s(event + 1) for event in range(base, upto)]
        while sent < upto:
            now_s = yield due_s
            block, due_s = ready[sent - base], after_s[sent - base]
            if due_s > now_s:
                note(now_s)
                sent += 1
            else:
                first = sent
                sent = due_upto(self.stream, self.schedule, first, now_s - self.start_s)
                block, due_s = b"".join(ready[first - base : sent - base]), self._event_due_s(sent)
                if sent > upto:
                    block += self.stream.render(upto, sent, self.stream.shares[0]).encode()
                pace.mark(now_s, sent - first)
            if not write(block):
                pace.block(now_s, (yield block))
        self._sent, self._due_s, self._now_s = sent, due_s, now_s

    def _render(self) -> Generator[_Step, float, None]:
        """Render all that is due, as soon as something is, and let it out."""
        stream, pace, write, first = self.stream, self.pace, self.write, self._sent
        now_s = yield self._due_s
        sent = first + 1
        due_s = self._event_due_s(sent)
        if due_s <= now_s:
            sent = due_upto(stream, self.schedule, first, now_s - self.start_s)
            due_s = self._event_due_s(sent)
        for share in stream.shares:
            block = stream.render(first, sent, share).encode()
            handed_s = monotonic()
            if share is stream.shares[-1]:
                if stream.may_hold_back or sent - first > 1:
                    pace.mark(handed_s, sent - first, stream.departing(first, sent))
                else:
                    pace.note(handed_s)
            if block and not write(block):
                pace.block(handed_s, (yield block))
        self._sent, self._due_s, self._now_s = sent, due_s, now_s
