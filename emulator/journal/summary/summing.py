"""From what all workers have counted to the summary of a second."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

from emulator.faults.kinds import KINDS
from emulator.journal.bodies import (
    Bounds,
    EngineLoad,
    FullBucket,
    InFlight,
    Lag,
    Mark,
    ModelTimes,
    Spread,
    Summary,
    WorkerLoad,
)
from emulator.journal.summary.counting import (
    FULLEST,
    ITL_BOUNDS_S,
    MAX_MODELS,
    OTHER,
    TTFT_BOUNDS_S,
    ModelCounts,
    Snapshot,
)
from emulator.rules.counting import SharedCounts
from emulator.state import State
from emulator.timing.watch import LAG_BOUNDS_S
from emulator.transport.sending import CLIENT_CLOSED_REQUEST

# A worker that has said nothing for so long is gone, or stands still.
SILENT_S = 5.0
MARKS_FOR_S = 300
MAX_MARKS_TOLD = 20
MAX_RULES_TOLD = 200
MATCHED = "matched "
FAILED = "failed "


def _ms(bounds_s: Sequence[float]) -> list[float]:
    return [round(bound * 1000, 3) for bound in bounds_s]


BOUNDS = Bounds(lag=_ms(LAG_BOUNDS_S), ttft=_ms(TTFT_BOUNDS_S), itl=_ms(ITL_BOUNDS_S))


def matches(state: State, counts: SharedCounts) -> dict[str, int]:
    """Return how often each rule has matched since counts were set back."""
    rules, since = state.rules, state.counted_since()
    if rules is None:
        return {}
    return {
        rule.name: counts.read(f"{MATCHED}{rule.name}", since=since)
        for rule in rules.rules[:MAX_RULES_TOLD]
    }


def failures(counts: SharedCounts) -> dict[str, int]:
    """Return how many answers have failed on purpose since the start, by kind."""
    found = {kind: counts.read(FAILED + kind) for kind in KINDS}
    return {kind: count for kind, count in found.items() if count}


def difference(new: Snapshot, old: Snapshot | None) -> Snapshot:
    """Return what a worker has counted between two snapshots; all, if it has begun since."""
    if old is None or old.epoch != new.epoch:
        return new
    return Snapshot(
        counts={name: count - old.counts.get(name, 0) for name, count in new.counts.items()},
        statuses={name: n - old.statuses.get(name, 0) for name, n in new.statuses.items()},
        lag=_less(new.lag, old.lag),
        models={
            name: ModelCounts(*map(_less, each, old.models.get(name) or ModelCounts.empty()))
            for name, each in new.models.items()
        },
        max_lag_s=new.max_lag_s if new.at != old.at else 0.0,
    )


def _less(new: Any, old: Any) -> list[Any]:  # noqa: ANN401 - histograms, and their sums
    return [a - b for a, b in zip(new, old, strict=True)]


def added(counts: Sequence[Sequence[Any]], size: int) -> list[Any]:
    """Return the sums of some histograms of a size."""
    return [sum(column) for column in zip([0] * size, *counts, strict=True)]


def percentile_s(buckets: Sequence[int], share: float, max_s: float) -> float | None:
    """Return a percentile of lags, evenly within its bucket; None without any.

    Args:
        buckets: How many are in each bucket of `LAG_BOUNDS_S`.
        share: The percentile, 0 to 1.
        max_s: The largest lag.
    """
    total = sum(buckets)
    if not total:
        return None
    wanted, passed, low_s = share * total, 0, 0.0
    for count, high_s in zip(buckets, [*LAG_BOUNDS_S, max(max_s, LAG_BOUNDS_S[-1])], strict=True):
        if count and passed + count >= wanted:
            return min(low_s + (high_s - low_s) * (wanted - passed) / count, max(max_s, 0.0))
        passed, low_s = passed + count, high_s
    return max_s


class Summing:
    """Sums up each second what all workers have counted.

    Args:
        read: Returns the last snapshot of each worker.
        counts: Has the matches of rules, and failures.
        marks: Returns the last marks.
    """

    def __init__(
        self,
        read: Callable[[], Sequence[Snapshot]],
        counts: SharedCounts,
        marks: Callable[[], Sequence[Mark]],
    ) -> None:
        self._read = read
        self._counts = counts
        self._marks = marks
        self._old: dict[int, Snapshot] = {}
        self._at = 0.0
        self._started_s = time.monotonic()

    def begin(self) -> None:
        """Leave out what was counted by now."""
        self._old = {each.worker: each for each in self._read()}
        self._at = time.time()

    def summary(self, state: State) -> Summary:
        """Return what came since the last one."""
        now, found = time.time(), self._read()
        alive = [each for each in found if each.at > now - SILENT_S]
        differences = [difference(each, self._old.get(each.worker)) for each in found]
        self._old = {each.worker: each for each in found}
        at, span_s = now, now - self._at
        self._at = now
        counts = _sum([each.counts for each in differences])
        statuses = _sum([each.statuses for each in differences])
        marks = [mark for mark in self._marks() if mark.at > now - MARKS_FOR_S]
        return Summary(
            at=round(at, 3),
            span_s=round(span_s, 3),
            uptime_s=round(time.monotonic() - self._started_s, 1),
            revision=state.version,
            requests={str(status): count for status, count in sorted(statuses.items()) if count},
            in_flight=InFlight(
                requests=sum(each.under_way for each in alive),
                streams=sum(each.streams for each in alive),
            ),
            tokens=counts["tokens"] + counts["stream_tokens"],
            lag=_lag(differences, counts),
            bounds_ms=BOUNDS,
            models=_models(differences),
            workers=[_worker(each) for each in alive],
            engine=_engine(alive, counts),
            limits=_fullest(alive),
            limited=counts["limited"],
            faults=failures(self._counts),
            rules=matches(state, self._counts),
            clients_left=statuses[CLIENT_CLOSED_REQUEST],
            blocked=counts["blocked"],
            marks=marks[-MAX_MARKS_TOLD:],
        )


def _sum(each: Sequence[Mapping[str, int]] | Sequence[Mapping[int, int]]) -> Counter[str | int]:
    total: Counter[str | int] = Counter()
    for counts in each:
        total.update(counts)
    return total


def _lag(differences: Sequence[Snapshot], counts: Mapping[str | int, int]) -> Lag:
    buckets = added([each.lag for each in differences if each.lag], len(LAG_BOUNDS_S) + 1)
    max_s = max((each.max_lag_s for each in differences), default=0.0)
    p50_s, p99_s = (percentile_s(buckets, share, max_s) for share in (0.5, 0.99))
    return Lag(
        timed=counts["timed"],
        late=counts["late"],
        p50_ms=_rounded_ms(p50_s),
        p99_ms=_rounded_ms(p99_s),
        max_ms=None if p50_s is None else _rounded_ms(max_s),
        buckets=buckets,
    )


def _rounded_ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _models(differences: Sequence[Snapshot]) -> dict[str, ModelTimes]:
    """Return the models of all workers, those with the most requests; the others together."""
    found: dict[str, list[ModelCounts]] = {}
    for name, each in chain.from_iterable(one.models.items() for one in differences):
        if each.requests[0]:
            found.setdefault(name, []).append(each)
    order = sorted(found, key=lambda name: -sum(each.requests[0] for each in found[name]))
    named = [name for name in order if name != OTHER]
    told = named[: MAX_MODELS - 1] if len(found) > MAX_MODELS or OTHER in found else named
    rest = [each for name in order if name not in told for each in found[name]]
    models = {name: _times(found[name]) for name in told}
    return models | ({OTHER: _times(rest)} if rest else {})


def _times(each: Sequence[ModelCounts]) -> ModelTimes:
    [requests], *histograms, sums_s = [
        added([getattr(one, name) for one in each], len(getattr(each[0], name)))
        for name in ModelCounts._fields
    ]
    means = [
        round(sum_s / sum(buckets) * 1000, 3) if any(buckets) else None
        for buckets, sum_s in zip(histograms, sums_s, strict=True)
    ]
    ttft, itl = (
        Spread(
            asked=histograms[at],
            actual=histograms[at + 1],
            asked_mean_ms=means[at],
            actual_mean_ms=means[at + 1],
        )
        for at in (0, 2)
    )
    return ModelTimes(requests=requests, ttft=ttft, itl=itl)


def _worker(each: Snapshot) -> WorkerLoad:
    return WorkerLoad(
        worker=each.worker,
        pid=each.pid,
        cpu=round(each.cpu, 1),
        loop_lag_ms=round(each.loop_lag_s * 1000, 2),
        requests=each.under_way,
        streams=each.streams,
    )


def _engine(alive: Sequence[Snapshot], counts: Mapping[str | int, int]) -> EngineLoad | None:
    engines = [each for each in alive if each.has_engine]
    if not engines:
        return None
    blocks = sum(each.blocks for each in engines)
    return EngineLoad(
        running=sum(each.running for each in engines),
        waiting=sum(each.waiting for each in engines),
        cache=round(sum(each.held for each in engines) / max(blocks, 1), 4),
        prefix_queries=counts["queries"],
        prefix_hits=counts["hits"],
        preemptions=counts["preemptions"],
    )


def _fullest(alive: Sequence[Snapshot]) -> list[FullBucket]:
    """Return the fullest limits; of one that several workers have seen, what the fullest saw."""
    found: dict[tuple[str, str, str], FullBucket] = {}
    for key, model, kind, used, limit in chain.from_iterable(each.limits for each in alive):
        bucket = FullBucket(key=key, model=model, kind=kind, used=round(used, 4), limit=limit)
        place = (key, model, kind)
        if place not in found or found[place].used < used:
            found[place] = bucket
    return sorted(found.values(), key=lambda each: -each.used)[:FULLEST]
