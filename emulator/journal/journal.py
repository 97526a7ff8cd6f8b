"""The journal of a server: each worker writes its own ring, and any of them reads all."""

import heapq
import logging
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import NamedTuple

from emulator.journal.ring import (
    ARENA_BYTES,
    BODIES_ARENA_BYTES,
    ROWS,
    Ring,
    Row,
    Sizes,
    TooLongError,
    reserve,
)
from emulator.journal.rows import More, Record, request_id, row_of, shortened
from emulator.limits.keys import key_of
from emulator.limits.resets import NO_RESETS, Resets
from emulator.shared_memory.files import create
from emulator.timing.pace import Pace
from emulator.timing.plan import GenerationPlan
from emulator.transport.ending import Ending
from emulator.transport.exchange import Exchange

# Where the workers of a server find what they share, and for how many there is room.
RINGS_VARIABLE = "OPENAI_EMULATOR_JOURNAL"
COUNT_VARIABLE = "OPENAI_EMULATOR_JOURNAL_RINGS"
MAX_RINGS = 256

logger = logging.getLogger("bentoml.openai_emulator")


def sizes_of(*, bodies: bool) -> Sizes:
    """Return how large the ring of a worker is."""
    return Sizes(BODIES_ARENA_BYTES if bodies else ARENA_BYTES)


def prepare_rings(workers: int | None, *, bodies: bool) -> None:
    """Create the rings that the workers share, before any worker starts.

    Args:
        workers: How many there are; None for one a core.
        bodies: Whether bodies are kept.
    """
    count = min(workers or os.cpu_count() or 1, MAX_RINGS)
    path = create(RINGS_VARIABLE.lower())
    reserve(path, count, sizes_of(bodies=bodies))
    os.environ[RINGS_VARIABLE], os.environ[COUNT_VARIABLE] = path, str(count)


def rings_prepared() -> int:
    """Return for how many workers there is room."""
    return int(os.environ.get(COUNT_VARIABLE, "1"))


class Found(NamedTuple):
    """A request of the journal.

    Args:
        ended_at: When it ended; requests are ordered by it.
        ring: The ring that it is in, from 0.
        number: Its number there.
        record: What is kept of it.
    """

    ended_at: float
    ring: int
    number: int
    record: Record

    @property
    def worker(self) -> int:
        """The worker that answered it, from 1."""
        return self.ring + 1


Fits = Callable[[Record], bool]


def body_without_key(exchange: Exchange) -> bytes:
    """Return what is kept of a body, without the API key, should it hold it."""
    key = key_of(exchange.header(b"authorization")).encode()
    return exchange.body.replace(key, b"***") if key else exchange.body


class Journal:
    """Writes what ends in this worker, and reads what has ended in all.

    Args:
        rings: The rings of all workers.
        own: Which of them this worker writes, from 0.
    """

    def __init__(self, rings: Sequence[Ring], own: int) -> None:
        self.rings = rings
        self._own = rings[own]

    @classmethod
    def opened(cls, worker: int, *, bodies: bool) -> "Journal":
        """Return the journal that this server's processes share.

        Args:
            worker: The number of this worker, from 1.
            bodies: Whether bodies are kept.
        """
        path, sizes = os.environ.get(RINGS_VARIABLE), sizes_of(bodies=bodies)
        count = rings_prepared()
        if path is None or worker > count:
            if path is not None:
                logger.warning("journal=private: there are more workers than %s", count)
            return cls([Ring(None, sizes=sizes)], 0)
        return cls([Ring(path, number, sizes) for number in range(count)], worker - 1)

    def write(self, exchange: Exchange, ending: Ending | None) -> None:
        """Note how a request ended."""
        row = row_of(exchange, ending)
        pace = None if ending is None else ending.pace
        if (pace is not None and pace.left_s) or exchange.body:
            row = self._with_more(row, pace, exchange)
        try:
            self._own.write(row)
        except TooLongError:
            self._own.write(shortened(row))

    def _with_more(self, row: Row, pace: Pace | None, exchange: Exchange) -> Row:
        """Keep the instants of a request's tokens, and its body."""
        left, due, regular, events = b"", b"", None, 0
        body = body_without_key(exchange) if exchange.body else b""
        if pace is not None and pace.left_s:
            events, schedule, step = len(pace.left_s), pace.schedule, pace.tokens_per_event
            left = pace.left_s.tobytes()
            if isinstance(schedule, GenerationPlan) and schedule.offsets is None:
                regular = schedule.due_s(0), schedule.itl_s * step
            else:
                due = array("d", [schedule.due_s(i * step) for i in range(events)]).tobytes()
        more = More(self._own.keep(left + due + body), events, regular, len(body))
        return (*row, *more)

    # ----------------------------------------------------------------------------------
    # Reading
    # ----------------------------------------------------------------------------------

    def end(self) -> list[int]:
        """Return how many records each ring has got."""
        return [ring.written for ring in self.rings]

    def after(self, positions: Sequence[int], resets: Resets = NO_RESETS) -> Iterator[Found]:
        """Yield the requests from some positions on, those that ended first before the others.

        Args:
            positions: By ring, the number of the first record.
            resets: Hide those that came before they were set back.
        """
        each = [_found(ring, self.rings[ring].rows(first)) for ring, first in enumerate(positions)]
        return _told(heapq.merge(*each, key=itemgetter(0)), resets)

    def newest(self, resets: Resets = NO_RESETS) -> Iterator[Found]:
        """Yield the last requests of the server, the newest first; as many as a ring keeps."""
        each = [_found(number, ring.newest()) for number, ring in enumerate(self.rings)]
        merged = heapq.merge(*each, key=itemgetter(0), reverse=True)
        return _told(islice(merged, ROWS), resets)

    def latest(self, resets: Resets = NO_RESETS) -> list[Found]:
        """Return the last requests of the server, the newest last; as many as a ring keeps."""
        return [*self.newest(resets)][::-1]

    def find(self, name: str, resets: Resets = NO_RESETS) -> Found | None:
        """Return the last request of an x-request-id, or of an answer's id; None if none is left.

        Args:
            name: The id.
            resets: Hide those that came before they were set back.
        """
        for found in self.newest(resets):
            if name in (request_id(found.record), found.record.answer_id):
                return found
        return None

    def details(self, found: Found) -> tuple[bytes, bytes | None]:
        """Return what is kept of the instants of a request, and its body."""
        record, ring = found.record, self.rings[found.ring]
        size = record.events * 8 * (1 if record.regular else 2)
        kept = ring.kept(record.kept_at, size + record.body_bytes)
        if kept is None:
            return b"", None
        return kept[:size], kept[size:] if record.body_bytes else None


def _found(ring: int, rows: Iterator[tuple[int, Row]]) -> Iterator[Found]:
    for number, row in rows:
        record = Record(*row)
        yield Found(record.ended_at, ring, number, record)


def _told(each: Iterable[Found], resets: Resets) -> Iterator[Found]:
    """Yield those that came after the journal was last set back."""
    return (found for found in each if found.record.revision >= resets.of(found.record.scope))
