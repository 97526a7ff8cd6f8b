"""Request bodies in memory files, which a helper reads by their descriptor."""

import os
import sys
import tempfile
from typing import Self


class Spool:
    """A memory file that bytes are appended to.

    Whoever closes the last descriptor frees the memory, which takes milliseconds for large ones.
    """

    __slots__ = ("_size", "fd")

    def __init__(self, content: bytes | bytearray = b"") -> None:
        self._size = 0
        self.fd = _memory_file()
        self += content

    def __len__(self) -> int:
        return self._size

    def __iadd__(self, part: bytes | bytearray) -> Self:
        """Append some bytes."""
        view = memoryview(part)
        while view:
            view = view[os.write(self.fd, view) :]
        self._size += len(part)
        return self


def _memory_file() -> int:
    if sys.platform == "linux":
        return os.memfd_create("request")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def read_spool(fd: int, size: int) -> bytearray:
    """Read a spool of `size` bytes, and close it."""
    content = bytearray(size)
    view, at = memoryview(content), 0
    with open(fd, "rb", buffering=0) as file:
        file.seek(0)
        while at < size:
            count = file.readinto(view[at:])
            if not count:
                raise EOFError("the spool is shorter than was told")
            at += count
    return content
