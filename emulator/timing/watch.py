"""How late the tokens of all streams of a process leave, counted while somebody looks."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from emulator.timing.plan import Schedule, due_each

# The upper bounds of the buckets, in s; one more holds the rest.
LAG_BOUNDS_S = (
    *(50e-6, 100e-6, 200e-6, 300e-6, 500e-6, 750e-6, 1e-3, 2e-3, 3e-3, 5e-3, 10e-3, 20e-3),
    *(50e-3, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)
LATE_S = 1e-3
_BOUNDS = np.array(LAG_BOUNDS_S)


class Paced(Protocol):
    """A stream whose events are measured."""

    schedule: Schedule
    start_s: float
    tokens_per_event: int

    def settle(self) -> None:
        """Take in what was noted."""


class LagWatch:
    """Counts lags, while it ``is_on``; costs nothing else.

    ``streams`` are those under way, each with its number of choices. ``max_s`` is the largest lag
    since it was last set to 0; the others are counts since it was switched on.
    """

    def __init__(self) -> None:
        self.is_on = False
        self.streams: dict[Paced, int] = {}
        self.begin()

    def begin(self) -> None:
        """Count from 0."""
        self.buckets = [0] * (len(LAG_BOUNDS_S) + 1)
        self.timed = self.late = self.tokens = 0
        self.max_s = 0.0

    def add(self, lag_s: float, times: int = 1) -> None:
        """Count one lag."""
        self.buckets[bisect_left(LAG_BOUNDS_S, lag_s)] += times
        self.timed += times
        self.late += times * (lag_s > LATE_S)
        self.max_s = max(self.max_s, lag_s)

    def see(self, stream: Paced, left_s: Sequence[float], first: int, taken_s: float) -> None:
        """Count events of a stream.

        Args:
            stream: The stream.
            left_s: When each left, on ``time.monotonic()``.
            first: The first of them.
            taken_s: When the client had taken what came before, in seconds after the start.
        """
        step, count = stream.tokens_per_event, len(left_s)
        due_s = due_each(stream.schedule, range(first * step, (first + count) * step, step))
        lag_s = np.array(left_s) - stream.start_s - np.maximum(due_s, taken_s)
        found = np.bincount(np.searchsorted(_BOUNDS, lag_s), minlength=len(self.buckets))
        self.buckets = [a + b for a, b in zip(self.buckets, found.tolist(), strict=True)]
        self.timed += count
        self.late += int((lag_s > LATE_S).sum())
        self.max_s = max(self.max_s, float(lag_s.max()))
        self.tokens += count * step * self.streams.get(stream, 1)


WATCH = LagWatch()
