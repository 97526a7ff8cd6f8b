"""The tokens of a prompt: counted at once, by a helper, or not at all."""

import asyncio
from collections.abc import Callable

from emulator.helpers.pool import Job
from emulator.reading.jobs import next_result

# Larger requests are not counted at once: 8,192 bytes of text or tools take 0.2 to 0.5 ms.
MAX_BYTES_COUNTED_INLINE = 8192


class PromptCount:
    """The count of one prompt's tokens, which begins when somebody wants it.

    ``known`` is the number, None until it is there.

    Args:
        known: The number.
        now: Counts in this process.
        size: The bytes of the request; a thread counts where they are many.
        later: Has a helper count.
        job: A helper's job that counts already.
    """

    __slots__ = ("_job", "_later", "_now", "_size", "_waiting", "known")

    def __init__(
        self,
        known: int | None = None,
        *,
        now: Callable[[], int] | None = None,
        size: int = 0,
        later: Callable[[], Job] | None = None,
        job: Job | None = None,
    ) -> None:
        self.known = known
        self._now = now
        self._size = size
        self._later = later
        self._job = job
        self._waiting: asyncio.Task[int] | None = None

    def start(self) -> None:
        """Begin to count.

        Raises:
            APIError: No helper has time.
        """
        if self.known is not None or self._waiting is not None:
            return
        if self._now is not None and self._size <= MAX_BYTES_COUNTED_INLINE:
            self.known, self._now = self._now(), None
            return
        if self._job is None and self._later is not None:
            self._job, self._later = self._later(), None
        if self._now is not None:
            self._waiting = asyncio.create_task(asyncio.to_thread(self._now))
        elif self._job is not None:
            self._waiting = asyncio.create_task(_counted(self._job))
        if self._waiting is not None:
            self._waiting.add_done_callback(_look_at_failure)

    async def tokens(self) -> int:
        """Return the number, as soon as it is there.

        Raises:
            APIError: The helper that counts has no time, or failed.
        """
        self.start()
        if self.known is None:
            if self._waiting is None:
                raise RuntimeError("nobody counts this prompt")
            self.known = await self._waiting
        return self.known

    def cancel(self) -> None:
        """Give up a count that is under way."""
        if self._job is not None and self.known is None:
            self._job.cancel()
        if self._waiting is not None:
            self._waiting.cancel()


async def _counted(job: Job) -> int:
    return int((await next_result(job))[0])


def _look_at_failure(waiting: asyncio.Task[int]) -> None:
    """Keep asyncio from logging a failure that nobody waits for any more."""
    if not waiting.cancelled():
        waiting.exception()
