"""Who reads a request: the worker itself if that takes but a moment, else a helper."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from emulator.contract.error_words import overloaded
from emulator.contract.errors import APIError
from emulator.emulation.header_fields import given_headers
from emulator.engine.prompts import EnginePrompt
from emulator.helpers.pool import BusyError, HelperPool, Job, Lane, Pieces
from emulator.helpers.spool import Spool
from emulator.reading.bodies import MAX_BYTES_KEPT, BodyReader, ReceivedBody, is_light, named_model
from emulator.reading.counting import MAX_BYTES_COUNTED_INLINE, PromptCount
from emulator.reading.helper_work import HelperOrder, Refused
from emulator.reading.jobs import next_result
from emulator.reading.reader import BodyOfTexts, Reader, Ready, prompts_of
from emulator.state import State
from emulator.transport.exchange import Exchange
from emulator.transport.sending import ended_by_disconnect

T = TypeVar("T")


class Computes(Protocol):
    """An endpoint that answers with what it computes of a body."""

    path: str

    def compute(self, reader: Reader, body: bytes | bytearray, state: State) -> tuple[str, bytes]:
        """Return the model that a body is for, and the answer as JSON."""


class Dispatcher:
    """Has requests read, here or by a helper.

    Args:
        reader: Reads those that are read here.
        bodies: Takes their bodies.
        pool: The helpers.
    """

    def __init__(self, reader: Reader, bodies: BodyReader, pool: HelperPool) -> None:
        self.reader = reader
        self._bodies = bodies
        self._pool = pool

    async def texts(self, exchange: Exchange, api: BodyOfTexts) -> Ready:
        """Read a request for texts, plan and compose its answers.

        Raises:
            APIError: It is refused, or takes too much, or there is no time for it.
            ClientDisconnect: The client went away.
        """
        received, given = await self.take(exchange)
        content = received.content
        if received.encoding is None and is_light(content):
            read = self.here(
                exchange,
                received,
                lambda body: self.reader.read(api, given, body, exchange.state),
            )
            if read.is_quick:
                exchange.model, exchange.asked = read.ask.model, read.asked
                made = self.reader.compose(read)
                if len(content) <= MAX_BYTES_COUNTED_INLINE:
                    made.count = PromptCount(now=read.prompt.count)
                else:
                    order = HelperOrder(api.path, given, only_counts=True)
                    made.count = PromptCount(
                        later=partial(self._submit, exchange, order, content, Lane.LATER)
                    )
                if exchange.state.engine is not None:
                    made.ids = read.prompt.ids
                return made
        order = HelperOrder(api.path, given, counts=exchange.state.policy is not None)
        job, (result, parts) = await self.ask(exchange, order, received)
        ready: Ready = result
        ready.parts = parts
        exchange.model, exchange.asked = ready.ask.model, ready.asked
        ready.count = PromptCount(job=job)
        return ready

    async def take(self, exchange: Exchange) -> tuple[ReceivedBody, Mapping[str, str]]:
        """Return the body of a request, and its X-* headers.

        Raises:
            APIError: The body is beyond a bound, or a header comes twice.
            ClientDisconnect: The client went away.
        """
        received = await self._bodies.read(exchange)
        try:
            return received, given_headers(exchange.scope["headers"], exchange.fields)
        except APIError:
            received.give_up()
            raise

    async def prompts(self, exchange: Exchange, ready: Ready) -> Sequence[EnginePrompt]:
        """Return the prompts of a request as an engine sees them."""
        if ready.ids is not None and exchange.size > MAX_BYTES_COUNTED_INLINE:
            return await asyncio.to_thread(prompts_of, ready, exchange.state)
        return prompts_of(ready, exchange.state)

    async def compute(self, exchange: Exchange, api: Computes) -> tuple[str, bytes]:
        """Return what an endpoint makes of a request's body: the model, and the answer.

        Raises:
            APIError: It is refused, or takes too much, or there is no time for it.
            ClientDisconnect: The client went away.
        """
        received = await self._bodies.read(exchange)
        content = received.content
        is_small = received.encoding is None and len(content) <= MAX_BYTES_COUNTED_INLINE
        if is_small and is_light(content):
            return self.here(
                exchange,
                received,
                lambda body: api.compute(self.reader, body, exchange.state),
            )
        _, (result, _) = await self.ask(exchange, HelperOrder(api.path, {}), received)
        model, answer = result
        return model, answer

    def here(
        self, exchange: Exchange, received: ReceivedBody, read: Callable[[bytes | bytearray], T]
    ) -> T:
        """Read a body at once.

        Raises:
            APIError: It is refused.
        """
        received.release()
        content = received.content
        if isinstance(content, Spool):
            raise TypeError("a spool is for helpers alone")
        try:
            return read(content)
        except APIError:
            exchange.model = named_model(content)
            raise

    async def ask(
        self, exchange: Exchange, order: HelperOrder, received: ReceivedBody
    ) -> tuple[Job, tuple[Any, Pieces]]:
        """Have a helper do it; return its first result.

        Raises:
            APIError: The request is refused, or takes too much, or there is no time for it.
            ClientDisconnect: The client went away.
        """
        body = received.content
        try:
            lane = Lane.LONG if len(body) > MAX_BYTES_KEPT else Lane.SHORT
            if received.encoding is not None:
                order, lane = order._replace(encoding=received.encoding), Lane.LONG
            job = self._submit(exchange, order, body, lane)
            received.content = b""
            del body
            return job, await self.result(exchange, job)
        finally:
            received.release()

    def _submit(
        self, exchange: Exchange, order: HelperOrder, body: bytes | bytearray | Spool, lane: Lane
    ) -> Job:
        state = exchange.state
        try:
            return self._pool.submit(order, body, lane, state.version, state)
        except BusyError:
            raise overloaded() from None

    async def result(self, exchange: Exchange, job: Job) -> tuple[Any, Pieces]:
        """Return the next result of a request's job, which ends when the client goes away.

        Raises:
            APIError: The request is refused, or takes too much, or there is no time for it.
            ClientDisconnect: The client went away.
        """
        try:
            async with ended_by_disconnect(exchange.receive):
                result, blob = await next_result(job)
        except BaseException:
            job.cancel()
            raise
        if isinstance(result, Refused):
            exchange.model = result.model
            raise result.error()
        return result, blob
