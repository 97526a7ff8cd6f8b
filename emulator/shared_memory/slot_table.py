"""A hash table of fixed size in memory that processes share, with integers as values."""

import logging
import mmap
import os
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar, TypeVarTuple, cast

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

DIGEST_BYTES = 16
SLOTS_PER_SET = 16

Value = TypeVar("Value", bound=tuple[int, ...])
Result = TypeVar("Result")
Given = TypeVarTuple("Given")

logger = logging.getLogger("bentoml.openai_emulator")


class SlotTable(Generic[Value]):
    """A map from digests of 16 bytes to tuples of 64-bit integers.

    It is a set-associative cache: the first two bytes of a digest select a set of 16 slots. A value
    that was never set is all zeros. In a full set, the value with the lowest first integer is
    replaced.

    A killed process leaves no lock behind, and no half-written value. The memory is freed with the
    last process that has it open. Without file locks (on Windows), each process has its own table.

    Args:
        path: A file, such as `files.create` makes.
        integers: The length of a value; 6 fill a cache line together with the digest.
        sets: The number of sets, at most 65,536.
        alone: Whether no other process uses the file, so that no locks are needed.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: str | Path, integers: int, sets: int, *, alone: bool = False) -> None:
        slot, value = struct.Struct(f"={DIGEST_BYTES}s{integers}q"), struct.Struct(f"={integers}q")
        self._pack = slot.pack
        self._unpack = cast("Callable[[mmap.mmap, int], Value]", value.unpack_from)
        self._zeros = cast("Value", (0,) * integers)
        self._slot_bytes, self._set_bytes = slot.size, SLOTS_PER_SET * slot.size
        self._sets = sets
        self._is_alone = alone or fcntl is None
        size = sets * self._set_bytes  # of which only what was written takes memory
        self._memory: mmap.mmap
        if fcntl is None:
            if not alone:
                logger.warning("no file locks on this system: each worker counts for itself")
            self._memory = mmap.mmap(-1, size)
            return
        file = os.open(path, os.O_RDWR)
        os.ftruncate(file, size)
        self._memory = mmap.mmap(file, size)
        # These exclude other processes, not other threads.
        self._lock = partial(fcntl.flock, file, fcntl.LOCK_EX)
        self._unlock = partial(fcntl.flock, file, fcntl.LOCK_UN)

    def update(
        self,
        digest: bytes,
        change: Callable[[Value, *Given], tuple[Value, Result]],
        *given: *Given,
    ) -> Result:
        """Replace a value by what ``change(value, *given)`` returns, atomically over processes.

        Returns:
            The result that `change` returns beside the new value.
        """
        if self._is_alone:
            return self._update(digest, change, given)
        self._lock()
        try:
            return self._update(digest, change, given)
        finally:
            self._unlock()

    def _update(
        self,
        digest: bytes,
        change: Callable[[Value, *Given], tuple[Value, Result]],
        given: tuple[*Given],
    ) -> Result:
        memory = self._memory
        start = (digest[0] << 8 | digest[1]) % self._sets * self._set_bytes
        at = memory.find(digest, start, start + self._set_bytes)
        old = self._unpack(memory, at + DIGEST_BYTES) if at >= 0 else self._zeros
        value, result = change(old, *given)
        if at < 0:
            slots = range(start, start + self._set_bytes, self._slot_bytes)
            at = min(slots, key=lambda slot: self._unpack(memory, slot + DIGEST_BYTES))
        # One copy of a few aligned words, so that a killed process leaves no half-written value.
        memory[at : at + self._slot_bytes] = self._pack(digest, *value)
        return result

    def read(self, digest: bytes) -> Value:
        """Return a value."""
        start = (digest[0] << 8 | digest[1]) % self._sets * self._set_bytes
        if not self._is_alone:
            self._lock()
        try:
            at = self._memory.find(digest, start, start + self._set_bytes)
            return self._unpack(self._memory, at + DIGEST_BYTES) if at >= 0 else self._zeros
        finally:
            if not self._is_alone:
                self._unlock()
