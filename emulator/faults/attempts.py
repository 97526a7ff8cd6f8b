"""How often each key was seen, counted over all workers of a server in memory that they share."""

import fcntl
import hashlib
import mmap
import os
import struct
import time
from pathlib import Path

# A slot holds the digest of a key, how often it came, and when it last came.
_SLOT = struct.Struct("=16sqq")
_SLOTS_PER_SET = 16
_SETS = 4096
_SET_BYTES = _SLOTS_PER_SET * _SLOT.size
TABLE_BYTES = _SETS * _SET_BYTES  # 2 MB, of which only what was written takes memory


class Attempts:
    """Counts of keys, each in one of the 16 slots of the set that its digest names.

    Where all 16 are taken, the key that has not come for longest gives way, and starts anew. So
    the 65,536 last keys are kept, or somewhat fewer.
    """

    def __init__(self, file: Path) -> None:
        """Open a table, which is made if it is not there.

        Raises:
            OSError: The file cannot be made or opened.
        """
        self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, TABLE_BYTES)
        self._memory = mmap.mmap(self._file, TABLE_BYTES)

    def count(self, key: str) -> int:
        """Note that a key has come; return how often it had come before."""
        digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
        start = int.from_bytes(digest[:4], "big") % _SETS * _SET_BYTES
        # The kernel lets go of a lock whose process dies. It excludes other processes; in this one
        # the event loop does one thing at a time.
        fcntl.lockf(self._file, fcntl.LOCK_EX, _SET_BYTES, start)
        try:
            slot = self._memory.find(digest, start, start + _SET_BYTES)
            before = 0 if slot < 0 else _SLOT.unpack_from(self._memory, slot)[1]
            if slot < 0:
                slot = self._oldest(start)
            _SLOT.pack_into(self._memory, slot, digest, before + 1, time.monotonic_ns())
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, _SET_BYTES, start)
        return int(before)

    def _oldest(self, start: int) -> int:
        slots = range(start, start + _SET_BYTES, _SLOT.size)
        return min(slots, key=lambda slot: int(_SLOT.unpack_from(self._memory, slot)[2]))
