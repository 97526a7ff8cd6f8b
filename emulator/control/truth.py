"""The changes that hold for all workers of this server: read, made, and waited for."""

import asyncio
import logging
import os
import random
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from emulator import metrics
from emulator.contract.errors import APIError
from emulator.control.changes.building import Builder
from emulator.control.changes.document import MAX_DOCUMENT_BYTES, NOTHING, Changes
from emulator.shared_memory.document import SharedDocument, TooLargeError
from emulator.shared_memory.files import create
from emulator.shared_memory.members import Members
from emulator.state import LiveState, State

# Where the workers of a server find what they share.
DOCUMENT_VARIABLE = "OPENAI_EMULATOR_CONTROL"
MEMBERS_VARIABLE = "OPENAI_EMULATOR_MEMBERS"

# A worker without a request looks so often whether there is a change, for 10 us.
LOOK_EVERY_S = 0.025
# How often who waits for the others looks at them, and for how long at most.
ASK_EVERY_S = 0.002
MAX_WAIT_S = 2.0
# How long a change waits for its turn.
MAX_TURN_S = 5.0

Alter = Callable[[Changes], Changes]

logger = logging.getLogger("bentoml.openai_emulator")


class Unchanged(Exception):  # noqa: N818 - no error
    """There is nothing to change."""


class Keeper(Protocol):
    """Keeps the changes for several servers."""

    async def replace(self, old: Changes, new: Changes) -> Changes | None:
        """Put new changes in the place of the old ones.

        Returns:
            None, or what is kept in the place of the old ones.

        Raises:
            APIError: It cannot be reached, so that nothing has changed.
        """


def prepare_sharing(kept: bytes) -> None:
    """Create what the workers share, before any worker starts.

    Args:
        kept: The document that other servers share already; empty if there is none.
    """
    for variable in (DOCUMENT_VARIABLE, MEMBERS_VARIABLE):
        os.environ[variable] = create(variable.lower())
    if kept:
        SharedDocument(os.environ[DOCUMENT_VARIABLE], MAX_DOCUMENT_BYTES).write(kept)


class Truth:
    """What has been changed, as this worker sees it.

    ``changes`` are the latest that it has seen. Whoever reads ``live.current`` sees those of all
    workers; a worker that has nothing to do looks by itself a few times a second.

    Args:
        live: Gets the state that the changes make.
        document: What the workers share.
        members: Which workers there are, and what they have seen.
        keeper: What several servers share, if they do.
    """

    def __init__(
        self,
        live: LiveState,
        document: SharedDocument,
        members: Members,
        keeper: Keeper | None = None,
    ) -> None:
        self.live = live
        self.changes = NOTHING
        self.builder = Builder(live.start)
        self.members = members
        self.problem = ""
        self._document = document
        self._keeper = keeper
        self._state = live.start
        self._listeners: list[Callable[[State], None]] = []
        self._turn = asyncio.Lock()
        live.follow(document, self._read)

    @classmethod
    def opened(cls, live: LiveState, keeper: Keeper | None = None) -> "Truth":
        """Return the truth that this server's processes share."""
        document, members = (
            os.environ.get(variable) or create(variable.lower())
            for variable in (DOCUMENT_VARIABLE, MEMBERS_VARIABLE)
        )
        return cls(live, SharedDocument(document, MAX_DOCUMENT_BYTES), Members(members), keeper)

    def join(self) -> None:
        """Be one of the workers that changes wait for."""
        self.members.join()
        self.look()

    def listen(self, listener: Callable[[State], None]) -> None:
        """Call `listener` with the state, now and whenever it changes."""
        self._listeners.append(listener)
        listener(self.live.current)

    def look(self) -> None:
        """See whether there is a change, and tell the others what this worker has seen."""
        _ = self.live.current
        self.members.tell(self.live.seen)

    def _read(self, content: bytes) -> State:
        """Return the state that a document makes; the last one if it makes none here."""
        try:
            changes = Changes.unpacked(content)
            self._state = self.builder.build(changes)
        except (APIError, ValueError) as error:
            # Another host has started with other settings, over which this change is not good.
            self.problem = str(error)
            logger.error("control change=refused error=%s", error)  # noqa: TRY400 - not ours
            return self._state
        self.problem = ""
        self.changes = changes
        metrics.REVISION.set(changes.revision)
        for listener in self._listeners:
            listener(self._state)
        return self._state

    async def change(self, alter: Alter) -> Changes:
        """Change something, for all workers or for none; return the changes that hold now.

        Args:
            alter: Returns what changes become; it may be called again if another was quicker.

        Raises:
            APIError: The change is not good, or what several servers share cannot be reached.
            Unchanged: `alter` has found nothing to change.
        """
        deadline_s = time.monotonic() + MAX_TURN_S
        async with self._turn:
            while True:
                self.look()
                old = self.changes
                new = alter(old)._replace(revision=old.revision + 1, mark=secrets.randbits(64))
                self.builder.build(new)
                if await self._replace(old, new):
                    self.look()
                    return new
                if time.monotonic() >= deadline_s:
                    raise APIError(
                        "Other changes are under way. Please try again.",
                        status=503,
                        type="service_unavailable_error",
                        code="control_is_busy",
                        headers={"retry-after": "1"},
                    )
                await asyncio.sleep(random.uniform(0, ASK_EVERY_S))

    async def _replace(self, old: Changes, new: Changes) -> bool:
        if self._keeper is None:
            return self.write(new, old)
        kept = await self._keeper.replace(old, new)
        await self.adopt(new if kept is None else kept)
        return kept is None

    async def adopt(self, changes: Changes) -> None:
        """Let changes of several servers hold here, unless there are later ones."""
        while not self.write(changes):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(random.uniform(0, ASK_EVERY_S))
        self.look()

    def write(self, new: Changes, old: Changes | None = None) -> bool:
        """Put new changes in place; return False if another writes now.

        Args:
            new: The changes.
            old: What they take the place of, or else False is returned too; None for any that
                are not later.

        Raises:
            APIError: There is no room for them.
        """
        with self._document.locked() as is_locked:
            if not is_locked:
                return False
            found = Changes.unpacked(self._document.read()[1])
            if old is not None and found[:2] != old[:2]:
                return False
            if old is None and (found.revision > new.revision or found[:2] == new[:2]):
                return True
            try:
                self._document.write(new.packed())
            except TooLargeError as error:
                raise APIError(
                    f"All changes together are too large: {error}.",
                    status=413,
                    code="request_too_large",
                ) from None
            return True

    async def applied(self) -> str:
        """Wait until all workers have what this one has; return how many, as ``2 of 2``."""
        self.look()
        seen, deadline_s = self.live.seen, time.monotonic() + MAX_WAIT_S
        while self.members.lagging(seen) and time.monotonic() < deadline_s:  # noqa: ASYNC110
            await asyncio.sleep(ASK_EVERY_S)
        return self.told(seen)

    def told(self, seen: int) -> str:
        """Return how many of the workers have seen a change, as ``2 of 2``."""
        alive = self.members.alive()
        return f"{sum(member.value >= seen for member in alive)} of {len(alive)}"


class Watch:
    """Looks for changes a few times a second, whether or not there are requests.

    Args:
        truth: What is looked at.
        ticks: Are called after each look; they do no more than look at a clock.
    """

    def __init__(self, truth: Truth, ticks: Sequence[Callable[[], None]]) -> None:
        self._truth = truth
        self._ticks = ticks
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin."""
        self._truth.look()
        for tick in self._ticks:
            tick()
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self.start)

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
