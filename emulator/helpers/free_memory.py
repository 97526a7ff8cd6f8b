"""Returning freed memory to the system after a burst, where glibc's malloc would keep it."""

import asyncio
import ctypes
import sys
from time import monotonic

# Bytes since the last trim that make another worthwhile, and the quiet to wait for before it.
_PASSED_BYTES = 1 << 25
_QUIET_S = 1.0


def _trim() -> None:
    """Return free memory to the system, which takes glibc some milliseconds; else do nothing."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


class FreeMemory:
    """Trims malloc's heap once many bytes have passed through the worker and it is quiet again.

    Of 300 requests at once with bodies of 900 KB, a worker kept 270 MB more without it.
    """

    def __init__(self) -> None:
        self._passed = 0
        self._latest_s = 0.0
        self._is_watching = False

    def note(self, size: int) -> None:
        """Count bytes that were received or freed."""
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
