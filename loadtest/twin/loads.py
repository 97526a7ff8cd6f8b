"""Which loads a sweep is made of, and running them."""

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Self

import gevent
import numpy as np
from gevent.pool import Pool

from loadtest.failures import StreamError
from loadtest.twin.client import Client
from loadtest.twin.fitting import shortened
from loadtest.twin.regression import Array, regress, rows
from loadtest.twin.sweep import (
    Arrivals,
    Known,
    Load,
    Point,
    Request,
    Sweep,
    TwinError,
    append,
    read_sweep,
)

ANSWERS_A_CLIENT = 3
MOST_TIMES = 3  # that one load is measured
FEWEST_ANSWERS = 6
POISSON_S = 12.0
MOST_POISSON = 300  # requests
ANY_BUDGET = 8192  # of a step, as long as the engine's own is not known
MAX_FAILED = 0.5  # of a load's requests


def run(client: Client, load: Load) -> Point:
    """Send a load, and return what came of it.

    Raises:
        TwinError: No request was answered, or most were not.
    """
    requests: list[Request] = []
    failures: Counter[str] = Counter()
    epoch_s = time.perf_counter()
    lengths = [load.prompt_tokens[i % len(load.prompt_tokens)] for i in range(load.requests)]

    def ask(length: int) -> None:
        try:
            answer = client.ask(length, load.output_tokens, load.shared)
        except StreamError as error:
            failures[str(error)] += 1
            return
        start_ms = round(answer.start_ms - epoch_s * 1000, 2)
        requests.append(answer.model_copy(update={"start_ms": start_ms}))

    _send(load, lengths, ask, epoch_s)
    if sum(failures.values()) > MAX_FAILED * load.requests or not requests:
        name, count = failures.most_common(1)[0]
        raise TwinError(f"{load}: {count} of {load.requests} requests failed: {name}")
    requests.sort(key=lambda request: request.start_ms)
    return Point(load=load, requests=tuple(requests), failures=dict(failures))


def _send(load: Load, lengths: Sequence[int], ask: Callable[[int], None], epoch_s: float) -> None:
    """Start each request when it is due, and wait for the end of all."""
    size = load.clients if load.arrivals is Arrivals.CLOSED else load.requests
    pool = Pool(size)
    rng = random.Random(load.requests)
    at_s, asking = epoch_s, []
    for length in lengths:
        if load.arrivals is Arrivals.POISSON and load.rate:
            at_s += rng.expovariate(load.rate)
            gevent.sleep(max(at_s - time.perf_counter(), 0))
        asking.append(pool.spawn(ask, length))  # a closed load waits here for a free client
    gevent.joinall(asking, raise_error=True)


