"""All pages, and what they ask of control beside what it has."""

from collections.abc import Sequence
from typing import Any

from starlette.routing import BaseRoute

from emulator.apis.api import API, TextAPI
from emulator.control.room import ControlRoom
from emulator.pages import docs_page
from emulator.pages.console import files
from emulator.trials.endpoint import TrialEndpoint


def site(version: str, room: ControlRoom, apis: Sequence[API[Any]]) -> list[BaseRoute]:
    """Return the routes of all pages.

    Args:
        version: The emulator's.
        room: Gets the operations that the pages need.
        apis: Those whose requests can be tried against rules.
    """
    of_texts = {api.path: api for api in apis if isinstance(api, TextAPI)}
    room.control.add([TrialEndpoint(room.truth, of_texts, lambda _: None).operation])
    return [*files.routes(version), *docs_page.routes(version, room.operations)]
