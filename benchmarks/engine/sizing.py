"""How many replicas an engine needs so that first tokens come in time, in simulated time."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.engine.simulation import Fleet
from benchmarks.engine.workload import Workload

MOST_REPLICAS = 1024


@dataclass(frozen=True, slots=True)
class Target:
    """In what time how many requests are to have their first token.

    Args:
        ttft_ms: The time, from the request's arrival.
        percent: How many of the requests at least; one that is refused has none in time.
    """

    ttft_ms: float
    percent: float = 99.0


def meets(fleet: Fleet, workload: Workload, rate: float, duration_s: float, target: Target) -> bool:
    """Tell whether a fleet meets a target under a load; end as soon as it cannot any more.

    Raises:
        TooLongError: A request does not fit into the engine's cache.
        ValueError: The load is of no request at all.
    """
    requests = workload.requests(rate, duration_s, random.Random(1))
    if not requests:
        raise ValueError(f"no request comes in {duration_s:g} s at {rate:g} requests/s")
    allowed = len(requests) * (1 - target.percent / 100)
    replicas, late = fleet.replicas(), 0
    for step in replicas.run([request] for request in requests):
        for sequence in step.prefilled:
            is_first = sequence.first_token_s == step.end_s
            late += is_first and (step.end_s - sequence.arrival_s) * 1000 > target.ttft_ms
        if late + len(replicas.refused) > allowed:
            return False
    return late + len(replicas.refused) <= allowed


def fewest(suffices: Callable[[int], bool], most: int = MOST_REPLICAS) -> int | None:
    """Return the least number from 1 to `most` that suffices; None if not even `most` does.

    It is found by bisection: if a number suffices, then all above it are taken to.

    >>> fewest(lambda number: number >= 11)
    11
    """
    enough = 1
    while not suffices(enough):
        if enough == most:
            return None
        enough = min(2 * enough, most)
    too_few = enough // 2
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if suffices(middle):
            enough = middle
        else:
            too_few = middle
    return enough
