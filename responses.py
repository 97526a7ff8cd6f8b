"""HTTP answers: JSON and event streams with OpenAI's headers, ended when the client goes away."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from errors import server_error
from schemas import ErrorEnvelope

logger = logging.getLogger("bentoml.openai_emulator")


def openai_headers(request: Request) -> dict[str, str]:
    """Return the headers that OpenAI adds to every answer."""
    elapsed_s = time.monotonic() - request.scope["start_s"]
    return {
        "x-request-id": f"req_{random.getrandbits(128):032x}",
        "openai-processing-ms": str(int(elapsed_s * 1000)),
        "openai-version": "2020-10-01",
    }


def json_response(request: Request, body: BaseModel | bytearray, status: int = 200) -> Response:
    """Return `body` as JSON with OpenAI's headers."""
    content = memoryview(body) if isinstance(body, bytearray) else body.model_dump_json().encode()
    return Response(content, status, openai_headers(request), "application/json")


@asynccontextmanager
async def ended_by_disconnect(receive: Receive) -> AsyncIterator[None]:
    """Cancel the body of the `async with` as soon as the client goes away.

    Raises:
        ClientDisconnect: The client went away.
    """
    task = asyncio.current_task()
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        if task is not None:
            task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone or task is None:
            raise
        task.uncancel()
        raise ClientDisconnect from None
    finally:
        watcher.cancel()


class EventStream(Response):
    """A stream of server-sent events; it ends at once when the client goes away.

    A fault of our own ends it with an event that holds the error, and without ``[DONE]``.

    Args:
        blocks: What leaves together, each block in one write.
        headers: Response headers beside those of every event stream.
    """

    media_type = "text/event-stream"

    def __init__(self, blocks: AsyncGenerator[bytes], headers: dict[str, str]) -> None:
        unbuffered = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(headers={**unbuffered, **headers})
        del self.headers["content-length"]
        self.blocks = blocks

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async with ended_by_disconnect(receive), aclosing(self.blocks):
                async for block in self.blocks:
                    await send({"type": "http.response.body", "body": block, "more_body": True})
        except ClientDisconnect:
            pass
        except Exception:
            logger.exception("a stream broke off")
            event = f"data: {ErrorEnvelope(error=server_error().body).model_dump_json()}\n\n"
            body = event.encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
