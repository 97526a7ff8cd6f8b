"""The buckets of all workers of a server: a table of fixed size in memory that they share.

The kernel frees the memory with the last process, and a lock with the process that holds it.
"""

import atexit
import fcntl
import mmap
import os
import struct
import sys
import tempfile
from pathlib import Path
from time import monotonic_ns

from emulator.limits.buckets import FULL, TICK_NS, Limits, Verdict, look, take

# A slot holds the digest of a key and a model, and the state, which begins with when it may be
# reused.
_SLOT = struct.Struct("=16s6q")
_STATE = struct.Struct("=6q")
_STATE_AT = _SLOT.size - _STATE.size
_pack_slot, _unpack_state = _SLOT.pack, _STATE.unpack_from
_SLOTS_PER_SET = 16
_SETS = 2048
_SLOT_BYTES = _SLOT.size
_SET_BYTES = _SLOTS_PER_SET * _SLOT_BYTES
TABLE_BYTES = _SETS * _SET_BYTES  # 2 MB


def create_table() -> str:
    """Create an empty table and return the path at which this server's processes open it.

    On Linux no file is left behind however this process ends: the memory has no name but
    the descriptor's, which lives as long as this process.
    """
    if sys.platform == "linux":
        descriptor = os.memfd_create("openai_emulator_limits")
        os.ftruncate(descriptor, TABLE_BYTES)
        return f"/proc/{os.getpid()}/fd/{descriptor}"
    descriptor, path = tempfile.mkstemp(prefix="openai_emulator_limits_")
    os.ftruncate(descriptor, TABLE_BYTES)
    os.close(descriptor)
    atexit.register(Path(path).unlink, missing_ok=True)
    return path


class SharedTable:
    """The buckets, each in one of the 16 slots of the set that its digest names.

    A slot whose buckets are full again says nothing, and is the next to be reused; if none of a set
    is, the one that is full the soonest gives way.

    ``take`` takes a request of so many tokens from both buckets, or nothing from either.
    """

    def __init__(self, path: str, *, alone: bool = False) -> None:
        """Open a table; if `alone`, no other process takes from it at the same time.

        Raises:
            OSError: It is not there.
        """
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._memory = mmap.mmap(self._file, TABLE_BYTES)
        self.take = self._take if alone else self._take_locked

    def _take_locked(self, digest: bytes, limits: Limits, tokens: int) -> Verdict:
        """Take while no other process does; in this one the event loop does one at a time."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            return self._take(digest, limits, tokens)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _take(self, digest: bytes, limits: Limits, tokens: int) -> Verdict:
        memory, start = self._memory, _start(digest)
        now = monotonic_ns() // TICK_NS
        slot = memory.find(digest, start, start + _SET_BYTES)
        old = _unpack_state(memory, slot + _STATE_AT) if slot >= 0 else FULL
        state, verdict = take(limits, old, tokens, now)
        if slot < 0:
            slot = self._reusable_slot(start, now)
        # One copy of 64 aligned bytes: a process that is killed leaves the old or the new.
        memory[slot : slot + _SLOT_BYTES] = _pack_slot(digest, *state)
        return verdict

    def look(self, digest: bytes, limits: Limits) -> Verdict:
        """Return what is left in both buckets."""
        start = _start(digest)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            slot = self._memory.find(digest, start, start + _SET_BYTES)
            state = _unpack_state(self._memory, slot + _STATE_AT) if slot >= 0 else FULL
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        return look(limits, state, monotonic_ns() // TICK_NS)

    def _reusable_slot(self, start: int, now: int) -> int:
        soonest, chosen = None, start
        for slot in range(start, start + _SET_BYTES, _SLOT_BYTES):
            reusable_at = _SLOT.unpack_from(self._memory, slot)[1]
            if reusable_at <= now:
                return slot
            if soonest is None or reusable_at < soonest:
                soonest, chosen = reusable_at, slot
        return chosen


def _start(digest: bytes) -> int:
    return (digest[0] << 8 | digest[1]) % _SETS * _SET_BYTES
