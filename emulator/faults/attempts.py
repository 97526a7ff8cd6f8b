"""Counts of attempts by key, in memory that all workers of a server share."""

import hashlib
import time
from pathlib import Path
from typing import TypeAlias

from emulator.shared_memory.slot_table import DIGEST_BYTES, SlotTable

_SETS = 4096
# The time of the last attempt, and the number of attempts.
_Count: TypeAlias = tuple[int, int]


class Attempts:
    """Counts the attempts of up to 65,536 keys; the least recently used are forgotten."""

    def __init__(self, file: Path) -> None:
        """Open the counts in a file, which is created if it does not exist.

        Raises:
            OSError: The file cannot be created or opened.
        """
        file.touch(0o600)
        self._counts = SlotTable[_Count](file, 2, _SETS)

    def count(self, key: str) -> int:
        """Count an attempt; return the number of attempts before it."""
        digest = hashlib.blake2b(key.encode(), digest_size=DIGEST_BYTES).digest()
        return self._counts.update(digest, _one_more)


def _one_more(count: _Count) -> tuple[_Count, int]:
    before = count[1]
    return (time.monotonic_ns(), before + 1), before
