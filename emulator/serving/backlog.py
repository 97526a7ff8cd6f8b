"""The requests that have ended and are not told yet: many are told at once, a little later.

What nobody waits for is not done request by request: its code and its tables would have left the
CPU's caches each time. `benchmarks.throughput --measure whole` shows what that saves.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from time import monotonic

from emulator.metrics import TALLY
from emulator.shared_memory.files import create
from emulator.shared_memory.word import SharedWords
from emulator.transport.exchange import Exchange

WORDS_VARIABLE = "OPENAI_EMULATOR_BACKLOG"
# So many take 0.15 ms, for which a token may have to wait.
TOLD_AT_ONCE = 16
TOLD_AFTER_S = 0.01
# A worker that was killed leaves its word as it was, until its successor starts.
LONGEST_WAIT_S = 0.25
LOOK_EVERY_S = 0.001

Tell = Callable[[Exchange], None]

logger = logging.getLogger("bentoml.openai_emulator")


def prepare_backlogs() -> None:
    """Create what the workers share, before any worker starts."""
    os.environ[WORDS_VARIABLE] = create(WORDS_VARIABLE.lower())


class Backlog:
    """What a worker has still to tell.

    The workers share a word each: it is odd while that worker has something to tell, and changes
    when it has told it.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[Tell, Exchange]] = []
        self._has_timer = False
        self._words = SharedWords(None).cells
        self._own = 0

    def open(self, worker: int) -> None:
        """Tell the other workers of this server from now on; `worker` is its number, from 1."""
        words = SharedWords(os.environ.get(WORDS_VARIABLE)).cells
        if worker <= len(words):  # else it is not waited for
            self._words, self._own = words, worker - 1
            words[self._own] += words[self._own] % 2

    def add(self, tell: Tell, exchange: Exchange) -> None:
        """Have a request told soon."""
        if not self._pending:
            self._words[self._own] += 1
            if not self._has_timer:
                self._has_timer = True
                asyncio.get_running_loop().call_later(TOLD_AFTER_S, self._on_time)
        self._pending.append((tell, exchange))
        if len(self._pending) >= TOLD_AT_ONCE:
            self.flush()

    def _on_time(self) -> None:
        self._has_timer = False
        self.flush()

    def flush(self) -> None:
        """Tell all."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        for tell, exchange in pending:
            try:
                tell(exchange)
            except Exception:
                logger.exception("the end of a request could not be told")
        self._words[self._own] += 1

    async def told(self) -> None:
        """Return when all workers have told of what has ended by now."""
        self.flush()
        words, deadline_s = self._words, monotonic() + LONGEST_WAIT_S
        behind = [(place, word) for place, word in enumerate(words) if word % 2]
        while (  # noqa: ASYNC110 - of other processes
            any(words[place] == word for place, word in behind) and monotonic() < deadline_s
        ):
            await asyncio.sleep(LOOK_EVERY_S)


BACKLOG = Backlog()
TALLY.sources.append(BACKLOG.flush)  # whoever asks for the metrics gets all of them
