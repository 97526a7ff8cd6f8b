"""Gives free memory back to the system, which the C library keeps between pieces in use."""

import asyncio
import ctypes
import sys
from time import monotonic

# What has passed by, so that what it has left behind is worth a look, and the quiet before that.
_PASSED_BYTES = 1 << 25
_QUIET_S = 1.0


def _trim() -> None:
    """Give back what is free, in a few milliseconds, where the C library is glibc."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


class FreeMemory:
    """Looks at how many bytes pass by, and gives back what they took as soon as there are no more.

    Where they go on to come they take the same memory again.
    """

    def __init__(self) -> None:
        self._passed = 0
        self._latest_s = 0.0
        self._is_watching = False

    def note(self, size: int) -> None:
        """Note that so many bytes have come, or are gone."""
        self._passed += size
        self._latest_s = monotonic()
        if self._passed > _PASSED_BYTES and not self._is_watching:
            self._is_watching = True
            asyncio.get_running_loop().call_later(_QUIET_S, self._watch)

    def _watch(self) -> None:
        loop, quiet_s = asyncio.get_running_loop(), monotonic() - self._latest_s
        if quiet_s < _QUIET_S:
            loop.call_later(_QUIET_S - quiet_s, self._watch)
            return
        self._passed, self._is_watching = 0, False
        loop.run_in_executor(None, _trim)
