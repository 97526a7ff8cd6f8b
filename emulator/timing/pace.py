"""The measured times of one answer's events, compared with when they were due."""

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field

import numpy as np
from numpy.typing import NDArray

from emulator.timing.plan import Schedule, due_each

# The most events that are kept before they are settled, which bounds the time it takes.
NOTES_KEPT = 128
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
    """

    schedule: Schedule
    start_s: float
    tokens_per_event: int
    keep_gaps: InitVar[bool] = field(kw_only=True)
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
    _first: int = field(default=0, init=False)
    _last: int = field(default=0, init=False)
    _last_due_s: float = field(default=0.0, init=False)
    _taken_s: float = field(default=0.0, init=False)
    _noted_s: "array[float]" = field(default_factory=lambda: array("d"), init=False)
    # Pairs: an index in `_noted_s`, and the events that passed before it without a note.
    _skips: "array[int]" = field(default_factory=lambda: array("q"), init=False)
    _unnoted: int = field(default=0, init=False)  # those of them that left

    def __post_init__(self, keep_gaps: bool) -> None:
        self.note = self._noted_s.append
        self.first_due_s = self.schedule.due_s(0)
        self.gaps_s = array("d") if keep_gaps else None

    def mark(self, now_s: float, events: int, left: Sequence[int] | None = None) -> None:
        """Note that `events` events left together at `now_s`, on ``time.monotonic()``.

        Where text is held back, ``left`` has the indices of those that did leave.
        """
        noted_s, skips = self._noted_s, self._skips
        if left is None:
            first, last, count = 0, events - 1, events
        else:
            first, last, count = (left[0], left[-1], len(left)) if left else (events, events - 1, 0)
        if first:
            skips.extend((len(noted_s), first))
        if count:
            noted_s.append(now_s)
        if count > 1:  # no event between these has a larger lag or gap
            skips.extend((len(noted_s), last - first - 1))
            noted_s.append(now_s)
            self._unnoted += count - 2
        if last + 1 < events:
            skips.extend((len(noted_s), events - 1 - last))
        self.settle(NOTES_KEPT)

    def settle(self, at_least: int = 1) -> None:
        """Update the figures if at least so many events were noted."""
        noted, skips = len(self._noted_s), self._skips
        if noted + len(skips) // 2 < at_least:
            return
        events = np.arange(self.passed, self.passed + noted + 1)
        if skips:
            before, count = np.array(skips).reshape(-1, 2).T
            skipped = np.zeros(noted + 1, np.int64)
            np.add.at(skipped, before, count)
            events += skipped.cumsum()
            del skips[:]
        if noted:
            self._take_in(np.array(self._noted_s) - self.start_s, events[:-1])
            del self._noted_s[:]
        self.passed = int(events[-1])

    def _take_in(self, left_s: NDArray[np.float64], events: NDArray[np.int64]) -> None:
        """Update the figures with some events, given when each left."""
        due_s = due_each(self.schedule, events * self.tokens_per_event)
        lag_s = float((left_s - np.maximum(due_s, self._taken_s)).max())
        self.worst_lag_s = max(self.worst_lag_s, lag_s)
        gaps_s, asked_s = left_s.copy(), due_s.copy()
        gaps_s[1:] -= left_s[:-1]
        asked_s[1:] -= due_s[:-1]
        if self.events:
            gaps_s[0] -= self.last_s
            asked_s[0] = max(
                asked_s[0] - self._last_due_s, self._taken_s and self._taken_s - self.last_s
            )
        else:
            self.first_s, self.first_due_s = float(left_s[0]), float(due_s[0])
            self._first = int(events[0])
            gaps_s, asked_s = gaps_s[1:], asked_s[1:]
        if len(gaps_s):
            self.largest_gap_s = max(self.largest_gap_s, float(gaps_s.max()))
            self.itl_lag_s = max(self.itl_lag_s, float((gaps_s - asked_s).max()))
        if self.gaps_s is not None:
            self.gaps_s.frombytes(gaps_s.tobytes())
            self.gaps_s.extend([0.0] * self._unnoted)
        self.events += len(left_s) + self._unnoted
        self._unnoted = 0
        self._last, self.last_s, self._last_due_s = (
            int(events[-1]),
            float(left_s[-1]),
            float(due_s[-1]),
        )

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
