"""What one worker has counted, for the summary of each second."""

import marshal
import os
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from emulator.engine.metrics import EngineMetrics
from emulator.serving.endings import Endings
from emulator.timing.watch import WATCH
from emulator.transport.ending import Ending
from emulator.transport.exchange import Exchange

MAX_MODELS = 20
OTHER = "other"
MAX_NAME = 128
MAX_LIMITS = 100
FULLEST = 10
# The upper bounds of the buckets, in s; one more holds the rest.
TTFT_BOUNDS_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0),
)
ITL_BOUNDS_S = (
    *(0.001, 0.002, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 5.0),
)
_TOO_MANY = 429
_TTFT = len(TTFT_BOUNDS_S) + 1
_ITL = len(ITL_BOUNDS_S) + 1


class ModelCounts(NamedTuple):
    """The requests of one model: one count, four histograms, and the sums of what is in each."""

    requests: list[int]
    ttft_asked: list[int]
    ttft_actual: list[int]
    itl_asked: list[int]
    itl_actual: list[int]
    sums_s: list[float]

    @classmethod
    def empty(cls) -> "ModelCounts":
        """Return those of a model without requests."""
        return cls([0], [0] * _TTFT, [0] * _TTFT, [0] * _ITL, [0] * _ITL, [0.0] * 4)

    def see(self, ending: Ending) -> None:
        """Count a stream that has ended."""
        self._add(0, self.ttft_asked, TTFT_BOUNDS_S, ending.ttft_s[0])
        self._add(1, self.ttft_actual, TTFT_BOUNDS_S, ending.ttft_s[1])
        if ending.tokens > 1:
            self._add(2, self.itl_asked, ITL_BOUNDS_S, ending.itl_s[0])
            self._add(3, self.itl_actual, ITL_BOUNDS_S, ending.itl_s[1])

    def _add(
        self, sum_: int, buckets: list[int], bounds_s: tuple[float, ...], value_s: float | None
    ) -> None:
        if value_s is not None:
            buckets[bisect_left(bounds_s, value_s)] += 1
            self.sums_s[sum_] += float(value_s)  # drawn times are numpy's, which marshal knows not


@dataclass(slots=True)
class Snapshot:
    """What a worker has counted since it began to.

    Counts add up over workers, and the difference of two snapshots is what came between them, if
    they have the same ``epoch``. ``max_lag_s``, ``cpu``, ``loop_lag_s``, ``under_way``,
    ``streams``, ``running``, ``waiting``, ``held``, ``blocks`` and ``limits`` are of the last
    second.
    """

    worker: int = 0
    pid: int = 0
    epoch: int = 0
    at: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    lag: list[int] = field(default_factory=list)
    models: dict[str, ModelCounts] = field(default_factory=dict)
    max_lag_s: float = 0.0
    cpu: float = 0.0
    loop_lag_s: float = 0.0
    under_way: int = 0
    streams: int = 0
    has_engine: bool = False
    running: int = 0
    waiting: int = 0
    held: int = 0
    blocks: int = 0
    limits: list[tuple[str, str, str, float, int]] = field(default_factory=list)

    def packed(self) -> bytes:
        """Return it as bytes."""
        models = {name: tuple(counts) for name, counts in self.models.items()}
        return marshal.dumps([models if n == "models" else getattr(self, n) for n in _FIELDS])

    @classmethod
    def unpacked(cls, content: bytes) -> "Snapshot":
        """Return what `packed` has made."""
        found = cls(*marshal.loads(content))  # noqa: S302 - of another worker of this server
        found.models = {name: ModelCounts(*each) for name, each in found.models.items()}
        return found


_FIELDS = tuple(Snapshot.__dataclass_fields__)


