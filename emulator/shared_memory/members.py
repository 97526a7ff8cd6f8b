"""The processes of a server that are alive, and one integer of each, in memory that they share."""

import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

MAX_MEMBERS = 1024
# Process id, when the process was made, and its integer. A process id alone may come again.
_SLOT = struct.Struct("=qqq")
# By how much two looks at when a process was made may differ, as clocks are set.
_CLOCK_MS = 2000


@dataclass(frozen=True, slots=True)
class Member:
    """A process that is alive, and the integer that it tells."""

    pid: int
    value: int


class Members:
    """Who shares the memory: each process that has joined, until it ends.

    Args:
        path: A file, as from `files.create`.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        size = MAX_MEMBERS * _SLOT.size
        self._file = -1
        self._at: int | None = None
        self._memory: mmap.mmap
        if fcntl is None:  # each process is alone
            self._memory = mmap.mmap(-1, size)
            return
        self._file = os.open(path, os.O_RDWR)
        os.ftruncate(self._file, size)
        self._memory = mmap.mmap(self._file, size)

    def join(self) -> None:
        """Be one of them.

        Raises:
            RuntimeError: There are as many as may be.
        """
        own = psutil.Process()
        if fcntl is not None:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            self._at = self._free()
            _SLOT.pack_into(self._memory, self._at, own.pid, _made(own), 0)
        finally:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _free(self) -> int:
        for at in range(0, len(self._memory), _SLOT.size):
            pid, made, _ = _SLOT.unpack_from(self._memory, at)
            if not pid or not _is_alive(pid, made):
                return at
        raise RuntimeError(f"more than {MAX_MEMBERS} processes")

    def tell(self, value: int) -> None:
        """Tell the others an integer of this process's, if it has joined."""
        if self._at is not None:
            struct.pack_into("=q", self._memory, self._at + _SLOT.size - 8, value)

    def lagging(self, value: int) -> bool:
        """Tell whether a member that is alive has told less than `value`."""
        return any(told < value and _is_alive(pid, made) for pid, made, told in self._slots())

    def alive(self) -> Sequence[Member]:
        """Return those that are alive, the one that came first before the others, mostly."""
        return [Member(pid, told) for pid, made, told in self._slots() if _is_alive(pid, made)]

    def is_first(self) -> bool:
        """Tell whether this process is the first of those that are alive."""
        if self._at is None:
            return False
        for at in range(0, self._at, _SLOT.size):
            pid, made, _ = _SLOT.unpack_from(self._memory, at)
            if pid and _is_alive(pid, made):
                return False
        return True

    def _slots(self) -> list[tuple[int, int, int]]:
        """Return the slots that were ever taken; they are taken from the first on."""
        slots = []
        for at in range(0, len(self._memory), _SLOT.size):
            slot = _SLOT.unpack_from(self._memory, at)
            if not slot[0]:
                break
            slots.append(slot)
        return slots


def _made(process: psutil.Process) -> int:
    return int(process.create_time() * 1000)


def _is_alive(pid: int, made: int) -> bool:
    """Tell whether the process that was made then still runs; one that was killed does not."""
    try:
        process = psutil.Process(pid)
        is_same = abs(_made(process) - made) <= _CLOCK_MS
        return is_same and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
