"""Starting values of a fit: a robust regression of times on what the steps in them had to do.

A stream gets one token a step, so that n of its gaps are n steps. What these had to do is counted
in the events of all streams between: their number is that of sequences, summed over the steps; a
first event is a prefill. No step needs to be told from the next one by its instant.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from loadtest.twin.simulated import WIRE_MS
from loadtest.twin.sweep import Point, Request

Array = NDArray[np.float64]

# What a step's time is linear in: the columns of `rows`, by the names of the engine's fields.
COLUMNS = (
    "step_base_ms",
    "step_per_prefill_token_ms",
    "step_per_sequence_ms",
    "step_per_context_token_ms",
    "step_per_prefill_token_squared_ms",
    "request_overhead_ms",
)
WINDOW = 8  # gaps: few enough that the batch stays what it is, enough to blur late reads
HUBER = 1.345  # of a standard deviation: 95 % efficient where errors are normal (Huber 1981)
ROUNDS = 20


def rows(points: Sequence[Point], budget: int) -> tuple[Array, Array]:
    """Return what there was to do in some stretches of time, a line each, and the times in ms.

    Args:
        points: What was measured.
        budget: The most tokens of a step; a longer prompt takes several.
    """
    lines = [line for point in points for line in _of(point, budget)]
    table = np.array(lines, dtype=float).reshape(len(lines), len(COLUMNS) + 1)
    table = table[table[:, -1] > 0]  # events of one read share an instant
    return table[:, :-1], table[:, -1]


def _of(point: Point, budget: int) -> Iterator[tuple[float, ...]]:
    events = sorted(event for request in point.requests for event in _events(request))
    at = np.array([event[0] for event in events])
    sums = np.vstack([np.zeros(4), np.cumsum([event[1:] for event in events], axis=0)])
    for request in point.requests:
        times = request.times_ms
        for first in range(0, len(times) - WINDOW, WINDOW):
            low, high = np.searchsorted(at, (times[first], times[first + WINDOW]), side="right")
            sequences, context, prefill, squares = sums[high] - sums[low]
            took = times[first + WINDOW] - times[first]
            yield WINDOW, prefill, sequences, context, squares, 0, took
    yield from _alone(point, budget)


def _events(request: Request) -> Iterator[tuple[float, float, float, float, float]]:
    """Yield each event: its instant, 1, context, prefilled tokens, and their square."""
    computed = request.prompt_tokens - request.cached_tokens
    squares = request.prompt_tokens**2 - request.cached_tokens**2
    for number, time in enumerate(request.times_ms):
        if number:
            yield time, 1, request.prompt_tokens + number, 0, 0
        else:
            yield time, 1, 0, computed, squares


def _alone(point: Point, budget: int) -> Iterator[tuple[float, ...]]:
    """Yield the first tokens of requests that had the server for themselves."""
    ordered = sorted(point.requests, key=lambda request: request.start_ms)
    busy_ms = float("-inf")
    for number, request in enumerate(ordered):
        first_ms = request.start_ms + request.ttft_ms
        following_ms = [later.start_ms for later in ordered[number + 1 : number + 2]]
        if request.start_ms >= busy_ms and all(first_ms < start for start in following_ms):
            computed = request.prompt_tokens - request.cached_tokens
            squares = request.prompt_tokens**2 - request.cached_tokens**2
            steps = -(-computed // budget)
            yield steps, computed, steps, 0, squares, 1, request.ttft_ms - WIRE_MS
        busy_ms = max(busy_ms, request.start_ms + request.e2e_ms)


def regress(work: Array, took: Array) -> Array:
    """Return how much each column of `work` takes, none below 0.

    Relative errors are minimized, those of outliers with less weight (Huber, by iteratively
    reweighted least squares). A column that would come out below 0 is left out.
    """
    relative = work / took[:, None]
    kept = np.flatnonzero(np.abs(relative).sum(axis=0) > 0)
    while len(kept):
        found = _robust(relative[:, kept])
        if found.min() >= 0:
            break
        kept = np.delete(kept, found.argmin())
    costs = np.zeros(work.shape[1])
    if len(kept):
        costs[kept] = found
    return costs


def _robust(relative: Array) -> Array:
    sizes = np.linalg.norm(relative, axis=0)
    scaled = relative / sizes
    weights = np.ones(len(scaled))
    found = np.zeros(scaled.shape[1])
    for _ in range(ROUNDS):
        root = np.sqrt(weights)
        found, *_ = np.linalg.lstsq(scaled * root[:, None], root, rcond=None)
        errors = np.abs(scaled @ found - 1)
        spread = max(1.4826 * float(np.median(errors)), 1e-9)
        weights = np.minimum(1, HUBER * spread / np.maximum(errors, 1e-12))
    return np.asarray(found / sizes)
