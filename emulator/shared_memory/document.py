"""A document in memory that processes share: each reads it whole, the old or the new."""

import errno
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

_HEADER_BYTES = 64
_TRIES = 1000  # each is lost only to a writer that was quicker
# Which writing it was, how many bytes follow, and their checksum.
_HEAD = struct.Struct("=QII")


class TooLargeError(ValueError):
    """A document has no room."""


class SharedDocument:
    """Bytes that are read far more often than written.

    There are two places, and a number that counts the writings: it tells which place is read. A
    writer fills the other one, and then raises the number, which is one aligned word. A process
    that is killed while it writes leaves what was there before, and no lock.

    ``number[0]`` is the number, 0 before the first writing: to see whether anything has changed is
    to compare an integer.

    Args:
        path: A file, as from `files.create`.
        room: The most bytes of a document; only what was written takes memory.
        part: Which of the documents of the file it is, from 0.
        parts: How many documents the file has.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: str | Path, room: int, part: int = 0, parts: int = 1) -> None:
        self._room = room
        self._place_bytes = -(-(_HEAD.size + room) // mmap.PAGESIZE) * mmap.PAGESIZE
        size = mmap.PAGESIZE + 2 * self._place_bytes
        self._file = -1
        self._memory: mmap.mmap
        if fcntl is None:  # each process has its own
            self._memory = mmap.mmap(-1, size)
        else:
            self._file = os.open(path, os.O_RDWR)
            os.ftruncate(self._file, parts * size)
            self._memory = mmap.mmap(self._file, size, offset=part * size)
        self.number = memoryview(self._memory)[:_HEADER_BYTES].cast("Q")

    def read(self) -> tuple[int, bytes]:
        """Return the number and the bytes of the last writing; 0 and none before the first.

        Raises:
            OSError: The memory is damaged.
        """
        for _ in range(_TRIES):
            number = self.number[0]
            if not number:
                return 0, b""
            at = self._place(number)
            written, size, checksum = _HEAD.unpack_from(self._memory, at)
            if written == number and size <= self._room:
                at += _HEAD.size
                content = self._memory[at : at + size]
                # It was whole when it was copied, unless two writings have begun meanwhile.
                if self.number[0] == number and zlib.crc32(content) == checksum:
                    return number, content
        raise OSError("a document in shared memory is damaged")

    def _place(self, number: int) -> int:
        return mmap.PAGESIZE + number % 2 * self._place_bytes

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Keep other processes from writing during the body; yield False where one writes now."""
        if fcntl is None:
            yield True
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def write(self, content: bytes) -> None:
        """Put another document in the place of the last; only within `locked`.

        Raises:
            TooLargeError: It has more bytes than there is room for.
        """
        if len(content) > self._room:
            raise TooLargeError(f"expected at most {self._room} bytes, but got {len(content)}")
        number = self.number[0] + 1
        at = self._place(number)
        head = _HEAD.pack(number, len(content), zlib.crc32(content))
        self._memory[at : at + _HEAD.size] = head
        self._memory[at + _HEAD.size : at + _HEAD.size + len(content)] = content
        self.number[0] = number
