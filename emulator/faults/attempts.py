"""How often each key was seen, counted over all workers of a server in memory that they share."""

import hashlib
import time
from pathlib import Path
from typing import TypeAlias

from emulator.shared_memory.slot_table import DIGEST_BYTES, SlotTable

_SETS = 4096
# When a key last came, and how often it came.
_Count: TypeAlias = tuple[int, int]


class Attempts:
    """Counts of keys: of the last 65,536, or somewhat fewer; an older one starts anew."""

    def __init__(self, file: Path) -> None:
        """Open the counts in a file, which is made if it is not there.

        Raises:
            OSError: The file cannot be made or opened.
        """
        file.touch(0o600)
        self._counts = SlotTable[_Count](file, 2, _SETS)

    def count(self, key: str) -> int:
        """Note that a key has come; return how often it had come before."""
        digest = hashlib.blake2b(key.encode(), digest_size=DIGEST_BYTES).digest()
        return self._counts.update(digest, _one_more)


def _one_more(count: _Count) -> tuple[_Count, int]:
    before = count[1]
    return (time.monotonic_ns(), before + 1), before
