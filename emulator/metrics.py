"""Prometheus metrics of the clock and the answers, on /metrics beside BentoML's.

prometheus_client keeps them in files that all workers share, so that any worker serves all.
"""

import asyncio
import os
import re
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import psutil
from prometheus_client import Counter, Gauge, Histogram, multiprocess

# Each increment in prometheus_client is a system call, a lock and a write to a shared file.
FLUSH_EVERY_S = 0.05


class Addable(Protocol):
    """A counter, a gauge, or a part of a histogram."""

    def inc(self, amount: float) -> None:
        """Add `amount`."""


class Tally:
    """Adds up increments, and passes the sums to prometheus_client a few times a second.

    ``sources`` are asked each time to add what they have.
    """

    def __init__(self) -> None:
        self.sources: list[Callable[[], None]] = []
        self._has_timer = False
        self._sums: dict[Addable, float] = {}
        self._latest: dict[Gauge, float] = {}

    def add(self, target: Addable, amount: float = 1) -> None:
        """Add `amount` to a counter or a gauge."""
        sums = self._sums
        if not sums:
            self.wake()
        sums[target] = sums.get(target, 0) + amount

    def observe(self, histogram: Histogram, value: float, times: int = 1) -> None:
        """Add `value` to a histogram without labels, or to a labelled child of one."""
        # Histogram.observe() does this one value at a time; there is no public way to add several.
        bucket = bisect_left(histogram._upper_bounds, value)
        self.add(histogram._buckets[bucket], times)
        self.add(histogram._sum, value * times)

    def set(self, gauge: Gauge, value: float) -> None:
        """Set a gauge, of which only the latest value is passed on."""
        self.wake()
        self._latest[gauge] = value

    def wake(self) -> None:
        """See to it that all is passed on in a while."""
        if not self._has_timer:
            self._has_timer = True
            asyncio.get_running_loop().call_later(FLUSH_EVERY_S, self._on_time)

    def _on_time(self) -> None:
        self._has_timer = False
        self.flush()

    def flush(self) -> None:
        """Pass on what was added up."""
        for source in self.sources:
            source()
        sums, self._sums = self._sums, {}
        latest, self._latest = self._latest, {}
        for gauge, value in latest.items():
            gauge.set(value)
        for target, amount in sums.items():
            target.inc(amount)


TALLY = Tally()


def forget_dead_workers() -> None:
    """Remove the values of killed workers from the gauges.

    A worker calls this at its start, as BentoML replaces those that died.
    """
    for file in Path(os.environ.get("PROMETHEUS_MULTIPROC_DIR", os.devnull)).glob("gauge_live*.db"):
        pid = re.search(r"_(\d+)\.db$", file.name)
        if pid and not psutil.pid_exists(int(pid[1])):
            multiprocess.mark_process_dead(int(pid[1]))  # type: ignore[no-untyped-call]


_PREFIX = "openai_emulator"
_LAG_BUCKETS_S = (
    50e-6,
    100e-6,
    250e-6,
    500e-6,
    1e-3,
    2.5e-3,
    5e-3,
    10e-3,
    25e-3,
    50e-3,
    100e-3,
    250e-3,
    500e-3,
    1.0,
)

TTFT_LAG = Histogram(
    f"{_PREFIX}_ttft_lag_seconds",
    "How long after it was due the first token of a stream left",
    buckets=_LAG_BUCKETS_S,
)
ITL_LAG = Histogram(
    f"{_PREFIX}_itl_lag_seconds",
    "By how much the gap between two tokens of a stream was longer than asked, its largest, "
    "waiting for the client aside",
    buckets=_LAG_BUCKETS_S,
)
WHOLE_LAG = Histogram(
    f"{_PREFIX}_whole_lag_seconds",
    "How long after it was due an answer that was not streamed left",
    buckets=_LAG_BUCKETS_S,
)
TOKENS = Counter(
    f"{_PREFIX}_tokens",
    "Completion tokens of all answers, as their usage counts them; of those that were left, "
    "the tokens that had been sent",
)
COMPLETIONS = Counter(f"{_PREFIX}_completions", "Answers that were sent", ["finish_reason"])
COMPLETED = {
    reason: COMPLETIONS.labels(reason)
    for reason in ("stop", "length", "tool_calls", "function_call", "content_filter")
}
ERRORS = Counter(f"{_PREFIX}_errors", "Requests that were refused or failed", ["status", "code"])
ERRORS.labels(400, "invalid_value")  # makes the series exist before the first error
FAULTS = Counter(f"{_PREFIX}_faults", "Answers that failed because they were to", ["kind"])
ACTIVE_STREAMS = Gauge(
    f"{_PREFIX}_active_streams", "Streams under way", multiprocess_mode="livesum"
)
_RATE_LIMITED = Counter(f"{_PREFIX}_rate_limited", "Requests that a rate limit refused", ["kind"])
RATE_LIMITED = {kind: _RATE_LIMITED.labels(kind) for kind in ("requests", "tokens")}
RATE_LIMIT_REMAINING = Gauge(
    f"{_PREFIX}_rate_limit_remaining",
    "What was left of a limit after the last request of a key with a name",
    ["key", "model", "kind"],
    multiprocess_mode="mostrecent",
)
UNLIMITED = Counter(
    f"{_PREFIX}_unlimited", "Requests that passed because the store of the limits was away"
)
FAST_PATH = Gauge(
    f"{_PREFIX}_fast_path",
    "Whether answers go past this package, which costs less; 0 where its version does not allow it",
    ["package"],
    multiprocess_mode="livemin",
)
REVISION = Gauge(
    f"{_PREFIX}_revision",
    "The number of changes since the start that all workers have",
    multiprocess_mode="livemin",
)
STORE_AWAY = Gauge(
    f"{_PREFIX}_store_away",
    "Whether the store that several hosts share cannot be reached, so that nothing can be changed",
    multiprocess_mode="livemax",
)
