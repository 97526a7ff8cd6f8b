"""Buckets in memory that all workers of a server share."""

from time import monotonic_ns

from emulator.limits.buckets import TICK_NS, Limits, State, Verdict, look, take
from emulator.shared_memory.files import create
from emulator.shared_memory.slot_table import SlotTable

_SETS = 2048  # 2 MB


def create_table() -> str:
    """Create an empty table; return the path at which this server's processes open it."""
    return create("openai_emulator_limits")


class SharedTable:
    """A pair of buckets for each digest of an account.

    Where there is no room the pair that is full the soonest is dropped: a new one is full too.
    """

    def __init__(self, path: str, *, alone: bool = False) -> None:
        """Open a table; if `alone`, no other process uses it.

        Raises:
            OSError: There is none.
        """
        self._states = SlotTable[State](path, 6, _SETS, alone=alone)
        self._update = self._states.update

    def take(self, digest: bytes, limits: Limits, tokens: int) -> Verdict:
        """Take a request of `tokens` from both buckets, or nothing from either."""
        return self._update(digest, _take, limits, tokens)

    def look(self, digest: bytes, limits: Limits) -> Verdict:
        """Return what is left in both buckets."""
        return look(limits, self._states.read(digest), monotonic_ns() // TICK_NS)


def _take(state: State, limits: Limits, tokens: int) -> tuple[State, Verdict]:
    return take(limits, state, tokens, monotonic_ns() // TICK_NS)
