"""Running an engine in simulated time, without an event loop."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic

from emulator.engine.scheduler import OverloadError, S, Scheduler, Step


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
