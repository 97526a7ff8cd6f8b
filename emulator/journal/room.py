"""The journal of one worker, put together."""

from collections.abc import Sequence

from emulator.control.operations import Operation
from emulator.journal.endpoints import JournalEndpoints
from emulator.journal.journal import Journal, prepare_rings
from emulator.journal.marks import Marks, prepare_marks
from emulator.settings import Settings
from emulator.state import LiveState
from emulator.transport.bentoml_seam import worker_number
from emulator.worker import Worker


def prepare_journal(settings: Settings) -> None:
    """Create what the workers share, before any worker starts."""
    prepare_marks()
    if settings.journal:
        prepare_rings(settings.workers, bodies=settings.journal_bodies)


class JournalRoom:
    """What tells of requests that have ended.

    ``journal`` is None where it is off; ``marks`` are those of all workers.

    Args:
        live: The state; its settings at the start say whether there is a journal.
        worker: Tells of requests that end.
    """

    def __init__(self, live: LiveState, worker: Worker) -> None:
        settings = live.start.settings
        self.marks = Marks.opened()
        self.journal: Journal | None = None
        if settings.journal:
            self.journal = Journal.opened(worker_number() or 1, bodies=settings.journal_bodies)
            for each in (worker.endings, worker.lookups):
                each.subscribe(self.journal.write)
        self._endpoints = JournalEndpoints(self.journal, self.marks, live)

    @property
    def operations(self) -> Sequence[Operation]:
        """What can be asked."""
        return self._endpoints.operations
