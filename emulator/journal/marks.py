"""Texts with a time, which all workers share."""

import logging
import os
import time
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path

from pydantic import TypeAdapter

from emulator.contract.errors import APIError
from emulator.journal.bodies import Mark
from emulator.shared_memory.document import SharedDocument
from emulator.shared_memory.files import create

MARKS_VARIABLE = "OPENAI_EMULATOR_MARKS"
MAX_MARKS = 100
# As JSON a character may take 6 bytes.
_ROOM = 256 * 1024
_TRIES = 1000

_marks = TypeAdapter(list[Mark])
logger = logging.getLogger("bentoml.openai_emulator")


def prepare_marks() -> None:
    """Create what the workers share, before any worker starts."""
    os.environ[MARKS_VARIABLE] = create(MARKS_VARIABLE.lower())


class Marks:
    """The last marks.

    Args:
        path: The file that the workers share.
    """

    def __init__(self, path: str | Path) -> None:
        self._document = SharedDocument(path, _ROOM)
        self._number = 0
        self._found: list[Mark] = []

    @classmethod
    def opened(cls) -> "Marks":
        """Return the marks that this server's processes share."""
        return cls(os.environ.get(MARKS_VARIABLE) or create(MARKS_VARIABLE.lower()))

    def all(self) -> list[Mark]:
        """Return them, the newest last."""
        if self._document.number[0] != self._number:
            self._number, content = self._document.read()
            self._found = _marks.validate_json(content) if content else []
        return self._found

    def add(self, text: str) -> Mark:
        """Set a mark, and write it to the log.

        Raises:
            APIError: Another process holds them for too long.
        """
        mark = Mark(at=round(time.time(), 3), text=text)
        for _ in range(_TRIES):
            with self._document.locked() as is_locked:
                if is_locked:
                    self._document.write(_marks.dump_json([*self.all(), mark][-MAX_MARKS:]))
                    logger.info("mark text=%s", quoted(text))
                    return mark
        raise APIError(
            "Others set marks at this moment. Please try again.",
            status=503,
            type="service_unavailable_error",
            code="control_is_busy",
            headers={"retry-after": "1"},
        )