@dataclass
class Design:
    """Chooses the next load by what is least known.

    Args:
        lengths: The lengths of prompts, in tokens.
        most_clients: At most.
        output_tokens: Of each answer.
    """

    lengths: Sequence[int]
    most_clients: int
    output_tokens: int
    _done: Counter[Load] = field(default_factory=Counter, init=False)

    def closed(self, length: int, clients: int) -> Load:
        """Return a closed load."""
        requests = max(ANSWERS_A_CLIENT * clients, FEWEST_ANSWERS)
        return Load(
            clients=clients,
            requests=requests,
            prompt_tokens=(length,),
            output_tokens=self.output_tokens,
        )

    def note(self, point: Point) -> None:
        """Note that a load was measured."""
        self._done[point.load] += 1

    def first(self) -> list[Load]:
        """Return what every sweep has: the corners, one client at each length, and the cache.

        Batches grow, so that what a larger one takes is known before it is sent.
        """
        short, long = self.lengths[0], self.lengths[-1]
        middle = self.lengths[len(self.lengths) // 2]
        most = self.most_clients
        again = Load(requests=FEWEST_ANSWERS, prompt_tokens=(long,), output_tokens=2, shared=True)
        burst = Load(
            arrivals=Arrivals.BURST,
            requests=max(most // 2, 2),
            prompt_tokens=(middle,),
            output_tokens=self.output_tokens,
        )
        loads = [
            self.closed(short, 1),
            self.closed(long, 1),
            self.closed(short, max(most // 8, 1)),
            again,
            self.closed(short, most),
            self.closed(middle, max(most // 4, 1)),
            *(self.closed(length, 1) for length in self.lengths[1:-1]),
            self.closed(middle, most),
            burst,
        ]
        return list(dict.fromkeys(loads))

    def next(self, points: Sequence[Point], left_s: float) -> Load | None:
        """Return the load whose times are least known for the time that it takes.

        None if none fits into the time that is left.
        """
        state = _State.of(points)
        for load in self.first():
            if not self._done[load] and self._seconds(state, load) <= left_s:
                return load
        candidates = [
            load
            for length in self.lengths
            for clients in self._clients()
            if self._seconds(state, load := self.closed(length, clients)) <= left_s
            and self._done[load] < MOST_TIMES
        ]
        return max(candidates, key=lambda load: self._gain(state, load), default=None)

    def seconds(self, points: Sequence[Point], load: Load) -> float:
        """Return how long a load takes, by what has been measured so far."""
        return self._seconds(_State.of(points), load)

    def _clients(self) -> list[int]:
        """Return 1, 2, 4, ... up to the most."""
        powers = [2**i for i in range(int(math.log2(self.most_clients)) + 1)]
        return sorted({*powers, self.most_clients})

    def _seconds(self, state: "_State", load: Load) -> float:
        waves = load.requests / load.clients
        return float(self._work(load) @ state.costs) / 1000 * waves * load.output_tokens

    def _gain(self, state: "_State", load: Load) -> float:
        """Return how uncertain a step of a load is, in its own length, for its square root of time.

        A load that was measured already tells less each time.
        """
        step = self._work(load)
        line = step / max(float(step @ state.costs), 1e-6) / state.size
        variance = float(line @ np.linalg.solve(state.information, line))
        seconds = max(self._seconds(state, load), 1.0)
        return math.sqrt(max(variance, 0.0) / seconds) / (1 + self._done[load])

    def _work(self, load: Load) -> Array:
        """Return what a mean step of a load has to do, as `regression.COLUMNS` has it."""
        length, clients, output = load.prompt_tokens[0], load.clients, load.output_tokens
        prefill = length * clients / output
        context = clients * (length + output / 2)
        return np.array([1, prefill, clients, context, prefill * length, 1 / output])


def unseen(lengths: Sequence[int], clients: int, output_tokens: int, rate: float) -> list[Load]:
    """Return loads that no sweep has: other clients and lengths, mixed ones, a burst, Poisson's.

    Args:
        lengths: Of the prompts of the sweep, in order.
        clients: The most of the sweep.
        output_tokens: Of each answer.
        rate: Of the Poisson arrivals, in requests/s.
    """
    between = tuple((low + high) // 2 for low, high in pairwise(lengths)) or tuple(lengths)
    middle = between[len(between) // 2]
    three_quarters = max(3 * clients // 4, 1)

    def closed(size: int, prompts: tuple[int, ...]) -> Load:
        requests = max(ANSWERS_A_CLIENT * size, FEWEST_ANSWERS)
        return Load(
            clients=size, requests=requests, prompt_tokens=prompts, output_tokens=output_tokens
        )

    return [
        closed(1, between),
        closed(min(3, clients), (middle,)),
        closed(max(3 * clients // 8, 1), between),
        closed(three_quarters, (middle,)),
        Load(
            arrivals=Arrivals.BURST,
            requests=three_quarters,
            prompt_tokens=between,
            output_tokens=output_tokens,
        ),
        Load(
            arrivals=Arrivals.POISSON,
            requests=min(max(int(rate * POISSON_S), FEWEST_ANSWERS), MOST_POISSON),
            prompt_tokens=between,
            output_tokens=output_tokens,
            rate=rate,
        ),
    ]


def noise(points: Sequence[Point]) -> str | None:
    """Return in words how much the same load differed from time to time; None without a second."""
    seen: dict[str, list[Point]] = {}
    for point in points:
        seen.setdefault(point.name, []).append(point)
    ratios = []
    for same in seen.values():
        medians = [float(np.median([r.e2e_ms for r in point.requests])) for point in same]
        ratios += [max(medians) / min(medians) - 1] if len(same) > 1 else []
    if not ratios:
        return None
    return f"the same load again differed by {np.median(ratios):.1%} (median), {max(ratios):.1%}"


@dataclass(frozen=True, slots=True)
class _State:
    """What each column of the regression takes so far, and how well that is known."""

    costs: Array
    information: Array
    size: Array

    @classmethod
    def of(cls, points: Sequence[Point]) -> Self:
        work, took = rows([shortened(point) for point in points], ANY_BUDGET)
        relative = work / took[:, None]
        size = np.maximum(np.linalg.norm(relative, axis=0), 1e-12)
        scaled = relative / size
        return cls(regress(work, took), scaled.T @ scaled + 1e-9 * np.eye(len(size)), size)


@dataclass
class Measurement:
    """Measuring a server into a file, in a given time.

    Args:
        client: Of the server.
        path: The file, which may hold what was measured before.
        design: Chooses the loads.
        minutes: For all loads; one that runs is not cut.
    """

    client: Client
    path: Path
    design: Design
    minutes: float

    def run(self, known: Known) -> Sweep:
        """Measure until the time is over; return all points, those of the file among them.

        Raises:
            TwinError: The file has another server, or the server fails.
        """
        points = self._resume(known)
        until_s = time.monotonic() + 60 * self.minutes
        while (left_s := until_s - time.monotonic()) > 0:
            again_s = self.design.seconds(points, points[0].load) if points else 0.0
            load = self.design.next(points, left_s - again_s)
            is_last = load is None
            if load is None:
                if not points:
                    break
                load = points[0].load  # once more, to see how noisy the server is
            self.client.log(f"{left_s:4.0f} s left: {load}")
            point = run(self.client, load)
            for name, count in point.failures.items():
                self.client.log(f"{count} of {load.requests} requests failed: {name}")
            append(self.path, point)
            self.design.note(point)
            points.append(point)
            if is_last:
                break
        self.client.log(noise(points) or "no load was measured twice: the noise is not known")
        return Sweep(known=known, points=tuple(points))

    def _resume(self, known: Known) -> list[Point]:
        if not self.path.exists():
            append(self.path, known)
            return []
        sweep = read_sweep(self.path)
        if (sweep.known.url, sweep.known.model) != (known.url, known.model):
            raise TwinError(
                f"{self.path}: holds a sweep of {sweep.known.model} at {sweep.known.url}: "
                "name another file"
            )
        for point in sweep.points:
            self.design.note(point)
        self.client.log(f"{len(sweep.points)} loads are in {self.path} already")
        return list(sweep.points)
