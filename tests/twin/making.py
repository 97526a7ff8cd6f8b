"""Sweeps that an engine would have given, in simulated time."""

import random
from collections.abc import Iterable
from itertools import pairwise

from emulator.engine.config import EngineConfig, load_engine
from loadtest.twin.loads import Design
from loadtest.twin.simulated import WIRE_MS, simulate
from loadtest.twin.sweep import Arrivals, Known, Load, Point, Request, Sweep

LENGTHS = (50, 200, 500, 1000, 2000)


def config(**changes: object) -> EngineConfig:
    """Return the engine `paper` with some other fields."""
    paper = load_engine("paper").model_dump()
    return EngineConfig.model_validate(paper | changes)


def asked(load: Load) -> Point:
    """Return a load before it was sent: lengths and starts alone are its own."""
    every = 0.0 if load.rate is None else 1000 / load.rate
    lengths = load.prompt_tokens
    return Point(
        load=load,
        requests=tuple(
            Request(
                start_ms=number * every,
                prompt_tokens=lengths[number % len(lengths)],
                output_tokens=load.output_tokens,
                ttft_ms=1,
            )
            for number in range(load.requests)
        ),
    )


def measured(engine: EngineConfig, loads: Iterable[Load], late_ms: float, seed: int = 0) -> Sweep:
    """Return what a client sees whose every read is late by up to `late_ms`."""
    rng = random.Random(seed)
    points = [simulate(engine, asked(load), seed + n, WIRE_MS) for n, load in enumerate(loads)]
    return Sweep(known=Known(model="m"), points=tuple(_late(p, late_ms, rng) for p in points))


def _late(point: Point, late_ms: float, rng: random.Random) -> Point:
    requests = []
    for request in point.requests:
        times = [time + rng.uniform(0, late_ms) for time in request.times_ms]
        gaps = tuple(later - at for at, later in pairwise(times))
        ttft = times[0] - request.start_ms
        requests.append(request.model_copy(update={"ttft_ms": ttft, "gaps_ms": gaps}))
    return point.model_copy(update={"requests": tuple(requests)})


def usual_loads(clients: int = 32, output_tokens: int = 32) -> list[Load]:
    """Return the loads that every sweep has, and some that a longer one has."""
    design = Design(LENGTHS, clients, output_tokens)
    sizes = (2, 4, clients // 2)
    more = [design.closed(length, size) for size in sizes for length in (50, 1000)]
    return [load for load in (*design.first(), *more) if not load.shared]


def burst(size: int, length: int = 100, output_tokens: int = 8) -> Load:
    """Return a burst."""
    return Load(
        arrivals=Arrivals.BURST,
        requests=size,
        prompt_tokens=(length,),
        output_tokens=output_tokens,
    )
