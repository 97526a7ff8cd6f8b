"""The due times of one request's tokens as its engine makes them, and the waiting for them."""

import asyncio
import math
from collections.abc import Sequence
from time import monotonic

from emulator.engine.runner import EngineRunner, TimedSequence
from emulator.timing.clock import running_clock


class TokenTimes:
    """When each token of one request is due, in seconds after its start.

    Of a token that has not come the time is infinite; ``len()`` tells how many have. A request's
    choices share the clock: a token is due when the last of the choices that have it has got it.

    The request's stream sleeps by it, in place of a clock: `sleep_until` waits for the token whose
    time was asked for last, and was infinite.

    Args:
        runner: The engine.
        sequences: The choices; they have been submitted.
        start_s: What the times count from, on the engine's clock.
    """

    __slots__ = ("_asked", "_runner", "_sequences", "_start_s")

    def __init__(
        self, runner: EngineRunner, sequences: Sequence[TimedSequence], start_s: float
    ) -> None:
        self._runner = runner
        self._sequences = sequences
        self._start_s = start_s
        self._asked = 0

    def __len__(self) -> int:
        """Return of how many tokens the times are known."""
        unfinished = [s for s in self._sequences if len(s.due_s) < s.output_tokens]
        counted = unfinished or self._sequences
        known = [len(sequence.due_s) for sequence in counted]
        return min(known) if unfinished else max(known)

    def __getitem__(self, index: int, /) -> float:
        """Return when token `index` is due."""
        due_s = -math.inf
        for sequence in self._sequences:
            if index < len(sequence.due_s):
                due_s = max(due_s, sequence.due_s[index])
            elif index < sequence.output_tokens:
                self._asked = index
                return math.inf
        return due_s - self._start_s

    @property
    def prompt_tokens(self) -> int:
        """The tokens of its prompts."""
        return sum(s.prompt_tokens for s in self._sequences if s.is_first_choice)

    @property
    def cached_tokens(self) -> int:
        """How many of the prompts' tokens were found in the cache, once all were admitted."""
        return sum(s.cached_tokens for s in self._sequences if s.is_first_choice)

    def mean_itl_s(self, hidden_tokens: int) -> float:
        """Return the mean time between the visible tokens that have come; 0 without two of them."""
        gaps = len(self) - hidden_tokens - 1
        return (self[len(self) - 1] - self[hidden_tokens]) / gaps if gaps > 0 else 0.0

    async def sleep_until(self, instant_s: float) -> None:
        """Wait for the token whose time was asked for last, unless its instant has passed."""
        if instant_s <= monotonic():
            await running_clock().turn()
        else:
            await self._wait_for(self._asked + 1)

    def _wait_for(self, tokens: int) -> asyncio.Future[None]:
        waiter = asyncio.get_running_loop().create_future()
        waited = [s for s in self._sequences if len(s.due_s) < min(tokens, s.output_tokens)]
        if not waited:
            return running_clock().turn()
        if len(waited) == 1:
            waited[0].wake(waiter, min(tokens, waited[0].output_tokens))
            return waiter
        last = _Last(waiter, len(waited))
        for sequence in waited:
            sequence.wake(last, min(tokens, sequence.output_tokens))
        return waiter

    async def admitted(self) -> None:
        """Wait for the first token of each choice: what was cached is known then."""
        await self._wait_for(1)

    def leave(self) -> None:
        """Take what has not come out of the engine: nobody waits for it any more."""
        for sequence in self._sequences:
            self._runner.leave(sequence)


class _Last:
    """Wakes a waiter when the last of several sequences has reached what it waits for."""

    __slots__ = ("_missing", "_waiter")

    def __init__(self, waiter: asyncio.Future[None], missing: int) -> None:
        self._waiter = waiter
        self._missing = missing

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
