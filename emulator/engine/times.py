"""The due times of one request's tokens as its engine makes them, and the waiting for them."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from emulator.engine.runner import EngineRunner, TimedSequence
from emulator.timing.clock import running_clock


@dataclass(slots=True, eq=False)
class TokenTimes:
    """When each token of one request is due, in seconds after its start.

    Of a token that has not come the time is infinite; ``len()`` tells how many have. A request's
    choices share the clock: a token is due when the last of the choices that have it has got it.

    It is also what the request's stream sleeps by, in place of a clock. `wait` waits for the token
    whose time was asked for last, and was infinite.

    Args:
        runner: The engine.
        sequences: The choices; they have been submitted.
        start_s: What the times count from, on the engine's clock.
    """

    runner: EngineRunner
    sequences: Sequence[TimedSequence]
    start_s: float
    _asked: int = field(default=0, init=False)

    def __len__(self) -> int:
        """Return of how many tokens the times are known."""
        unfinished = [s for s in self.sequences if len(s.due_s) < s.output_tokens]
        counted = unfinished or self.sequences
        known = [len(sequence.due_s) for sequence in counted]
        return min(known) if unfinished else max(known)

    def __getitem__(self, index: int, /) -> float:
        """Return when token `index` is due."""
        due_s = -math.inf
        for sequence in self.sequences:
            if index < len(sequence.due_s):
                due_s = max(due_s, sequence.due_s[index])
            elif index < sequence.output_tokens:
                self._asked = index
                return math.inf
        return due_s - self.start_s

    @property
    def prompt_tokens(self) -> int:
        """The tokens of its prompts."""
        return sum(s.prompt_tokens for s in self.sequences if s.is_first_choice)

    @property
    def cached_tokens(self) -> int:
        """How many of the prompts' tokens were found in the cache, once all were admitted."""
        return sum(s.cached_tokens for s in self.sequences if s.is_first_choice)

    def mean_itl_s(self, hidden_tokens: int) -> float:
        """Return the mean time between the visible tokens that have come; 0 without two of them."""
        gaps = len(self) - hidden_tokens - 1
        return (self[len(self) - 1] - self[hidden_tokens]) / gaps if gaps > 0 else 0.0

    def wait(self, _: float) -> asyncio.Future[None]:
        """Return a future that is done when the token has come that was asked for last."""
        return self._wait_for(self._asked + 1)

    def _wait_for(self, tokens: int) -> asyncio.Future[None]:
        waiter = asyncio.get_running_loop().create_future()
        waited = [s for s in self.sequences if len(s.due_s) < min(tokens, s.output_tokens)]
        if not waited:
            return running_clock().turn()
        if len(waited) == 1:
            waited[0].wake(waiter, min(tokens, waited[0].output_tokens))
            return waiter
        last = _Last(waiter, len(waited))
        for sequence in waited:
            sequence.wake(last, min(tokens, sequence.output_tokens))
        return waiter

    def forget(self, _: asyncio.Future[None]) -> None:
        """Note that a wait was cancelled; what is cancelled is not woken."""

    def turn(self) -> asyncio.Future[None]:
        """Return a future that is done when a task that is behind may go on."""
        return running_clock().turn()

    async def sleep_until(self, _: float) -> None:
        """Wait for the last token."""
        await self._wait_for(max(sequence.output_tokens for sequence in self.sequences))

    async def admitted(self) -> None:
        """Wait for the first token of each choice: what was cached is known then."""
        await self._wait_for(1)

    def leave(self) -> None:
        """Take what has not come out of the engine: nobody waits for it any more."""
        for sequence in self.sequences:
            self.runner.leave(sequence)


@dataclass(slots=True, eq=False)
class _Last:
    """Wakes a waiter when the last of several sequences has reached what it waits for."""

    _waiter: asyncio.Future[None]
    _missing: int

    def done(self) -> bool:
        """Return whether nobody waits any more."""
        return self._waiter.done()

    def set_result(self, _: None) -> None:
        """Count one more that has come."""
        self._missing -= 1
        if not self._missing:
            self._waiter.set_result(None)

    def set_exception(self, exception: Exception) -> None:
        """Let the waiter fail."""
        self._waiter.set_exception(exception)
