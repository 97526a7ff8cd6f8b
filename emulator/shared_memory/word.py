"""Integers in memory that processes share."""

import mmap
import os
from pathlib import Path


class SharedWords:
    """Integers of 64 bits, a page of them; to read or to write one of ``cells`` takes no lock.

    Args:
        path: A file, as from `files.create`; None for memory of this process alone.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: str | Path | None) -> None:
        if path is None:
            self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        else:
            file = os.open(path, os.O_RDWR)
            try:
                os.ftruncate(file, mmap.PAGESIZE)
                self._memory = mmap.mmap(file, mmap.PAGESIZE)
            finally:
                os.close(file)
        self.cells = memoryview(self._memory)[: mmap.PAGESIZE].cast("q")


class SharedWord(SharedWords):
    """One integer of 64 bits; to read or to write ``cell[0]`` takes no lock."""

    def __init__(self, path: str | Path | None) -> None:
        super().__init__(path)
        self.cell = self.cells[:1]