class Counting:
    """Counts how requests end, while somebody looks.

    Args:
        worker: The number of this worker.
        endings: Know what is under way.
        engines: The engines of this worker.
    """

    def __init__(
        self, worker: int, endings: Endings, engines: Sequence[EngineMetrics] = ()
    ) -> None:
        self._worker = worker
        self._endings = endings
        self._engines = engines
        self.is_on = False
        self._now = Snapshot()
        self._limits: dict[tuple[str, str, str], tuple[float, int]] = {}
        self._cpu_s = self._cpu_at_s = 0.0

    def begin(self) -> None:
        """Count from 0."""
        self._now = Snapshot(self._worker, os.getpid(), time.monotonic_ns())
        self._now.counts = dict.fromkeys(("tokens", "blocked", "limited", "timed", "late"), 0)
        self._limits.clear()
        self._cpu_s, self._cpu_at_s = time.process_time(), time.monotonic()
        WATCH.begin()
        WATCH.is_on = self.is_on = True

    def end(self) -> None:
        """Count no more."""
        WATCH.is_on = self.is_on = False

    def see(self, exchange: Exchange, ending: Ending | None) -> None:
        """Count how a request ended."""
        if not self.is_on:
            return
        now, status = self._now, exchange.status
        now.statuses[status] = now.statuses.get(status, 0) + 1
        if exchange.limits_left:
            self._see_limits(exchange, is_refused=ending is None)
        if exchange.model:
            model = self._model(exchange.model)
            model.requests[0] += 1
            if ending is not None and ending.is_stream:
                model.see(ending)
        if ending is None:
            return
        now.counts["blocked"] += ending.blocked_s > 0
        if not ending.is_stream and ending.is_complete:
            now.counts["tokens"] += ending.all_tokens
            if ending.whole_lag_s is not None:
                WATCH.add(ending.whole_lag_s)

    def _model(self, name: str) -> ModelCounts:
        models, name = self._now.models, name[:MAX_NAME]
        if name not in models and len(models) >= MAX_MODELS - 1:
            name = OTHER
        found = models.get(name)
        if found is None:
            found = models[name] = ModelCounts.empty()
        return found

    def _see_limits(self, exchange: Exchange, *, is_refused: bool) -> None:
        caller = exchange.caller
        key = "" if caller is None or caller.name is None else caller.name
        self._now.counts["limited"] += is_refused and exchange.status == _TOO_MANY
        for kind, left, limit in exchange.limits_left:
            place = (key[:MAX_NAME], exchange.model[:MAX_NAME], kind)
            if place in self._limits or len(self._limits) < MAX_LIMITS:
                self._limits[place] = 1 - max(left, 0) / limit, limit

    def snapshot(self, loop_lag_s: float) -> Snapshot:
        """Return what was counted by now.

        Args:
            loop_lag_s: How late the event loop was at most, since the last one.
        """
        now, cpu_s, at_s = self._now, time.process_time(), time.monotonic()
        now.at = time.time()
        now.counts |= {"timed": WATCH.timed, "late": WATCH.late}
        now.counts["stream_tokens"] = WATCH.tokens
        now.lag, now.max_lag_s, WATCH.max_s = WATCH.buckets, WATCH.max_s, 0.0
        now.cpu = 100 * (cpu_s - self._cpu_s) / max(at_s - self._cpu_at_s, 1e-3)
        self._cpu_s, self._cpu_at_s = cpu_s, at_s
        now.loop_lag_s = loop_lag_s
        now.under_way, now.streams = self._endings.under_way, len(WATCH.streams)
        fullest = sorted(self._limits.items(), key=lambda each: each[1][0], reverse=True)
        now.limits = [(*place, *found) for place, found in fullest[:FULLEST]]
        if self._engines:
            self._look_at(self._engines)
        return now

    def _look_at(self, engines: Sequence[EngineMetrics]) -> None:
        now, schedulers = self._now, [engine.scheduler for engine in engines]
        now.has_engine = True
        now.running = sum(len(each.running) for each in schedulers)
        now.waiting = sum(len(each.waiting) for each in schedulers)
        now.held = sum(each.pool.held for each in schedulers)
        now.blocks = sum(each.pool.blocks for each in schedulers)
        now.counts["queries"] = sum(engine.queried for engine in engines)
        now.counts["hits"] = sum(engine.hit for engine in engines)
        now.counts["preemptions"] = sum(engine.preempted for engine in engines)
