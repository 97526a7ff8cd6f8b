"""The endpoints of the journal and of marks."""

import asyncio
from collections.abc import Sequence
from itertools import islice

from pydantic import BaseModel, ValidationError

from emulator.contract.errors import APIError
from emulator.control.changes.refusals import first_fault
from emulator.control.operations import Call, Operation
from emulator.journal.bodies import JournalEntry, JournalPage, Mark, NewMark
from emulator.journal.journal import Found, Journal
from emulator.journal.marks import Marks
from emulator.journal.reading import QUERY, Wanted, cursor, read
from emulator.journal.rows import instants, journal_row, told
from emulator.limits.resets import NO_RESETS, Resets
from emulator.reading.bodies import parse_json
from emulator.state import LiveState
from emulator.transport.exchange import Exchange
from emulator.transport.sending import Reply, whole_reply


class JournalEndpoints:
    """Answers what is asked of the journal.

    Args:
        journal: The journal; None where it is off.
        marks: The marks.
        live: Tells what was set back.
    """

    def __init__(self, journal: Journal | None, marks: Marks, live: LiveState) -> None:
        self._journal = journal
        self._marks = marks
        self._live = live

    @property
    def operations(self) -> Sequence[Operation]:
        """What can be asked."""
        rows, row, marks = "/emulator/requests", "/emulator/requests/{name}", "/emulator/marks"
        return [
            Operation("GET", rows, "Tell what has ended", self.list, JournalPage, query=QUERY),
            Operation("GET", row, "Tell one request, by its id", self.get, JournalEntry),
            Operation("POST", marks, "Set a mark", self.mark, Mark, NewMark),
        ]

    async def list(self, call: Call) -> Reply:
        """Answer GET /emulator/requests."""
        query = call.query(*QUERY)
        journal = self._opened()
        wanted, resets = read(query, len(journal.rings)), self._resets()
        # In a thread, as a thousand rows take longer than a token may wait.
        content = await asyncio.to_thread(_page, journal, wanted, resets, self._marks.all())
        return _fresh(call.exchange, content)

    async def get(self, call: Call) -> Reply:
        """Answer GET /emulator/requests/{id}."""
        call.query()
        journal, resets = self._opened(), self._resets()
        found = await asyncio.to_thread(journal.find, call.name, resets)
        if found is None:
            raise APIError(
                f"The journal holds no request '{call.name:.128}'.",
                status=404,
                param="id",
                code="request_not_found",
            )
        return _fresh(call.exchange, entry_of(journal, found))

    async def mark(self, call: Call) -> Reply:
        """Answer POST /emulator/marks."""
        call.query()
        parse_json(call.body)
        try:
            body = NewMark.model_validate_json(call.body)
        except ValidationError as error:
            raise first_fault(error, NewMark) from None
        return _fresh(call.exchange, self._marks.add(body.text))

    def _opened(self) -> Journal:
        if self._journal is None:
            raise APIError(
                "The journal is off on this server, as the setting 'journal' says.",
                status=404,
                code="journal_is_off",
            )
        return self._journal

    def _resets(self) -> Resets:
        return self._live.current.resets.get("journal", NO_RESETS)


def entry_of(journal: Journal, found: Found) -> JournalEntry:
    """Return a request as the API tells it, with the instants of its tokens."""
    kept, body = journal.details(found)
    return JournalEntry(
        **told(found.record, found.worker),
        tokens=instants(found.record, kept) if kept else [],
        body=None if body is None else body.decode(errors="replace"),
    )


def _page(journal: Journal, wanted: Wanted, resets: Resets, marks: Sequence[Mark]) -> bytes:
    """Return a page as JSON."""
    positions, rows = journal.end(), []
    if wanted.positions is None:
        fit = (found for found in journal.newest(resets) if wanted.fits(found.record))
        rows = [*islice(fit, wanted.limit)][::-1]
        if rows:  # what ended meanwhile comes with the next page
            newest = {found.ring: found.number + 1 for found in rows}
            positions = [max(at, newest.get(ring, 0)) for ring, at in enumerate(positions)]
    else:
        # A place that no ring has reached is from before the server's start.
        reached = zip(wanted.positions, positions, strict=True)
        positions = [given if given <= end else 0 for given, end in reached]
        for found in journal.after([*positions], resets):
            positions[found.ring] = found.number + 1
            if wanted.fits(found.record):
                rows.append(found)
                if len(rows) == wanted.limit:
                    break
    # One by one, so that other threads get their turn in between.
    shown = ",".join([journal_row(found.record, found.worker).model_dump_json() for found in rows])
    told_marks = ",".join([mark.model_dump_json() for mark in marks])
    return f'{{"requests":[{shown}],"next":"{cursor(positions)}","marks":[{told_marks}]}}'.encode()


def _fresh(exchange: Exchange, answer: BaseModel | bytes) -> Reply:
    reply = whole_reply(exchange, answer)
    reply.headers = [(b"cache-control", b"no-store")]
    return reply
