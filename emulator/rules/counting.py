"""How often rules, and keys of failures, have counted: over all workers, or all hosts."""

import hashlib
import os
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Protocol, TypeAlias

from emulator.answers.ask import Ask
from emulator.contract.errors import APIError
from emulator.rules.deciding import Decision, Undecided, refuse_unmatched
from emulator.rules.ruleset import Rules
from emulator.settings import MEMORY
from emulator.shared_memory.files import create
from emulator.shared_memory.slot_table import DIGEST_BYTES, SLOTS_PER_SET, SlotTable

# Where the workers of a server find their common table.
TABLE_VARIABLE = "OPENAI_EMULATOR_COUNTS_TABLE"
MAX_COUNTS = 262_144  # of their 8 MB, what was written takes memory

# When it was last counted, and how often.
_Count: TypeAlias = tuple[int, int]


class Counts(Protocol):
    """Where counts are kept: near, so that they are there at once, or far."""

    def add(self, name: str, scope: str = "", since: int = 0) -> int | Awaitable[int]:
        """Count something; return how often it was counted before.

        Args:
            name: What is counted.
            scope: Whose count it is.
            since: The revision since which it counts.

        Raises:
            APIError: The store is away.
        """


async def counted(
    rules: Rules, undecided: Undecided, ask: Ask, counts: Counts, since: int = 0
) -> Decision:
    """Return the rules' decision for a request, and count each rule that takes part in it.

    Args:
        rules: The rules.
        undecided: What is known of the request.
        ask: What it asks.
        counts: Where matches are counted.
        since: The revision since which they count.

    Raises:
        APIError: No rule has an answer, and one must; or the store is away.
    """
    steps = rules.steps(undecided, ask)
    before: int | None = None
    try:
        rule = next(steps)
        while True:
            found = counts.add(rule.identity, undecided.scope, since)
            before = found if isinstance(found, int) else await found
            rule = steps.send(before)
    except StopIteration as end:
        decision: Decision = end.value
    if undecided.is_strict:
        refuse_unmatched(decision, undecided.nearest)
    return decision


def create_counts() -> None:
    """Create the table that the workers of this server share, before they start."""
    os.environ[TABLE_VARIABLE] = create("openai_emulator_counts")


def open_counts(url: str, *, alone: bool) -> Counts:
    """Return a worker's way to the counts.

    Args:
        url: Where the limits' store is, which keeps the counts too.
        alone: Whether the server has no other worker.
    """
    if url != MEMORY:
        from emulator.rules.redis_counts import RedisCounts  # noqa: PLC0415 - optional

        return RedisCounts(url)
    return near_counts(alone=alone)


def near_counts(*, alone: bool) -> "SharedCounts":
    """Return a worker's way to the counts of this server."""
    path = os.environ.get(TABLE_VARIABLE) or create("openai_emulator_counts")
    return SharedCounts(path, alone=alone)


class SharedCounts:
    """Counts in memory that all workers share; where there is no room, the oldest gives way.

    Args:
        path: The file of the table.
        alone: Whether no other process counts.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: str | Path, *, alone: bool = False) -> None:
        self._counts = SlotTable[_Count](path, 2, MAX_COUNTS // SLOTS_PER_SET, alone=alone)

    def add(self, name: str, scope: str = "", since: int = 0) -> int:
        """Count something; return how often it was counted before."""
        return self._counts.update(_digest(name, scope, since), _one_more)

    def read(self, name: str, scope: str = "", since: int = 0) -> int:
        """Return how often something was counted."""
        return self._counts.read(_digest(name, scope, since))[1]


def _digest(name: str, scope: str, since: int) -> bytes:
    text = f"{since} {scope} {name}".encode("utf-8", "replace")
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()


def _one_more(count: _Count) -> tuple[_Count, int]:
    before = count[1]
    return (time.monotonic_ns(), before + 1), before


def store_is_away() -> APIError:
    """Refuse a request that cannot be counted."""
    return APIError(
        "The store of this server's counts is away, and a rule for this request counts.",
        status=503,
        type="service_unavailable_error",
        code="store_unavailable",
    )
