"""When the tokens of one answer left, beside when they were due."""

import math
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emulator.timing.plan import Schedule, due_each

# Up to so many events are marked one by one; numpy takes as long for as many.
_FEW = 16
# More are not kept unsettled: to settle so many takes about 40 us.
NOTES_KEPT = 128
# A write that takes longer has waited for the client: what the client takes at once, takes 20 us.
_TAKEN_AT_ONCE_S = 0.001


class Pace:
    """Watches the events of a stream leave: when they are handed over to be written.

    A lag is the emulator's own: an event's counts from when it was due, or from when the client
    had taken what came before, if that was later. ``blocked_s`` is how long writes waited for the
    client; the gaps hold that too.

    ``note(now_s)`` costs a tenth of ``mark(now_s, 1)`` and means the same, once settled.

    Args:
        schedule: When each token is due.
        start_s: The start on ``time.monotonic()``, in seconds.
        tokens_per_event: Tokens in each event, which is due with the first of them.
        keep_gaps: Whether to keep every gap, for its percentiles.
    """

    __slots__ = (
        "_first",
        "_last",
        "_last_due_s",
        "_noted_s",
        "_schedule",
        "_start_s",
        "_taken_s",
        "_tokens_per_event",
        "blocked_s",
        "events",
        "first_due_s",
        "first_s",
        "gaps_s",
        "itl_lag_s",
        "largest_gap_s",
        "last_s",
        "note",
        "passed",
        "worst_lag_s",
    )

    def __init__(
        self, schedule: Schedule, start_s: float, tokens_per_event: int, *, keep_gaps: bool
    ) -> None:
        self._schedule = schedule
        self._start_s = start_s
        self._tokens_per_event = tokens_per_event
        self._noted_s = array("d")
        self.note = self._noted_s.append
        self._first = self._last = 0
        self._last_due_s = 0.0
        self._taken_s = 0.0
        self.blocked_s = 0.0
        self.events = 0
        self.passed = 0
        self.first_due_s = schedule.due_s(0)
        self.first_s = 0.0
        self.last_s = 0.0
        self.largest_gap_s = 0.0
        self.itl_lag_s = 0.0
        self.worst_lag_s = 0.0
        self.gaps_s: array[float] | None = array("d") if keep_gaps else None

    def mark(self, now_s: float, events: int, left: Sequence[int] | None = None) -> None:
        """Note that `events` more events left together, at `now_s` on ``time.monotonic()``.

        Where text was held back, ``left`` says which of them left, counted from 0: the others are
        none, neither late nor in time.
        """
        self.settle()
        self._mark(now_s, events, left)

    def settle(self, at_least: int = 0) -> None:
        """Take in the events that were noted, if they are at least so many."""
        noted_s = self._noted_s
        if len(noted_s) < at_least:
            return
        if len(noted_s) > _FEW:
            self._mark_each(np.array(noted_s))
            del noted_s[:]
        elif noted_s:
            times_s = noted_s.tolist()
            del noted_s[:]
            for now_s in times_s:
                self._mark(now_s, 1)

    def _mark(self, now_s: float, events: int, left: Sequence[int] | None = None) -> None:
        passed = self.passed
        self.passed = passed + events
        if left is None:
            first, last, count = passed, passed + events - 1, events
        elif left:
            first, last, count = passed + left[0], passed + left[-1], len(left)
        else:
            return
        elapsed_s = now_s - self._start_s
        stride = self._tokens_per_event
        due_s = self._schedule.due_s(first * stride)
        self.worst_lag_s = max(self.worst_lag_s, elapsed_s - max(due_s, self._taken_s))
        if self.events:
            gap_s = elapsed_s - self.last_s
            self.largest_gap_s = max(self.largest_gap_s, gap_s)
            asked_s = due_s - self._last_due_s
            if self._taken_s:
                asked_s = max(asked_s, self._taken_s - self.last_s)
            self.itl_lag_s = max(self.itl_lag_s, gap_s - asked_s)
        else:
            self.first_s, self.first_due_s, self._first = elapsed_s, due_s, first
        if self.gaps_s is not None:
            if self.events:
                self.gaps_s.append(elapsed_s - self.last_s)
            self.gaps_s.extend([0.0] * (count - 1))
        self.events += count
        self.last_s = elapsed_s
        self._last = last
        self._last_due_s = due_s if count == 1 else self._schedule.due_s(last * stride)

    def _mark_each(self, times_s: NDArray[np.float64]) -> None:
        """Do what `_mark` does, for many events that left one by one."""
        count, stride, began = len(times_s), self._tokens_per_event, self.events > 0
        firsts = range(self.passed * stride, (self.passed + count) * stride, stride)
        # Each begins with the one before, so that differences are gaps.
        elapsed_s, due_s = np.empty(count + 1), np.empty(count + 1)
        np.subtract(times_s, self._start_s, out=elapsed_s[1:])
        due_s[1:] = due_each(self._schedule, firsts)
        if began:
            elapsed_s[0], due_s[0] = self.last_s, self._last_due_s
        else:
            self.first_s, self.first_due_s = float(elapsed_s[1]), float(due_s[1])
            elapsed_s[0], due_s[0], self._first = self.first_s, self.first_due_s, self.passed
        lags_s = elapsed_s[1:] - np.maximum(due_s[1:], self._taken_s)
        self.worst_lag_s = max(self.worst_lag_s, float(lags_s.max()))
        gaps_s, asked_s = elapsed_s[1:] - elapsed_s[:-1], due_s[1:] - due_s[:-1]
        if self._taken_s:
            asked_s[0] = max(asked_s[0], self._taken_s - self.last_s)
        own = slice(0 if began else 1, None)
        self.largest_gap_s = max(self.largest_gap_s, float(gaps_s[own].max()))
        self.itl_lag_s = max(self.itl_lag_s, float((gaps_s - asked_s)[own].max()))
        if self.gaps_s is not None:
            self.gaps_s.frombytes(gaps_s[own].tobytes())
        self.events += count
        self.passed += count
        self._last = self.passed - 1
        self.last_s, self._last_due_s = float(elapsed_s[-1]), float(due_s[-1])

    def block(self, handed_s: float, now_s: float) -> None:
        """Note that a write took from `handed_s` to `now_s`: a long one waited for the client."""
        if now_s - handed_s <= _TAKEN_AT_ONCE_S:
            return
        self.settle()
        self.blocked_s += now_s - handed_s
        self._taken_s = now_s - self._start_s

    @property
    def mean_itl_s(self) -> float | None:
        """The mean time from token to token on the clock, None with fewer than two events."""
        if self.events < 2:
            return None
        return (self.last_s - self.first_s) / (self._last - self._first) / self._tokens_per_event

    def gap_percentile_s(self, percent: float) -> float | None:
        """Return a percentile of the gaps between events by nearest rank, None without gaps.

        It takes 0.6 ms for 131,071 gaps, and the streams wait meanwhile.
        """
        if not self.gaps_s:
            return None
        rank = math.ceil(len(self.gaps_s) * percent / 100) - 1
        return float(np.partition(np.frombuffer(self.gaps_s), rank)[rank])
