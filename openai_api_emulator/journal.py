"""The requests that the emulator saw: rows of its journal, and what is told of them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from openai_api_emulator.calls import Call

WITHIN_S = 1.0
LOOK_EVERY_S = 0.02
MOST_SHOWN = 20
FILTERS = ("model", "status", "rule", "path")


@dataclass(frozen=True)
class JournalRow:
    """One request that has ended."""

    id: str
    path: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Return what a row in JSON says; what this version does not know is left out."""
        return cls(**{each.name: row.get(each.name) for each in fields(cls)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Page:
    """Some rows, and where the next ones begin."""

    rows: Sequence[JournalRow]
    next: str


def page(filters: Mapping[str, object]) -> Call[Page]:
    """Ask for the next rows."""
    return Call("GET", "/emulator/requests", _read, query=filters)


def _read(answer: Any) -> Page:  # noqa: ANN401 - JSON
    return Page([JournalRow.of(row) for row in answer["requests"]], answer["next"])


def all_of(filters: Mapping[str, object], send: Callable[[Call[Page]], Page]) -> list[JournalRow]:
    """Return the rows of all pages."""
    found: list[JournalRow] = []
    got = send(page(filters))
    while got.rows:
        found += got.rows
        got = send(page({**filters, "after": got.next}))
    return found


def pauses(within_s: float) -> Iterator[float]:
    """Yield the pauses before each look at the journal until the time is over, in s."""
    deadline_s = time.monotonic() + within_s
    yield 0
    while time.monotonic() < deadline_s:
        yield LOOK_EVERY_S


def widened(filters: Mapping[str, object]) -> dict[str, object]:
    """Return the filters without those that say what a request was."""
    return {name: value for name, value in filters.items() if name not in FILTERS}


def complaint(
    count: int,
    rows: Sequence[JournalRow],
    came: Sequence[JournalRow],
    filters: Mapping[str, object],
) -> str:
    """Return what is told when other requests came than were expected.

    Args:
        count: How many were expected.
        rows: Those that fit.
        came: All.
        filters: Say which fit.
    """
    asked = ", ".join(f"{name}={value!r}" for name, value in filters.items() if name in FILTERS)
    fit = f" with {asked}" if asked else ""
    expected = f"expected {count} request{'s' * (count != 1)}{fit}, but {len(rows)} came"
    return f"{expected}; all that came:\n{table(came)}"


def table(rows: Sequence[JournalRow]) -> str:
    """Return the last rows as lines to read."""
    if not rows:
        return "  (none)"
    left_out = len(rows) - MOST_SHOWN
    lines = [f"  ({left_out} more before)"] if left_out > 0 else []
    return "\n".join([*lines, *(f"  {row}" for row in rows[-MOST_SHOWN:])])
