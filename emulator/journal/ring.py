"""A ring of records in memory that processes share: one process writes it, any reads it.

A record is a slot of fixed size, and, if it has more, some bytes of an arena. Before a slot is
written its number is odd, and even after it; a reader takes what has the same even number before
and after. No lock is needed, and what a killed process has written stays.
"""

import marshal
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROWS = 4096
SLOT_BYTES = 1024
ARENA_BYTES = 16_777_216
BODIES_ARENA_BYTES = 67_108_864
_HEAD_BYTES = mmap.PAGESIZE
_WORDS = 2  # of a slot: the number, and how many bytes follow
_WORD = 8
ROOM = SLOT_BYTES - _WORDS * _WORD

# Later ones look for values that are there twice, which takes longer than to write them.
_MARSHAL_VERSION = 2

Row = tuple[Any, ...]


class TooLongError(ValueError):
    """A record does not fit into a slot."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a ring is.

    Args:
        arena: The bytes for what does not fit into slots.
        rows: The records that are kept.
    """

    arena: int = ARENA_BYTES
    rows: int = ROWS

    @property
    def whole(self) -> int:
        """The bytes of a ring."""
        return _HEAD_BYTES + self.rows * SLOT_BYTES + self.arena


def reserve(path: str | Path, rings: int, sizes: Sizes) -> None:
    """Give a file, as from `files.create`, the room for so many rings."""
    os.truncate(path, rings * sizes.whole)


class Ring:
    """One ring of a file.

    Args:
        path: The file, which has room for it; None for memory that nobody shares.
        number: Which of the rings, from 0.
        sizes: As they were reserved.

    Raises:
        OSError: The file cannot be opened, or ends before the ring.
    """

    def __init__(self, path: str | Path | None, number: int = 0, sizes: Sizes = Sizes()) -> None:
        self._sizes = sizes
        self._rows = sizes.rows
        if path is None:
            memory = mmap.mmap(-1, sizes.whole)
        else:
            file = os.open(path, os.O_RDWR)
            try:
                offset = number * sizes.whole
                memory = mmap.mmap(file, sizes.whole, offset=offset)
            finally:
                os.close(file)
        self._memory = memory
        # How many records were written, and how many bytes of the arena.
        self._head = memoryview(memory)[: 2 * _WORD].cast("Q")
        self._words = memoryview(memory).cast("Q")
        self._arena_at = _HEAD_BYTES + sizes.rows * SLOT_BYTES

    @property
    def written(self) -> int:
        """How many records were ever written."""
        return self._head[0]

    def keep(self, content: bytes | memoryview) -> int:
        """Put bytes into the arena, for the next record to name; return where they are.

        Raises:
            TooLongError: They are longer than the arena.
        """
        size, arena = len(content), self._sizes.arena
        if size > arena:
            raise TooLongError(f"expected at most {arena} bytes, but got {size}")
        begins = self._head[1]
        if begins % arena + size > arena:
            begins += arena - begins % arena
        self._head[1] = begins + size  # before they are written: readers know what is overwritten
        at = self._arena_at + begins % arena
        self._memory[at : at + size] = content
        return begins

    def kept(self, begins: int, size: int) -> bytes | None:
        """Return bytes of the arena; None if they were overwritten."""
        at = self._arena_at + begins % self._sizes.arena
        content = self._memory[at : at + size]
        return content if begins + self._sizes.arena >= self._head[1] else None

    def write(self, row: Row) -> None:
        """Write a record of plain values; marshal knows no named tuples.

        Raises:
            TooLongError: It does not fit; nothing was written.
        """
        content = marshal.dumps(row, _MARSHAL_VERSION)
        size = len(content)
        if size > ROOM:
            raise TooLongError(f"expected at most {ROOM} bytes, but got {size}")
        words = self._words
        number = words[0]
        at = _HEAD_BYTES + number % self._rows * SLOT_BYTES
        word = at // _WORD
        words[word] = 2 * number + 1
        words[word + 1] = size
        at += _WORDS * _WORD
        self._memory[at : at + size] = content
        words[word] = 2 * number + 2
        words[0] = number + 1

    def read(self, number: int) -> Row | None:
        """Return a record by its number, from 0; None if it is not whole, or not there any more."""
        at = _HEAD_BYTES + number % self._sizes.rows * SLOT_BYTES
        words, word = self._words, at // _WORD
        expected = 2 * number + 2
        if words[word] != expected:
            return None
        size = words[word + 1]
        at += _WORDS * _WORD
        content = self._memory[at : at + min(size, ROOM)]
        if words[word] != expected or size > ROOM:
            return None
        row: Row = marshal.loads(content)  # noqa: S302 - written by this server's own processes
        return row

    def rows(self, first: int = 0) -> Iterator[tuple[int, Row]]:
        """Yield the records that are there from a number on, each with its number."""
        upto = self.written
        for number in range(max(first, upto - self._sizes.rows, 0), upto):
            row = self.read(number)
            if row is not None:
                yield number, row

    def newest(self) -> Iterator[tuple[int, Row]]:
        """Yield the records that are there, the newest first, each with its number."""
        upto = self.written
        for number in range(upto - 1, max(upto - self._rows, 0) - 1, -1):
            row = self.read(number)
            if row is not None:
                yield number, row
