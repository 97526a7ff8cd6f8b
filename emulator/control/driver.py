"""The driver of changes over time: the schedule's steps, its waves, and rules that expire."""

import asyncio
import logging
import math
import time
from collections.abc import Callable

from emulator.contract.errors import APIError
from emulator.control.changes import alterations
from emulator.control.changes.document import Changes
from emulator.control.changes.schedule import Step
from emulator.control.truth import Truth, Unchanged

# When the store that several hosts share is away, or a number cannot be set.
TRY_AGAIN_S = 1.0

logger = logging.getLogger("bentoml.openai_emulator")


class Driver:
    """Makes the changes that are due, in the first worker of each server that is alive.

    Each is made by all workers and hosts at most once, because it is told by what has changed
    that it is done.

    Args:
        truth: What is changed.
        on_mark: Is told the text of each mark when its step is done.
    """

    def __init__(self, truth: Truth, on_mark: Callable[[str], object]) -> None:
        self._truth = truth
        self._on_mark = on_mark
        self._known: Changes | None = None
        self._due_at = math.inf
        self._task: asyncio.Task[None] | None = None

    def tick(self) -> None:
        """Begin what is due; called many times a second."""
        changes, now = self._truth.changes, time.time()
        if changes is not self._known:
            self._known = changes
            self._plan(now)
            if changes.schedule:  # something may have to move at once
                self._due_at = now
        if now >= self._due_at and self._task is None:
            if not self._truth.members.is_first():
                self._due_at = now + TRY_AGAIN_S  # who is first may die
                return
            self._task = asyncio.get_running_loop().create_task(self._drive())

    def _plan(self, now: float) -> None:
        due_at = alterations.next_due(self._truth.changes, self._truth.builder, now)
        self._due_at = math.inf if due_at is None else due_at

    async def _drive(self) -> None:
        """Make one change that is due."""
        try:
            await self._once()
        finally:
            self._task = None

    async def _once(self) -> None:
        done: list[Step] = []

        def advance(changes: Changes) -> Changes:
            done.clear()
            now, builder = time.time(), self._truth.builder
            if (left := alterations.without_expired(changes, builder, now)) is not None:
                return left
            if (step := alterations.step_due(changes, builder, now)) is not None:
                done.append(step)
                return alterations.stepped(changes, step, now)
            made = alterations.moved(changes, builder, now)
            if made == changes:
                raise Unchanged
            return made

        try:
            await self._truth.change(advance)
        except Unchanged:
            self._plan(time.time())
            return
        except APIError as error:
            await self._failed(error, done)
            return
        self._plan(time.time())
        for step in done:
            if step.mark is not None:
                self._on_mark(step.mark)

    async def _failed(self, error: APIError, done: list[Step]) -> None:
        """Tell why a change was not made; a step that is not good any more is left out."""
        logger.warning("control scheduled=failed error=%s", error)
        self._due_at = time.time() + TRY_AGAIN_S
        if not done or error.status == 503:
            return

        def skip(changes: Changes) -> Changes:
            if alterations.step_due(changes, self._truth.builder, time.time()) != done[0]:
                raise Unchanged
            return changes._replace(progress=changes.progress + 1)

        try:
            await self._truth.change(skip)
        except (APIError, Unchanged) as again:
            logger.warning("control scheduled=kept error=%s", again)

    def stop(self) -> None:
        """Give up what is under way."""
        if self._task is not None:
            self._task.cancel()
