"""What a report tells: the requests of a span, by second, model, status, fault and rule. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

MOST_POINTS = 300
MOST_MODELS = 20
MOST_NAMES = 50
SLOWEST = 10
# Upper bounds of buckets, in ms; the last is for all that is longer.
BOUNDS_MS = (*(factor * 10**power for power in range(-1, 5) for factor in (1, 2, 5)), math.inf)
_LEFT = 499


class Timed(NamedTuple):
    """One request, as a report counts it; times in ms, None where there is none.

    Args:
        id: Its id.
        at: When it came, on ``time.time()``.
        model: The model.
        status: The status.
        tokens: The tokens that left.
        ttft: Asked and actual.
        itl: Asked and actual.
        total: Asked and actual.
        lag: How late its latest token left.
        fault: The failure on purpose; empty for none.
        rules: The rules that decided something.
        ended_at: When it ended.
    """

    id: str
    at: float
    model: str
    status: int
    tokens: int
    ttft: tuple[float | None, float | None]
    itl: tuple[float | None, float | None]
    total: tuple[float | None, float | None]
    lag: float | None
    fault: str
    rules: Sequence[str]
    ended_at: float


def figures(requests: Sequence[Timed], start_at: float, end_at: float) -> dict[str, Any]:
    """Return the figures of a span.

    Args:
        requests: Those of the span.
        start_at: When it begins, on ``time.time()``.
        end_at: When it ends.
    """
    length_s = max(end_at - start_at, 1)
    step_s = math.ceil(length_s / MOST_POINTS)
    return {
        "from": start_at,
        "to": start_at + length_s,
        "step_s": step_s,
        "bounds": [None if math.isinf(bound) else bound for bound in BOUNDS_MS],
        "overall": _overall(requests, length_s),
        "points": _points(requests, start_at, step_s),
        "models": _models(requests),
        "statuses": _most(str(each.status) for each in requests),
        "faults": _most(each.fault for each in requests if each.fault),
        "rules": _most(name for each in requests for name in each.rules),
        "slowest": [_slow(each) for each in _slowest(requests)],
    }


def _overall(requests: Sequence[Timed], length_s: float) -> dict[str, Any]:
    return {
        "requests": len(requests),
        "failed": sum(each.status >= 400 or bool(each.fault) for each in requests),
        "tokens": sum(each.tokens for each in requests),
        "rate": len(requests) / length_s,
        "ttft_asked": _quantiles(each.ttft[0] for each in requests),
        "ttft": _quantiles(each.ttft[1] for each in requests),
        "itl_asked": _quantiles(each.itl[0] for each in requests),
        "itl": _quantiles(each.itl[1] for each in requests),
        "lag": _quantiles(each.lag for each in requests),
    }


def _quantiles(values: Iterable[float | None]) -> dict[str, float] | None:
    found = np.array([value for value in values if value is not None])
    if not found.size:
        return None
    p50, p99 = np.percentile(found, (50, 99))
    return {"p50": float(p50), "p99": float(p99), "max": float(found.max())}


def _points(requests: Sequence[Timed], start_at: float, step_s: int) -> list[dict[str, Any]]:
    """Return a point for each step in which a request ended."""
    steps: dict[int, list[Timed]] = {}
    for each in requests:
        steps.setdefault(int((each.ended_at - start_at) / step_s), []).append(each)
    return [_point(steps[step], start_at + step * step_s, step_s) for step in sorted(steps)]


def _point(requests: Sequence[Timed], at: float, step_s: int) -> dict[str, Any]:
    statuses = Counter("left" if each.status == _LEFT else each.status // 100 for each in requests)
    lags = [each.lag for each in requests if each.lag is not None]
    return {
        "t": at,
        "statuses": [statuses[kind] / step_s for kind in (2, 4, 5, "left")],
        "tokens": sum(each.tokens for each in requests) / step_s,
        "lag": [_median(lags), max(lags, default=None)],
        "ttft": [_median(each.ttft[which] for each in requests) for which in (1, 0)],
        "itl": [_median(each.itl[which] for each in requests) for which in (1, 0)],
    }


def _median(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return float(np.median(found)) if found else None


def _models(requests: Sequence[Timed]) -> list[dict[str, Any]]:
    by_model: dict[str, list[Timed]] = {}
    for each in requests:
        by_model.setdefault(each.model, []).append(each)
    most = sorted(by_model.items(), key=lambda item: -len(item[1]))[:MOST_MODELS]
    return [
        {
            "name": name,
            "requests": len(found),
            "ttft_asked": _buckets(each.ttft[0] for each in found),
            "ttft": _buckets(each.ttft[1] for each in found),
            "itl_asked": _buckets(each.itl[0] for each in found),
            "itl": _buckets(each.itl[1] for each in found),
        }
        for name, found in most
    ]


def _buckets(values: Iterable[float | None]) -> list[int]:
    places = np.searchsorted(BOUNDS_MS, [value for value in values if value is not None])
    return [int(count) for count in np.bincount(places, minlength=len(BOUNDS_MS))]


def _most(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common(MOST_NAMES))


def _slowest(requests: Sequence[Timed]) -> Sequence[Timed]:
    return sorted(requests, key=lambda each: -(each.total[1] or 0))[:SLOWEST]


def _slow(each: Timed) -> dict[str, Any]:
    return {
        "id": each.id,
        "model": each.model,
        "status": each.status,
        "total": each.total[1],
        "total_asked": each.total[0],
        "lag": each.lag,
    }
