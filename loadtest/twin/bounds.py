"""The bounds of an engine: what a server told, or what a sweep shows of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.twin.sweep import Arrivals, Point, Sweep, TwinError

USUAL_SEQUENCES = 256
USUAL_BLOCK_SIZE = 16
BUDGETS = (512, 1024, 2048, 4096, 8192, 16_384, 1_048_576)
ROOM = 4  # times the tokens that were there at once, where nobody tells the size of the cache
CACHED = 0.7  # of the first TTFT: below it a repeated prompt was found in a cache
MAX_TOKENS_AN_EVENT = 1.2
FEWEST_POINTS = 4

Bounds = dict[str, int | bool | str]


@dataclass(frozen=True, slots=True)
class Found:
    """Bounds, and in words what is not sure about them."""

    bounds: Bounds
    notes: list[str]
    budget_is_known: bool


def check_events(points: Sequence[Point]) -> list[str]:
    """Return what is to be said of several tokens in an event.

    Raises:
        TwinError: There are too few points, or so many tokens in an event that no step is seen.
    """
    if len(points) < FEWEST_POINTS:
        raise TwinError(
            f"expected at least {FEWEST_POINTS} loads in the sweep, but got {len(points)}: "
            "measure for longer"
        )
    requests = [request for point in points for request in point.requests]
    events = sum(len(request.gaps_ms) + 1 for request in requests)
    ratio = sum(request.output_tokens for request in requests) / events
    if ratio > MAX_TOKENS_AN_EVENT:
        raise TwinError(
            f"the server sends {ratio:.2f} tokens an event: its steps cannot be told apart, as "
            "where tokens are speculated or events are merged"
        )
    if ratio > 1.01:
        return [f"{ratio - 1:.1%} of the tokens came in an event with another one"]
    return []


def find_bounds(sweep: Sweep) -> Found:
    """Return the bounds of the engine behind a sweep."""
    known, notes = sweep.known, []
    sequences = known.max_num_seqs
    if sequences is None:
        sequences, note = _sequences(sweep.points)
        notes.append(note)
    block_size = known.block_size or USUAL_BLOCK_SIZE
    blocks = known.kv_blocks
    if blocks is None:
        blocks = -(-ROOM * _most_tokens(sweep.points) // block_size)
        notes.append(f"kv_blocks is a guess: {ROOM} times what the sweep had at once")
    caching = known.prefix_caching
    if caching is None:
        caching, note = _caching(sweep.points)
        notes.append(note)
    bounds: Bounds = {
        "source": "a fit",
        "max_num_seqs": sequences,
        "max_num_batched_tokens": known.max_num_batched_tokens or BUDGETS[-1],
        "kv_blocks": blocks,
        "block_size": block_size,
        "prefix_caching": caching,
    }
    return Found(bounds, notes, known.max_num_batched_tokens is not None)


def _sequences(points: Sequence[Point]) -> tuple[int, str]:
    """Return how many sequences ran at once, at most, and what that says."""
    peaks = [(_running(point), min(point.load.clients, len(point.requests))) for point in points]
    peak, most = max(peak for peak, _ in peaks), max(clients for _, clients in peaks)
    if peak < most:
        return peak, f"max_num_seqs is the most answers that ran at once, of {most} clients"
    guess = max(USUAL_SEQUENCES, peak)
    return guess, f"max_num_seqs is a guess: {peak} ran at once, and no request waited"


def _running(point: Point) -> int:
    """Return the most answers that were between their first and last event at once."""
    changes = [(r.start_ms + r.ttft_ms, 1) for r in point.requests]
    # One that follows in the step in which another ends is not there at once with it.
    changes += [(r.start_ms + r.e2e_ms + _last_gap(r.gaps_ms) / 2, -1) for r in point.requests]
    return int(np.cumsum([change for _, change in sorted(changes)]).max())


def _last_gap(gaps_ms: Sequence[float]) -> float:
    return -gaps_ms[-1] if gaps_ms else 0.0


def _most_tokens(points: Sequence[Point]) -> int:
    return max(
        min(p.load.clients if p.load.rate is None else len(p.requests), len(p.requests))
        * max(r.prompt_tokens + r.output_tokens for r in p.requests)
        for p in points
    )


def _caching(points: Sequence[Point]) -> tuple[bool, str]:
    """Return whether repeated prompts were cheaper, and how that is known."""
    for point in points:
        if point.load.shared and len(point.requests) > 1:
            first, *later = [request.ttft_ms for request in point.requests]
            ratio = float(np.median(later)) / first
            return ratio < CACHED, f"prefix_caching: the same prompt again took {ratio:.0%} of TTFT"
    return False, "prefix_caching is a guess: no prompt was repeated"


def budgets(points: Sequence[Point]) -> list[int]:
    """Return the bounds on a step's tokens that a sweep can tell apart."""
    most = max(
        min(point.load.clients if point.load.rate is None else 1, len(point.requests))
        * max(request.prompt_tokens for request in point.requests)
        for point in points
    )
    most = max([most, *(_burst(point) for point in points)])
    smaller = [budget for budget in BUDGETS if budget < most]
    return [*smaller, min(budget for budget in BUDGETS if budget not in smaller)]


def _burst(point: Point) -> int:
    """Return the tokens of the prompts that came at once."""
    if point.load.arrivals is not Arrivals.BURST:
        return 0
    return sum(request.prompt_tokens for request in point.requests)
