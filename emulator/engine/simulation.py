"""An engine in simulated time: an hour of load in about a second, with no loop and no socket."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic

from emulator.engine.scheduler import OverloadError, S, Scheduler, Step


class Simulation(Generic[S]):
    """Runs an engine over requests, each of which is the sequences of its choices.

    Args:
        scheduler: The engine.
    """

    def __init__(self, scheduler: Scheduler[S]) -> None:
        self.scheduler = scheduler
        self.refused: list[Sequence[S]] = []

    def run(self, requests: Iterable[Sequence[S]]) -> Iterator[Step[S]]:
        """Yield each step when it has ended, until there is nothing left to do.

        Args:
            requests: In order of arrival; they are read as time goes on.
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
