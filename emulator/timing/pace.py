"""The measured times of one answer's events, compared with when they were due."""

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field

import numpy as np
from numpy.typing import NDArray

from emulator.timing.plan import Schedule, due_each
from emulator.timing.watch import WATCH

# The most events that are kept before they are settled, which bounds the time it takes.
NOTES_KEPT = 128
# The most instants that `keep_left` keeps.
LEFT_KEPT = 512
# Up to so many are settled one by one, as numpy would take longer.
_FEW = 16
# A write that takes longer has waited for the client: others take some 20 us.
_TAKEN_AT_ONCE_S = 0.001


@dataclass(slots=True, eq=False)
class Pace:
    """Measures when the events of a stream are handed over to be written.

    Lags are the emulator's own delay: after an event was due, or after the client had taken the
    events before it, if that was later. ``itl_lag_s`` is the largest excess of a gap over the one
    asked for. ``blocked_s`` is the time that writes waited for the client, which gaps include.
    ``passed`` counts the events whose text was held back too, ``events`` does not.

    Figures count the settled events only. ``note(now_s)`` is a cheap ``mark(now_s, 1)``.

    Args:
        schedule: When each token is due.
        start_s: The start on ``time.monotonic()``, in seconds, to which other times are relative.
        tokens_per_event: Tokens in each event, which is due with the first of them.
        keep_gaps: Whether to keep every gap, for its percentiles.
        keep_left: Whether to keep in ``left_s`` when each of the first events left, on
            ``time.monotonic()``; not a number for one whose text was held back.
    """

    schedule: Schedule
    start_s: float
    tokens_per_event: int
    keep_gaps: InitVar[bool] = field(kw_only=True)
    keep_left: InitVar[bool] = field(kw_only=True, default=False)
    note: Callable[[float], None] = field(init=False)
    blocked_s: float = field(default=0.0, init=False)
    events: int = field(default=0, init=False)
    passed: int = field(default=0, init=False)
    first_s: float = field(default=0.0, init=False)
    first_due_s: float = field(init=False)
    last_s: float = field(default=0.0, init=False)
    largest_gap_s: float = field(default=0.0, init=False)
    itl_lag_s: float = field(default=0.0, init=False)
    worst_lag_s: float = field(default=0.0, init=False)
    gaps_s: "array[float] | None" = field(init=False)
    left_s: "array[float] | None" = field(init=False)
    _first: int = field(default=0, init=False)
    _last: int = field(default=0, init=False)
    _last_due_s: float = field(default=0.0, init=False)
    _taken_s: float = field(default=0.0, init=False)
    _noted_s: "array[float]" = field(default_factory=lambda: array("d"), init=False)

    def __post_init__(self, keep_gaps: bool, keep_left: bool) -> None:
        self.note = self._noted_s.append
        self.first_due_s = self.schedule.due_s(0)
        self.gaps_s = array("d") if keep_gaps else None
        self.left_s = array("d") if keep_left else None

    def mark(self, now_s: float, events: int, left: Sequence[int] | None = None) -> None:
        """Note and settle `events` events that left together at `now_s`, on ``time.monotonic()``.

        Where text is held back, ``left`` has the indices of those that did leave.
        """
        self.settle()
        if self.left_s is not None and len(self.left_s) < LEFT_KEPT:
            self._keep_left(now_s, events, left)
        left = range(events) if left is None else left
        if WATCH.is_on:
            WATCH.see(self, [now_s] * events, self.passed, self._taken_s)
        if left:
            self._take_in(now_s, now_s, self.passed + left[0], self.passed + left[-1], len(left))
            if self.gaps_s is not None:
                self.gaps_s.extend([0.0] * (len(left) - 1))
        self.passed += events

    def settle(self, at_least: int = 1) -> None:
        """Update the figures with the noted events, if there are at least so many."""
        noted_s, first = self._noted_s, self.passed
        if len(noted_s) < at_least:
            return
        self.passed = upto = first + len(noted_s)
        if WATCH.is_on:
            WATCH.see(self, noted_s, first, self._taken_s)
        if self.left_s is not None and first < LEFT_KEPT:
            self.left_s.extend(noted_s if upto <= LEFT_KEPT else noted_s[: LEFT_KEPT - first])
        if len(noted_s) <= _FEW:
            for event, now_s in enumerate(noted_s, start=first):
                self._take_in(now_s, now_s, event, event, 1)
        else:
            self._take_in(noted_s[0], noted_s[-1], first, upto - 1, len(noted_s))
            self._look_within(np.array(noted_s) - self.start_s, range(first, upto))
        del noted_s[:]

    def _keep_left(self, now_s: float, events: int, left: Sequence[int] | None) -> None:
        if self.left_s is None:
            return
        if events == 1:
            self.left_s.append(now_s if left is None or left else math.nan)
            return
        kept = array("d", [now_s if left is None else math.nan]) * events
        for index in left or ():
            kept[index] = now_s
        self.left_s.extend(kept[: LEFT_KEPT - len(self.left_s)])

    def _take_in(self, from_s: float, to_s: float, first: int, last: int, count: int) -> None:
        """Update the figures with a run of events, given when its first and its last one left."""
        first_s = from_s - self.start_s
        due_s = self.schedule.due_s(first * self.tokens_per_event)
        self.worst_lag_s = max(self.worst_lag_s, first_s - max(due_s, self._taken_s))
        if self.events:
            gap_s, asked_s = first_s - self.last_s, due_s - self._last_due_s
            if self._taken_s:
                asked_s = max(asked_s, self._taken_s - self.last_s)
            self._add_gap(gap_s, gap_s - asked_s)
            if self.gaps_s is not None:
                self.gaps_s.append(gap_s)
        else:
            self.first_s, self.first_due_s, self._first = first_s, due_s, first
        self.events += count
        self.last_s = to_s - self.start_s
        self._last = last
        if last != first:
            due_s = self.schedule.due_s(last * self.tokens_per_event)
        self._last_due_s = due_s

    def _look_within(self, left_s: NDArray[np.float64], events: range) -> None:
        """Update the figures with the events and the gaps within a run, given when each left."""
        stride = self.tokens_per_event
        due_s = due_each(self.schedule, range(events.start * stride, events.stop * stride, stride))
        lag_s = float((left_s - np.maximum(due_s, self._taken_s)).max())
        self.worst_lag_s = max(self.worst_lag_s, lag_s)
        gaps_s = left_s[1:] - left_s[:-1]
        self._add_gap(float(gaps_s.max()), float((gaps_s - (due_s[1:] - due_s[:-1])).max()))
        if self.gaps_s is not None:
            self.gaps_s.frombytes(gaps_s.tobytes())

    def _add_gap(self, gap_s: float, excess_s: float) -> None:
        self.largest_gap_s = max(self.largest_gap_s, gap_s)
        self.itl_lag_s = max(self.itl_lag_s, excess_s)

    def block(self, handed_s: float, now_s: float) -> None:
        """Note the time of a write: a long one waited for the client."""
        if now_s - handed_s <= _TAKEN_AT_ONCE_S:
            return
        self.settle()
        self.blocked_s += now_s - handed_s
        self._taken_s = now_s - self.start_s

    @property
    def mean_itl_s(self) -> float | None:
        """The mean time between tokens, None with fewer than two events."""
        if self.events < 2:
            return None
        return (self.last_s - self.first_s) / (self._last - self._first) / self.tokens_per_event

    def gap_percentile_s(self, percent: float) -> float | None:
        """Return a percentile of the gaps between events by nearest rank, None without gaps."""
        if not self.gaps_s:
            return None
        rank = math.ceil(len(self.gaps_s) * percent / 100) - 1
        return float(np.partition(np.frombuffer(self.gaps_s), rank)[rank])
