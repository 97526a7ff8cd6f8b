"""What an engine would have done under a measured load: its own scheduler, in simulated time."""

import heapq
from collections.abc import Hashable, Sequence
from itertools import chain, pairwise
from statistics import median

from emulator.engine.config import EngineConfig
from emulator.engine.runner import TimedSequence
from emulator.engine.scheduler import OverloadError, Scheduler, TooLongError
from loadtest.twin.sweep import Arrivals, Point, Request, TwinError

# What the emulator itself adds to each TTFT on one machine: reading the request, and the first
# event's way to the client. docs/twin.md says how it was measured.
WIRE_MS = 0.7


def simulate(config: EngineConfig, point: Point, seed: int = 0, wire_ms: float = WIRE_MS) -> Point:
    """Return a point as the emulator with that engine would have answered it.

    Of a closed load each client sends its next request as soon after an answer as the measured ones
    did; the requests of the others are sent when the measured ones were.

    Args:
        config: The engine.
        point: What was measured: the lengths and the starts of its requests are used.
        seed: Of the spread of steps.
        wire_ms: Added to each TTFT.

    Raises:
        TwinError: A request does not fit into the engine's cache, or its queue is full.
    """
    scheduler = Scheduler[TimedSequence](config, seed)
    ordered = sorted(point.requests, key=lambda request: request.start_ms)
    sequences = [_sequence(config, point, number, asked) for number, asked in enumerate(ordered)]
    at_once = len(sequences)
    if point.load.arrivals is Arrivals.CLOSED:
        at_once = min(point.load.clients, at_once)
    first_ms = ordered[0].start_ms
    starts = [((asked.start_ms - first_ms) / 1000, i) for i, asked in enumerate(ordered[:at_once])]
    _run(scheduler, sequences, starts, turnaround_s(point))
    return point.model_copy(
        update={
            "requests": tuple(_answered(sequence, wire_ms) for sequence in sequences),
            "failures": {},
        }
    )


def turnaround_s(point: Point) -> float:
    """Return how long after an answer a client of a closed load sent its next request."""
    load, ends = point.load, sorted(r.start_ms + r.e2e_ms for r in point.requests)
    starts = sorted(request.start_ms for request in point.requests)[load.clients :]
    waits = [start - end for start, end in zip(starts, ends, strict=False)]
    return max(median(waits), 0) / 1000 if waits else 0.0


def _sequence(config: EngineConfig, point: Point, number: int, asked: Request) -> TimedSequence:
    """Return a request as the engine sees it; prompts share their blocks only if they are equal."""
    keys: Sequence[Hashable] = ()
    if config.prefix_caching:
        whole = asked.prompt_tokens // config.block_size
        of = "shared" if point.load.shared else number
        keys = [(of, asked.prompt_tokens, block) for block in range(whole)]
    return TimedSequence(asked.prompt_tokens, asked.output_tokens, keys=keys)


def _run(
    scheduler: Scheduler[TimedSequence],
    sequences: Sequence[TimedSequence],
    starts: list[tuple[float, int]],
    turnaround_s: float,
) -> None:
    """Run all sequences to their ends; those without a start follow one that has ended."""
    heapq.heapify(starts)
    following = iter(range(len(starts), len(sequences)))
    while starts or scheduler.next_start_s is not None:
        start_s = scheduler.next_start_s
        if start_s is None:
            start_s = max(scheduler.end_s, starts[0][0])
        while starts and starts[0][0] <= start_s:
            _submit(scheduler, sequences, *heapq.heappop(starts))
        step = scheduler.start_step(start_s)
        if step is None:
            continue
        scheduler.end_step()
        for sequence in step.advanced:
            sequence.due_s.append(step.end_s)
        for _, number in zip(step.finished, following, strict=False):
            heapq.heappush(starts, (step.end_s + turnaround_s, number))


def _submit(
    scheduler: Scheduler[TimedSequence],
    sequences: Sequence[TimedSequence],
    at_s: float,
    number: int,
) -> None:
    sequence = sequences[number]
    sequence.arrival_s = at_s
    try:
        scheduler.submit([sequence])
    except (TooLongError, OverloadError) as error:
        raise TwinError(f"the engine cannot take the load: {error}") from None


def _answered(sequence: TimedSequence, wire_ms: float) -> Request:
    """Return a request as its client saw it."""
    due_s = sequence.due_s
    return Request.model_construct(
        start_ms=sequence.arrival_s * 1000,
        prompt_tokens=sequence.prompt_tokens,
        output_tokens=sequence.output_tokens,
        cached_tokens=sequence.cached_tokens,
        ttft_ms=(due_s[0] - sequence.arrival_s) * 1000 + wire_ms,
        gaps_ms=tuple((later - at) * 1000 for at, later in pairwise(due_s)),
    )


def all_gaps(point: Point) -> list[float]:
    """Return the gaps of all requests of a point, in ms."""
    return list(chain.from_iterable(request.gaps_ms for request in point.requests))
