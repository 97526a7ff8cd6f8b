"""All pages, and what they ask of control beside what it has."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.routing import BaseRoute

from emulator.apis.api import API, TextAPI
from emulator.control.room import ControlRoom
from emulator.journal.journal import Journal
from emulator.journal.room import JournalRoom
from emulator.pages import docs_page
from emulator.pages.console import files
from emulator.pages.console.report_endpoint import ReportEndpoint
from emulator.trials.endpoint import Row, TrialEndpoint


def site(
    version: str, room: ControlRoom, apis: Sequence[API[Any]], journal: JournalRoom
) -> list[BaseRoute]:
    """Return the routes of all pages.

    Args:
        version: The emulator's.
        room: Gets the operations that the pages need.
        apis: Those whose requests can be tried against rules.
        journal: Knows the last requests.
    """
    of_texts = {api.path: api for api in apis if isinstance(api, TextAPI)}
    room.control.add(
        [
            TrialEndpoint(room.truth, of_texts, partial(_find, journal.journal)).operation,
            ReportEndpoint(version, room.truth, journal).operation,
        ]
    )
    return [*files.routes(version), *docs_page.routes(version, room.operations)]


def _find(journal: Journal | None, name: str) -> Row | None:
    """Return what the journal keeps of a request that rules look at."""
    found = None if journal is None else journal.find(name)
    if journal is None or found is None:
        return None
    record = found.record
    _, body = journal.details(found)
    # A body that was cut is none that an API reads.
    whole = body if body is not None and len(body) == record.bytes_in else b""
    return Row(record.path, record.model, record.scope, stream=bool(record.stream), body=whole)
