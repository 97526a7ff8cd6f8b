"""The requests that the emulator saw: rows of its journal, and what is told of them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self, TypedDict
from urllib.parse import quote

from openai_api_emulator.calls import Call

WITHIN_S = 1.0
LOOK_EVERY_S = 0.02
MOST_SHOWN = 20
ROWS_OF_A_PAGE = 1000
OLDEST = "0"


class ScopeFilters(TypedDict, total=False):
    """Which requests of a scope are wanted: all that is given has to fit.

    A model and a path may end with ``*``; a status may be ``4xx``.
    """

    model: str
    status: int | str
    rule: str
    path: str


class Filters(ScopeFilters, total=False):
    """Which requests are wanted."""

    scope: str


@dataclass(frozen=True)
class Times:
    """A time that was asked and what it was, in ms; None where there is none."""

    asked_ms: float | None
    actual_ms: float | None


@dataclass(frozen=True)
class TokenInstant:
    """When an event was due and when it left, in ms after the request came."""

    due_ms: float
    left_ms: float | None


@dataclass(frozen=True)
class JournalRow:
    """One request that has ended; ``/openapi.json`` of the emulator says what each field is."""

    id: str
    answer_id: str
    at: float
    ended_at: float
    worker: int
    revision: int
    scope: str
    key: str
    method: str
    path: str
    model: str
    stream: bool | None
    status: int
    code: str
    finish_reason: str
    tokens_in: int | None
    tokens_out: int
    ttft: Times
    itl: Times
    total: Times
    worst_lag_ms: float | None
    blocked_ms: float
    fault: str
    rules: Sequence[str]
    decided: Mapping[str, str]
    queue_ms: float | None
    bytes_in: int
    client_left: bool

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Return what a row in JSON says; fields of later versions are left out."""
        given = {each.name: row[each.name] for each in fields(cls)}
        times = {name: Times(**given[name]) for name in ("ttft", "itl", "total")}
        return cls(**{**given, **times})

    def __str__(self) -> str:
        """Return a line to read."""
        said = [f"{self.method} {self.path} {self.model or '-'}: {self.status}"]
        said += [text for text in (self.code, self.finish_reason) if text]
        said += [f"{self.tokens_out} tokens" if self.tokens_out else ""]
        said += ["stream" if self.stream else "", "client left" if self.client_left else ""]
        said += [f"fault {self.fault}" if self.fault else ""]
        said += [f"rules {', '.join(self.rules)}" if self.rules else ""]
        total_ms = self.total.actual_ms
        return ", ".join([*filter(None, said), f"{total_ms or 0:.1f} ms"])


@dataclass(frozen=True)
class JournalEntry(JournalRow):
    """One request with the instants of its first events, and its body where bodies are kept."""

    tokens: Sequence[TokenInstant]
    body: str | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Return what an entry in JSON says."""
        tokens = [TokenInstant(**instant) for instant in row["tokens"]]
        return super().of({**row, "tokens": tokens})


@dataclass(frozen=True)
class Page:
    """Some rows, and where the next ones begin; None where these are all."""

    rows: Sequence[JournalRow]
    next: str | None


def page(filters: Mapping[str, object], after: str = OLDEST) -> Call[Page]:
    """Ask for the next rows."""
    query = {**filters, "after": after, "limit": ROWS_OF_A_PAGE}
    return Call("GET", "/emulator/requests", _page_of, query=query)


def entry(request_id: str) -> Call[JournalEntry]:
    """Ask for one request."""
    return Call("GET", f"/emulator/requests/{quote(request_id, safe='')}", JournalEntry.of)


def _page_of(answer: Any) -> Page:  # noqa: ANN401 - JSON
    rows = [JournalRow.of(row) for row in answer["requests"]]
    return Page(rows, answer["next"] if len(rows) == ROWS_OF_A_PAGE else None)


def pauses(within_s: float) -> Iterator[float]:
    """Yield the pauses before each look at the journal until the time is over, in s."""
    deadline_s = time.monotonic() + within_s
    yield 0
    while time.monotonic() < deadline_s:
        yield LOOK_EVERY_S


def of_scope(filters: Filters) -> Filters:
    """Return the filters that fit all requests of the scope that is named."""
    return {"scope": filters["scope"]} if "scope" in filters else {}


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
    asked = ", ".join(f"{name}={value!r}" for name, value in filters.items())
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
