"""Gives free memory back to the system, which the C library keeps between pieces in use."""

import asyncio
import ctypes
from collections.abc import Callable

# A crowd that has held as much leaves enough behind; and how long after it has gone.
_CROWD_BYTES = 1 << 25
_AFTER_S = 1.0


def _trim() -> None:
    """Give back what is free, in a few milliseconds; does nothing where there is no glibc."""
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


class Held:
    """Counts the bytes that many jobs hold together, and gives back their memory after a crowd."""

    def __init__(self) -> None:
        self._bytes = 0
        self._most = 0

    def add(self, size: int) -> None:
        """Note that a job holds so many bytes."""
        self._bytes += size
        self._most = max(self._most, self._bytes)

    def remove(self, size: int) -> None:
        """Note that a job has let go of so many bytes."""
        self._bytes -= size
        if not self._bytes:
            if self._most > _CROWD_BYTES:
                loop = asyncio.get_running_loop()
                loop.call_later(_AFTER_S, loop.run_in_executor, None, _trim)
            self._most = 0
