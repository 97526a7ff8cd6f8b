"""Where each worker puts what it has counted, once a second, while somebody looks."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from time import monotonic

from emulator.journal.summary.counting import Counting, Snapshot
from emulator.shared_memory.document import SharedDocument
from emulator.shared_memory.files import create
from emulator.shared_memory.word import SharedWord
from emulator.timing.watch import WATCH

BOARD_VARIABLE = "OPENAI_EMULATOR_BOARD"
WORD_VARIABLE = "OPENAI_EMULATOR_WATCHED"
# A snapshot of 20 models with names of 128 characters takes some 30 KB.
MAX_SNAPSHOT_BYTES = 128 * 1024
# How long somebody counts as looking after having said so.
LOOKS_FOR_S = 3
# To settle all streams of a worker is done in pieces, so that no token waits for it.
PIECE_S = 0.0005
BREAK_S = 0.002

Later = Callable[[float, Callable[[], None]], object]


def prepare_board() -> None:
    """Create what the workers share, before any worker starts."""
    for variable in (BOARD_VARIABLE, WORD_VARIABLE):
        os.environ[variable] = create(variable.lower())


class Board:
    """The snapshots of all workers, and until when somebody looks at them.

    Args:
        parts: Where each worker puts its own.
        until: Until when somebody looks, on ``time.monotonic_ns()``.
    """

    def __init__(self, parts: Sequence[SharedDocument], until: SharedWord) -> None:
        self._parts = parts
        self._until = until.cell

    @classmethod
    def opened(cls, workers: int) -> "Board":
        """Return the board that this server's processes share."""
        board, word = (
            os.environ.get(variable) or create(variable.lower())
            for variable in (BOARD_VARIABLE, WORD_VARIABLE)
        )
        parts = [SharedDocument(board, MAX_SNAPSHOT_BYTES, n, workers) for n in range(workers)]
        return cls(parts, SharedWord(word))

    @property
    def is_watched(self) -> bool:
        """Whether somebody looks."""
        return self._until[0] > time.monotonic_ns()

    def watch(self) -> None:
        """Look, for some seconds from now on."""
        self._until[0] = time.monotonic_ns() + LOOKS_FOR_S * 1_000_000_000

    def put(self, snapshot: Snapshot) -> None:
        """Put the snapshot of a worker in the place of its last one."""
        self._parts[snapshot.worker - 1].write(snapshot.packed())

    def read(self) -> list[Snapshot]:
        """Return the last snapshot of each worker that has put one there."""
        found = [part.read()[1] for part in self._parts]
        return [Snapshot.unpacked(content) for content in found if content]


class Teller:
    """Puts what a worker counts on the board, while somebody looks.

    Args:
        board: The board.
        counting: What is counted.
        every_s: How often `tick` is called.
        later: Calls a function after some seconds.
    """

    def __init__(self, board: Board, counting: Counting, every_s: float, later: Later) -> None:
        self._board = board
        self._counting = counting
        self._every_s = every_s
        self._later = later
        self._ticked_s = self._loop_lag_s = 0.0
        self._second = 0

    def tick(self) -> None:
        """Look whether anybody looks, and whether a second is over; called many times a second."""
        if not self._board.is_watched:
            if self._counting.is_on:
                self._counting.end()
            return
        now_s, second = monotonic(), int(time.time())
        if not self._counting.is_on:
            self._counting.begin()
            self._second, self._loop_lag_s = second, 0.0
            self._board.put(self._counting.snapshot(0.0))
        else:
            self._loop_lag_s = max(self._loop_lag_s, now_s - self._ticked_s - self._every_s)
        self._ticked_s = now_s
        if second != self._second:
            self._second = second
            self._settle(iter([*WATCH.streams]))

    def _settle(self, streams: Iterator[object]) -> None:
        """Take in what streams have noted, a piece at a time, and put all on the board."""
        ends_s = monotonic() + PIECE_S
        for stream in streams:
            stream.settle()  # type: ignore[attr-defined]
            if monotonic() >= ends_s:
                self._later(BREAK_S, lambda: self._settle(streams))
                return
        self._board.put(self._counting.snapshot(self._loop_lag_s))
        self._loop_lag_s = 0.0
