"""The journal of one worker, put together."""

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType

from emulator.control.operations import Operation
from emulator.control.truth import LOOK_EVERY_S
from emulator.journal.bodies import Summary
from emulator.journal.endpoints import JournalEndpoints
from emulator.journal.journal import Journal, prepare_rings, rings_prepared
from emulator.journal.marks import Marks, prepare_marks
from emulator.journal.summary.board import Board, Teller, prepare_board
from emulator.journal.summary.counting import Counting
from emulator.journal.summary.events import Events
from emulator.journal.summary.summing import FAILED, MATCHED, Summing, matches
from emulator.rules.counting import near_counts
from emulator.settings import Settings
from emulator.state import LiveState
from emulator.transport.bentoml_seam import worker_number
from emulator.transport.ending import Ending
from emulator.transport.exchange import Exchange
from emulator.worker import Worker


def prepare_journal(settings: Settings) -> None:
    """Create what the workers share, before any worker starts."""
    prepare_marks()
    prepare_board()
    prepare_rings(settings.workers, bodies=settings.journal_bodies)


class JournalRoom:
    """What tells of requests that have ended.

    ``journal`` is None where it is off; ``marks`` are those of all workers.

    Args:
        live: The state; its settings at the start say whether there is a journal.
        worker: Tells of requests that end.
    """

    def __init__(self, live: LiveState, worker: Worker) -> None:
        settings, number = live.start.settings, worker_number() or 1
        self._live = live
        self.marks = Marks.opened()
        self.journal: Journal | None = None
        endings = (worker.endings, worker.lookups)
        if settings.journal:
            self.journal = Journal.opened(number, bodies=settings.journal_bodies)
            for each in endings:
                each.subscribe(self.journal.write)
        self._counts = near_counts(alone=settings.workers == 1)
        engines = () if worker.engine is None else worker.engine.metrics
        self._counting = Counting(number, worker.endings, engines)
        worker.endings.subscribe(self._count)
        worker.lookups.subscribe(self._counting.see)
        self._board = Board.opened(max(rings_prepared(), number))
        self._summing = Summing(self._board.read, self._counts, self.marks.all)
        self._events = Events(self._summing.begin, self._board.watch, self._summary)
        self._endpoints = JournalEndpoints(self.journal, self.marks, live)
        self._teller = Teller(self._board, self._counting, LOOK_EVERY_S, _later)

    @property
    def operations(self) -> Sequence[Operation]:
        """What can be asked."""
        return [*self._endpoints.operations, self._events.operation]

    @property
    def ticks(self) -> Sequence[Callable[[], None]]:
        """What is called many times a second."""
        return [self._teller.tick]

    def matches(self) -> dict[str, int]:
        """Return how often each rule has matched."""
        return matches(self._live.current, self._counts)

    async def _summary(self) -> Summary:
        return await asyncio.to_thread(self._summing.summary, self._live.current)

    def _count(self, exchange: Exchange, ending: Ending | None) -> None:
        """Count rules that have decided and failures always, and the rest while somebody looks."""
        if exchange.rules:
            since = exchange.state.counted_since()
            for name in exchange.rules:
                self._counts.add(MATCHED + name, since=since)
        if ending is not None and ending.fault:
            self._counts.add(FAILED + ending.fault.partition("@")[0])
        self._counting.see(exchange, ending)

    def start(self) -> None:
        """Let those who look go when the server is told to end, which else would wait for them."""
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            before = signal.getsignal(number)
            if callable(before):
                signal.signal(number, self._told_to_end(loop, before))

    def _told_to_end(
        self, loop: asyncio.AbstractEventLoop, before: Callable[[int, FrameType | None], object]
    ) -> Callable[[int, FrameType | None], None]:
        def end(number: int, frame: FrameType | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._events.close)
            before(number, frame)

        return end


def _later(delay_s: float, call: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(delay_s, call)
