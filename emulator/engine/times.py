"""The due times of one request's tokens in an engine, and waiting for them."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

from emulator.engine.runner import EngineRunner, TimedSequence
from emulator.timing.clock import running_clock


@dataclass(slots=True, eq=False)
class TokenTimes:
    """The due times of one request's tokens, in seconds after its start.

    The time of a token that has not come yet is infinite; ``len()`` is the number of those that
    have. A token is due when the last of the choices gets it.

    The request's stream sleeps by it in place of a clock: `sleep_until` waits for the token whose
    time was asked for last, and was infinite.

    Args:
        runner: The engine.
        sequences: The choices, which have been submitted.
        start_s: The start of the request, on the engine's clock.
    """

    runner: EngineRunner
    sequences: Sequence[TimedSequence]
    start_s: float
    _asked: int = field(default=0, init=False)

    def __len__(self) -> int:
        """Return the number of tokens whose times are known."""
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
        """The number of tokens of the prompts."""
        return sum(s.prompt_tokens for s in self.sequences if s.is_first_choice)

    @property
    def cached_tokens(self) -> int:
        """The number of the prompts' tokens that were cached, once all are admitted."""
        return sum(s.cached_tokens for s in self.sequences if s.is_first_choice)

    @property
    def queue_s(self) -> float | None:
        """How long the request waited until its first choice was admitted; None before that."""
        first = self.sequences[0]
        return None if first.admitted_s is None else first.admitted_s - first.arrival_s

    def mean_itl_s(self, hidden_tokens: int) -> float:
        """Return the mean time between the visible tokens so far, 0 for fewer than two."""
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

    async def admitted(self) -> None:
        """Wait for the first token of each choice, when the number of cached tokens is known."""
        await self._wait_for(1)

    def leave(self) -> None:
        """Remove what is unfinished from the engine."""
        for sequence in self.sequences:
            self.runner.leave(sequence)


@dataclass(slots=True, eq=False)
class _Last:
    """Wakes a waiter when the last of several sequences has got its token."""

    _waiter: asyncio.Future[None]
    _missing: int

    def done(self) -> bool:
        """Return whether there is nothing to wake any more."""
        return self._waiter.done()

    def set_result(self, _: None) -> None:
        """Count a sequence that has got its token."""
        self._missing -= 1
        if not self._missing:
            self._waiter.set_result(None)

    def set_exception(self, exception: Exception) -> None:
        """Wake the waiter with an error."""
        self._waiter.set_exception(exception)
