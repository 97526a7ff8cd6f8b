"""The plan of one generation: the number of tokens, and when each is due."""

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

FinishReason = Literal["stop", "length", "tool_calls", "function_call"]


class Schedule(Protocol):
    """The due times of tokens, in seconds after the start."""

    def due_s(self, index: int, /) -> float:
        """Return when token `index` is due, or would be if there were so many."""

    def due_count(self, elapsed_s: float, /) -> int:
        """Return how many tokens are due at `elapsed_s`."""

    @property
    def total_s(self) -> float:
        """When the last token is due."""


class Offsets(Protocol):
    """A sequence of due times, in seconds after the start."""

    def __len__(self) -> int:
        """Return the number of due times that are known."""

    def __getitem__(self, index: int, /) -> float:
        """Return when token `index` is due."""


@dataclass(slots=True)  # frozen would be slower to create
class GenerationPlan:
    """The number of tokens of an answer, and when each of them is due.

    The one clock of the emulator. Time starts when the request's headers reach the service, and
    token ``i``, counted from 0, is due at

        ``start + ttft + i * itl``

    Due times are absolute: a token that leaves late does not delay the ones after it. A stream
    sends each token when it is due; an answer that is not streamed leaves as a whole when its last
    token is due, at ``start + ttft + (n - 1) * itl``. With ``ttft_s=0.2, itl_s=0.05`` and 5 tokens
    the tokens are due after 200, 250, 300, 350 and 400 ms, and the whole answer after 400 ms.

    Reasoning tokens come before the others. Where they are hidden they take the same time: with r
    of them the visible token ``i`` is token ``r + i`` of the formula. ``sse_batch_size`` tokens
    share one event of a stream, which leaves when the first is due. All choices share the clock.

    ``token_limit`` is what the client's limit leaves for visible tokens, None without a limit.

    With jitter ``offsets`` holds the due times that were drawn, in seconds after the start, and
    stands in place of ``ttft + i * itl``, which remains their mean. An engine's times stand there
    too, infinite for tokens that have not come.
    """

    output_tokens: int
    finish_reason: FinishReason
    ttft_s: float
    itl_s: float
    sse_batch_size: int = 1
    reasoning_tokens: int = 0
    hidden_tokens: int = 0
    token_limit: int | None = None
    offsets: Offsets | None = None

    def timed_as(self, output_tokens: int) -> Self:
        """Return this plan for an answer that turned out to take `output_tokens` on the clock."""
        if output_tokens == self.output_tokens:
            return self
        return replace(self, output_tokens=output_tokens)

    def timed_at(self, offsets: Offsets) -> Self:
        """Return this plan with due times that were drawn, hidden tokens included."""
        return replace(self, offsets=offsets)

    def due_s(self, index: int) -> float:
        """Return when the visible token `index` is due, in seconds after the start."""
        if self.offsets is not None:
            return self.offsets[self.hidden_tokens + index]
        return self.ttft_s + (self.hidden_tokens + index) * self.itl_s

    def due_count(self, elapsed_s: float) -> int:
        """Return how many visible tokens are due `elapsed_s` seconds after the start."""
        if self.offsets is not None:
            return max(bisect_right(self.offsets, elapsed_s) - self.hidden_tokens, 0)
        count = 0  # from a division, which may round: the due times below decide
        if elapsed_s >= self.due_s(0):
            steps = (elapsed_s - self.ttft_s) / self.itl_s if self.itl_s else math.inf
            count = int(min(max(steps - self.hidden_tokens, 0), self.output_tokens))
        while count < self.output_tokens and self.due_s(count) <= elapsed_s:
            count += 1
        while count > 0 and self.due_s(count - 1) > elapsed_s:
            count -= 1
        return count

    @property
    def total_s(self) -> float:
        """When the last token is due, in seconds after the start."""
        return self.due_s(max(self.output_tokens - 1, -self.hidden_tokens))


def due_each(schedule: Schedule, tokens: range) -> NDArray[np.float64]:
    """Return the due times of some tokens, in one step where they are regular."""
    if isinstance(schedule, GenerationPlan) and schedule.offsets is None:
        indices = np.arange(tokens.start, tokens.stop, tokens.step, dtype=np.float64)
        return schedule.ttft_s + (schedule.hidden_tokens + indices) * schedule.itl_s
    return np.fromiter(map(schedule.due_s, tokens), np.float64, len(tokens))


@dataclass(frozen=True, slots=True)
class Until:
    """A schedule that ends after `tokens` tokens, at `total_s`."""

    schedule: Schedule
    tokens: int
    total_s: float

    def due_s(self, index: int) -> float:
        """Return when token `index` is due, in seconds after the start."""
        return self.schedule.due_s(index)

    def due_count(self, elapsed_s: float) -> int:
        """Return how many of the tokens are due `elapsed_s` seconds after the start."""
        return min(self.schedule.due_count(elapsed_s), self.tokens)
