"""Running an engine, or replicas of it, in simulated time, without an event loop."""

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic

from emulator.engine.config import EngineConfig
from emulator.engine.routing import DEFAULT_POLICY, Router
from emulator.engine.runner import TimedSequence
from emulator.engine.scheduler import OverloadError, S, Scheduler, Step
from emulator.settings import Policy


class Simulation(Generic[S]):
    """Runs an engine over requests, given as the sequences of their choices."""

    def __init__(self, scheduler: Scheduler[S]) -> None:
        self.scheduler = scheduler
        self.refused: list[Sequence[S]] = []

    def run(self, requests: Iterable[Sequence[S]]) -> Iterator[Step[S]]:
        """Yield each step at its end, until there is nothing left to do.

        Args:
            requests: In order of arrival; read lazily.
        """
        arriving = iter(requests)
        coming = next(arriving, None)
        while True:
            start_s = self.scheduler.next_start_s
            if start_s is None:
                if coming is None:
                    return
                start_s = max(self.scheduler.end_s, coming[0].arrival_s)
            while coming is not None and coming[0].arrival_s <= start_s:
                self._submit(coming)
                coming = next(arriving, None)
            if self.scheduler.start_step(start_s) is not None:
                yield self.scheduler.end_step()

    def _submit(self, request: Sequence[S]) -> None:
        try:
            self.scheduler.submit(request)
        except OverloadError:
            self.refused.append(request)


class _Event(IntEnum):
    """What an engine does next; of one instant ends come first, then arrivals, then starts."""

    END = 0
    START = 1


class Replicas(Generic[S]):
    """Runs replicas of an engine, among which a router divides the requests as they arrive.

    An engine has at most one event to come, the end of its step or the start of the next.

    Args:
        engines: The replicas.
        policy: How the router chooses.
        seed: Of the router.
    """

    def __init__(self, engines: Sequence[Scheduler[S]], policy: Policy, seed: int = 0) -> None:
        self.engines = engines
        self.refused: list[Sequence[S]] = []
        self.routed: list[int] = []
        self._router = Router(engines, policy, seed)
        self._events: list[tuple[float, _Event, int]] = []
        self._idle = [True] * len(engines)

    def run(self, requests: Iterable[Sequence[S]]) -> Iterator[Step[S]]:
        """Yield each step of any engine at its end, until there is nothing left to do.

        Args:
            requests: In order of arrival; read lazily.
        """
        for request in requests:
            yield from self._until(request[0].arrival_s)
            self._submit(request)
        yield from self._until(math.inf)

    def _until(self, instant_s: float) -> Iterator[Step[S]]:
        """Do what is due before an arrival: steps that end by then, and start earlier."""
        events = self._events
        while events and events[0] < (instant_s, _Event.START, 0):
            at_s, event, number = heapq.heappop(events)
            engine = self.engines[number]
            if event is _Event.END:
                yield engine.end_step()
            elif (step := engine.start_step(at_s)) is not None:
                heapq.heappush(events, (step.end_s, _Event.END, number))
                continue
            self._plan(number)

    def _plan(self, number: int) -> None:
        start_s = self.engines[number].next_start_s
        self._idle[number] = start_s is None
        if start_s is not None:
            heapq.heappush(self._events, (start_s, _Event.START, number))

    def _submit(self, request: Sequence[S]) -> None:
        number = self._router.choose(request[0].keys)
        self.routed.append(number)
        try:
            self.engines[number].submit(request)
        except OverloadError:
            self.refused.append(request)
            return
        if self._idle[number]:
            self._plan(number)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Replicas of an engine behind a router, as the server has them with one worker."""

    config: EngineConfig
    number: int = 1
    routing: Policy = DEFAULT_POLICY

    def replicas(self) -> Replicas[TimedSequence]:
        """Return the replicas, idle; the spread of their steps is that of the server's engines."""
        engines = [Scheduler[TimedSequence](self.config, seed) for seed in range(self.number)]
        return Replicas(engines, self.routing)
