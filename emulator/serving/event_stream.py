"""A stream of events on its way out."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Protocol

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from emulator import metrics
from emulator.contract.error_words import server_error
from emulator.contract.errors import APIError, ErrorBody
from emulator.metrics import TALLY
from emulator.serving.generation import Generation
from emulator.serving.opening import hold_head, keep_alive, until_first_token
from emulator.serving.pump import Pump
from emulator.timing.clock import running_clock
from emulator.transport.direct_write import RawHeaders, direct_cycle
from emulator.transport.error_answers import error_reply
from emulator.transport.exchange import Exchange
from emulator.transport.sending import CLIENT_CLOSED_REQUEST, Reply, ended_by_disconnect
from tokenizer import TokenGenerator

EVENT_STREAM = "text/event-stream; charset=utf-8"

logger = logging.getLogger("bentoml.openai_emulator")


class ErrorEvents(Protocol):
    """What writes the event of a failure in mid-stream."""

    def error(self, error: ErrorBody) -> bytes:
        """Return the event."""


class EventStream(Reply):
    """A stream of events; it ends at once when the client goes away.

    A failure within it ends it with an event that holds the error, and nothing after it.

    Args:
        exchange: The request.
        play: Sends the blocks, each in one write.
        errors: Writes the event of a failure.
        hold: Waits until the head may leave, if that is not at once.
        headers: Headers beside those of every stream.
        content_type: The type of the body.
    """

    def __init__(
        self,
        exchange: Exchange,
        play: Callable[[Send], Awaitable[None]],
        errors: ErrorEvents,
        headers: RawHeaders,
        content_type: str = EVENT_STREAM,
        hold: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(
            200,
            [
                (b"content-type", content_type.encode()),
                *exchange.state.dialect.stream_headers,
                *headers,
            ],
        )
        self._exchange = exchange
        self._play = play
        self._errors = errors
        self._hold = hold

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        exchange = self._exchange
        exchange.status = CLIENT_CLOSED_REQUEST
        TALLY.add(metrics.ACTIVE_STREAMS)
        has_begun = False
        try:
            if self._hold is not None:
                async with ended_by_disconnect(receive):
                    await self._hold()
            await self.start(send)
            has_begun = True
            # In a task of its own: else each token would wake all that has called this.
            async with ended_by_disconnect(receive):
                await asyncio.create_task(_played(self._play, send))
            exchange.status = 200
        except ClientDisconnect:
            pass
        except Exception as error:  # noqa: BLE001 - the client is told of every failure
            if not has_begun:
                await error_reply(exchange, error)(scope, receive, send)
                return
            await self._break_off(error, send)
        finally:
            TALLY.add(metrics.ACTIVE_STREAMS, -1)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _break_off(self, error: Exception, send: Send) -> None:
        """Tell the client why the stream ends here."""
        if not isinstance(error, APIError):
            logger.error("a stream broke off", exc_info=error)
            error = server_error()
        exchange = self._exchange
        exchange.status = error.status
        exchange.code = error.body.code or error.body.type
        body = self._errors.error(error.body)
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _played(play: Callable[[Send], Awaitable[None]], send: Send) -> None:
    await play(send)


def stream_of(
    generation: Generation,
    play: Callable[[Send], Awaitable[None]],
    headers: RawHeaders,
    content_type: str = EVENT_STREAM,
) -> EventStream:
    """Return the stream of a generation, which `play` sends."""
    opening = generation.opening
    hold = partial(hold_head, generation) if opening and opening.holds_head else None
    return EventStream(generation.exchange, play, generation, headers, content_type, hold)


async def play(generation: Generation, generator: TokenGenerator, send: Send) -> None:
    """Send the tokens of a generation when they are due, and what comes after them.

    Raises:
        APIError: The prompt cannot be counted.
    """

    async def send_block(block: bytes | memoryview) -> None:
        await send({"type": "http.response.body", "body": block, "more_body": True})

    events = generation.open()
    if announced := generation.announce():
        await send_block(announced)
    if generation.opening is not None:
        await keep_alive(generation, send_block)
    if generation.lead:
        await until_first_token(generation)
        for part in generation.lead:
            await send_block(part)
            await running_clock().turn()
    cycle = direct_cycle(send)
    if cycle is not None and events.is_quick and generation.times is None:
        plan, start_s, pace = generation.plan, generation.start_s, generation.pace
        await Pump(events, plan, start_s, pace, cycle.send_part, send_block).run()
    else:
        async with aclosing(generation.blocks(generator)) as blocks:
            async for block in blocks:
                await send_block(block)
    await send_block(await generation.end())
