"""A websocket of the Responses API, on a connection that is made by hand."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from emulator.apis.responses.websocket import MAX_FRAMES_WAITING, MAX_SOCKETS, ResponsesSocket

pytestmark = pytest.mark.anyio
SURELY_TOO_MANY = MAX_FRAMES_WAITING + 5
FRAME = '{"type": "response.create"}'
SCOPE: Scope = {"type": "websocket", "headers": []}


class Client:
    """One who sends frames all at once, and then leaves or waits; ``got`` is what came back."""

    def __init__(self, frames: Sequence[str], *, leaves: bool = True) -> None:
        frames = [{"type": "websocket.receive", "text": text} for text in frames]  # type: ignore[misc]
        left = [{"type": "websocket.disconnect"}] if leaves else []
        self._messages: list[Any] = [{"type": "websocket.connect"}, *frames, *left]
        self.got: list[Message] = []
        self.is_gone = False

    async def receive(self) -> Message:
        """Give the next message."""
        if not self._messages:
            await asyncio.get_running_loop().create_future()
        return dict(self._messages.pop(0))

    async def send(self, message: Message) -> None:
        """Take a message, as uvicorn does."""
        await asyncio.sleep(0)
        if self.is_gone:
            raise OSError
        closed = any(sent["type"] == "websocket.close" for sent in self.got)
        assert not closed, "uvicorn would raise a RuntimeError"
        self.got.append(message)


def answering(
    waits: Callable[[], Coroutine[Any, Any, object]],
) -> Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]:
    """Return an endpoint that answers when something is over."""

    async def answer(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 400, "headers": []})
        await waits()
        await send({"type": "http.response.body", "body": b"{}"})

    return answer


async def soon() -> None:
    """Be over."""
    await asyncio.sleep(0)


async def never() -> None:
    """Be never over."""
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("waits", [soon, never])
@pytest.mark.parametrize(
    ("count", "leaves"),
    [
        (0, True),
        (1, True),
        (MAX_FRAMES_WAITING, True),
        (SURELY_TOO_MANY, True),
        (SURELY_TOO_MANY, False),
    ],
)
async def test_a_connection_that_is_over_holds_no_place(
    waits: Callable[[], Coroutine[Any, Any, object]], count: int, leaves: bool
) -> None:
    """However many frames have come, and whether they are answered; the next has its place."""
    socket = ResponsesSocket(answering(waits))
    for _ in range(MAX_SOCKETS + 1):
        client = Client([FRAME] * count, leaves=leaves)
        async with asyncio.timeout(30):
            await socket(SCOPE, client.receive, client.send)
        closed = [sent["code"] for sent in client.got if sent["type"] == "websocket.close"]
        assert closed in ([], [1008])


async def test_nobody_is_told_anything_after_the_end() -> None:
    """An answer that is made while the connection is closed is dropped, and no failure."""
    for late in range(20):
        client = Client([FRAME] * SURELY_TOO_MANY, leaves=False)

        async def some_turns(turns: int = late) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        socket = ResponsesSocket(answering(some_turns))
        async with asyncio.timeout(30):
            await socket(SCOPE, client.receive, client.send)
        assert client.got[-1]["type"] == "websocket.close"


async def test_one_who_is_gone_is_no_failure() -> None:
    """What uvicorn raises for a client that has left ends nothing but its connection."""
    client = Client([FRAME], leaves=True)

    async def leave() -> None:
        client.is_gone = True

    await ResponsesSocket(answering(leave))(SCOPE, client.receive, client.send)
    assert [sent["type"] for sent in client.got] == ["websocket.accept"]
