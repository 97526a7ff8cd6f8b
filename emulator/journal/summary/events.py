"""The summary of each second as events, for all who look; it is made once for them."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from emulator.contract.error_words import overloaded
from emulator.control.operations import Call, Operation
from emulator.journal.bodies import Summary
from emulator.transport.sending import Reply, ended_by_disconnect

MAX_VIEWERS = 200  # of a worker
MAX_WAITING = 5
# How long after a second all workers have put what they counted on the board.
AFTER_S = 0.15

logger = logging.getLogger("bentoml.openai_emulator")


class Viewer:
    """One who looks: what waits for it, and how much it has missed."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._missed = 0
        self._is_over = False
        self._wake = asyncio.Event()

    def give(self, event: bytes) -> None:
        """Give it an event; the oldest that waits is dropped if there are too many."""
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self._missed += 1
        self._waiting.append(event)
        self._wake.set()

    def end(self) -> None:
        """Let it go."""
        self._is_over = True
        self._wake.set()

    async def next(self) -> bytes | None:
        """Return what is to be sent next, when there is something; None at the end."""
        while not self._waiting and not self._is_over:
            self._wake.clear()
            await self._wake.wait()
        if self._is_over:
            return None
        event = self._waiting.popleft()
        if self._missed:
            event = b'event: missed\ndata: {"missed":%d}\n\n' % self._missed + event
            self._missed = 0
        return event


class Events:
    """Sends the summary of each second to all who look at it in this worker.

    Args:
        begin: Is called when the first comes.
        watch: Is called each second while there is one.
        summary: Makes the summary.
    """

    def __init__(
        self,
        begin: Callable[[], None],
        watch: Callable[[], None],
        summary: Callable[[], Awaitable[Summary]],
    ) -> None:
        self._begin = begin
        self._watch = watch
        self._summary = summary
        self.viewers: set[Viewer] = set()
        self._task: asyncio.Task[None] | None = None
        self._is_over = False

    @property
    def operation(self) -> Operation:
        """What can be asked."""
        return Operation(
            "GET",
            "/emulator/events",
            "Tell the summary of each second, as server-sent events",
            self.answer,
            Summary,
            is_open=True,
            media_type="text/event-stream",
        )

    async def answer(self, call: Call) -> Reply:
        """Answer GET /emulator/events.

        Raises:
            APIError: As many look as may.
        """
        call.query()
        if len(self.viewers) >= MAX_VIEWERS:
            raise overloaded()
        return EventsReply(self)

    def join(self) -> Viewer:
        """Be one who looks."""
        viewer = Viewer()
        if self._is_over:
            viewer.end()
            return viewer
        self.viewers.add(viewer)
        self._watch()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(self._ended)
        return viewer

    async def _run(self) -> None:
        """Make a summary each second, until nobody looks."""
        self._begin()
        while self.viewers:
            self._watch()
            now = time.time()
            await asyncio.sleep(int(now - AFTER_S) + 1 + AFTER_S - now)
            summary = await self._summary()
            event = b"event: summary\ndata: %b\n\n" % summary.model_dump_json().encode()
            for viewer in self.viewers:
                viewer.give(event)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled() or (error := task.exception()) is None:
            return
        logger.error("the summary has failed", exc_info=error)
        for viewer in self.viewers:
            viewer.end()

    def close(self) -> None:
        """Let all go, and nobody in, as the server ends."""
        self._is_over = True
        for viewer in self.viewers:
            viewer.end()


class EventsReply(Reply):
    """The stream of summaries to one who looks.

    Args:
        events: What is sent.
    """

    def __init__(self, events: Events) -> None:
        super().__init__(
            200,
            [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-store"),
                (b"x-accel-buffering", b"no"),
            ],
        )
        self._events = events

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send it, until the client leaves or the server ends."""
        viewer = self._events.join()
        try:
            await self.start(send)
            async with ended_by_disconnect(receive):
                await send(_part(b"retry: 2000\n\n"))
                while (event := await viewer.next()) is not None:
                    await send(_part(event))
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except ClientDisconnect:
            pass
        finally:
            self._events.viewers.discard(viewer)


def _part(body: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": body, "more_body": True}
