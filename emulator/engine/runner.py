"""Running an engine on an event loop, in real time."""

import asyncio
import logging
from array import array
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from emulator.engine.scheduler import EngineSequence, Scheduler, State, Step
from emulator.timing.clock import Waiter

logger = logging.getLogger("bentoml.openai_emulator")


@dataclass(slots=True, eq=False)
class Choices:
    """The choices of one prompt.

    Args:
        n: How many they are.
        left: How many have not ended.
        longest: The most tokens of those that have.
    """

    n: int = 1
    left: int = 1
    longest: int = 0


@dataclass(slots=True, eq=False)
class TimedSequence(EngineSequence):
    """A sequence whose tokens are awaited.

    ``due_s`` holds the instants of its tokens so far, on the engine's clock.

    Args:
        model: The model that was asked for.
        finish_reason: How the answer ends.
        is_first_choice: Whether it is the first choice of its request.
        max_tokens: The most tokens that its answer may have.
        choices: Those that it is one of.
    """

    model: str = field(default="", kw_only=True)
    finish_reason: str = field(default="length", kw_only=True)
    is_first_choice: bool = field(default=True, kw_only=True)
    max_tokens: int = field(default=0, kw_only=True)
    choices: Choices = field(default_factory=Choices, kw_only=True)
    is_left: bool = field(default=False, init=False)
    due_s: "array[float]" = field(default_factory=lambda: array("d"), init=False)
    _wanted: int = field(default=0, init=False)
    _waiter: Waiter | None = field(default=None, init=False)

    def wake(self, waiter: Waiter, tokens: int) -> None:
        """Wake `waiter`, and no other, when there are that many tokens."""
        self._wanted, self._waiter = tokens, waiter

    def fail(self, error: Exception) -> None:
        """Wake the waiter with an error."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


class EngineFailure(Exception):  # noqa: N818 - it is the engine that failed
    """The engine has stopped because of an exception."""


def wake_at_once(waiters: Sequence[Waiter]) -> None:
    """Wake all at once."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


def ignore(_: object) -> None:
    """Do nothing."""


class EngineRunner:
    """Runs the steps of an engine at their times.

    The times are absolute: a step starts when the previous one was due to end, even if the event
    loop was late. An idle engine has no task.

    Args:
        scheduler: The engine.
        wait_until: Sleeps until an instant.
        wake: Wakes the sequences that got a token; by default all at once.
        observe: Called with each step, after its tokens have been handed out.
        observe_left: Called with each sequence whose client has left.
    """

    def __init__(
        self,
        scheduler: Scheduler[TimedSequence],
        wait_until: Callable[[float], Awaitable[None]],
        *,
        wake: Callable[[Sequence[Waiter]], None] = wake_at_once,
        observe: Callable[[Step[TimedSequence]], None] = ignore,
        observe_left: Callable[[TimedSequence], None] = ignore,
    ) -> None:
        self.scheduler = scheduler
        self._wait_until = wait_until
        self._wake = wake
        self._observe = observe
        self._observe_left = observe_left
        self._task: asyncio.Task[None] | None = None

    def submit(self, sequences: Sequence[TimedSequence]) -> None:
        """Queue the choices of one request.

        Raises:
            TooLongError: One of them would never fit into the cache.
            OverloadError: ``max_waiting`` sequences wait already.
        """
        self.scheduler.submit(sequences)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(self._ended)

    def leave(self, sequence: TimedSequence) -> None:
        """Remove a sequence whose client has left at the start of the next step."""
        if sequence.state is not State.DONE and not sequence.is_left:
            sequence.is_left = True
            self.scheduler.leave(sequence)
            self._observe_left(sequence)

    async def _run(self) -> None:
        scheduler = self.scheduler
        try:
            while (start_s := scheduler.next_start_s) is not None:
                if scheduler.config.request_overhead_ms and not scheduler.running:
                    await self._wait_until(start_s)
                step = scheduler.start_step(start_s)
                if step is not None:
                    await self._wait_until(step.end_s)
                    self._hand_out(scheduler.end_step())
                    self._observe(step)
        finally:
            self._task = None

    def _hand_out(self, step: Step[TimedSequence]) -> None:
        end_s = step.end_s
        waiters: list[Waiter] = []
        for sequence in step.advanced:
            due_s = sequence.due_s
            due_s.append(end_s)
            waiter = sequence._waiter
            if waiter is not None and len(due_s) >= sequence._wanted:
                waiters.append(waiter)
                sequence._waiter = None
        self._wake(waiters)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Wake all sequences with an error if the engine has failed."""
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        logger.error("the engine has stopped", exc_info=error)
        for sequence in (*self.scheduler.running, *self.scheduler.waiting):
            sequence.fail(EngineFailure("the engine has stopped"))
