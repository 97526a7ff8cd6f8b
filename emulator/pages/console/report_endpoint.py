"""GET /emulator/report: the report of a span of time."""

import asyncio
import math
import time
from collections.abc import Mapping
from typing import Any

from pydantic import RootModel

from emulator.contract.errors import APIError
from emulator.control.changes.refusals import refused_at
from emulator.control.operations import Call, Operation
from emulator.control.status import StatusReader
from emulator.control.truth import Truth
from emulator.journal.bodies import JournalRow
from emulator.journal.journal import Journal
from emulator.journal.ring import ROWS
from emulator.journal.room import JournalRoom
from emulator.journal.rows import journal_row
from emulator.limits.resets import NO_RESETS, Resets
from emulator.pages.console.figures import Timed, figures
from emulator.pages.console.report import report_page
from emulator.transport.sending import Reply

HTML = "text/html"
_QUERY = {
    "from": "where the span begins, in s since 1970; the first request in the journal by default",
    "to": "where it ends; now by default",
}
_MOST_S = 2**33


class ReportFile(RootModel[str]):
    """One HTML file that needs nothing."""


class ReportEndpoint:
    """Answers with a report.

    Args:
        version: The emulator's.
        truth: Knows what is in force.
        journal: Knows the requests.
    """

    def __init__(self, version: str, truth: Truth, journal: JournalRoom) -> None:
        self._version = version
        self._truth = truth
        self._status = StatusReader(truth, version, dict)
        self._journal = journal

    @property
    def operation(self) -> Operation:
        """What is asked."""
        summary = "Save charts, figures and settings of a span as one HTML file"
        return Operation(
            "GET",
            "/emulator/report",
            summary,
            self.answer,
            ReportFile,
            query=_QUERY,
            media_type=HTML,
        )

    async def answer(self, call: Call) -> Reply:
        """Answer one request.

        Raises:
            APIError: The journal is off, or the span is none.
        """
        query = call.query(*_QUERY)
        start_at, end_at = _instant(query, "from"), _instant(query, "to")
        if start_at is not None and end_at is not None and end_at <= start_at:
            raise refused_at(("to",), f"expected more than {start_at}, but got {end_at}")
        journal = self._journal.journal
        if journal is None:
            raise APIError(
                "The journal is off on this server, as the setting 'journal' says.",
                status=404,
                code="journal_is_off",
            )
        state = self._truth.live.current
        resets = state.resets.get("journal", NO_RESETS)
        # In a thread, as thousands of rows take longer than a token may wait.
        found, told = await asyncio.to_thread(_figures, journal, resets, start_at, end_at)
        page = report_page({**told, **self._in_force(), **self._marks(found)})
        return Reply(
            200,
            [
                (b"content-type", b"text/html; charset=utf-8"),
                (b"content-length", b"%d" % len(page)),
                (b"content-disposition", b'attachment; filename="emulator-report.html"'),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
            ],
            page,
        )

    def _in_force(self) -> Mapping[str, Any]:
        changes = self._truth.changes
        told = self._status.settings(changes)
        return {
            "version": self._version,
            "revision": told.revision,
            "settings": told.model_dump(mode="json")["settings"],
            "changed": told.changed,
            "rules_in_force": self._status.rules(changes).rules,
        }

    def _marks(self, span: tuple[float, float]) -> Mapping[str, Any]:
        marks = [mark for mark in self._journal.marks.all() if span[0] <= mark.at <= span[1]]
        return {"marks": [{"t": mark.at, "text": mark.text} for mark in marks]}


def _figures(
    journal: Journal, resets: Resets, start_at: float | None, end_at: float | None
) -> tuple[tuple[float, float], dict[str, Any]]:
    """Return a span, and the figures of the requests that ended in it."""
    latest = journal.latest(resets)
    end_at = time.time() if end_at is None else end_at
    first_at = latest[0].ended_at if latest else end_at
    is_cut = start_at is not None and start_at < first_at and len(latest) >= ROWS
    if start_at is None or is_cut:
        start_at = math.floor(first_at)
    rows = [
        _timed(journal_row(found.record, found.worker))
        for found in latest
        if start_at <= found.ended_at <= end_at
    ]
    return (start_at, end_at), {**figures(rows, start_at, end_at), "is_cut": is_cut}


def _timed(row: JournalRow) -> Timed:
    return Timed(
        row.id,
        row.at,
        row.model,
        row.status,
        row.tokens_out,
        (row.ttft.asked_ms, row.ttft.actual_ms),
        (row.itl.asked_ms, row.itl.actual_ms),
        (row.total.asked_ms, row.total.actual_ms),
        row.worst_lag_ms,
        row.fault,
        row.rules,
        row.ended_at,
    )


def _instant(query: Mapping[str, str], name: str) -> float | None:
    """Return an instant of the query; None if it is not there.

    Raises:
        APIError: It is none.
    """
    text = query.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= _MOST_S:
        raise refused_at((name,), f"expected seconds since 1970, but got '{text:.64}'")
    return value
