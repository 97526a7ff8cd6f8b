"""Who reads a request: the worker itself if that takes but a moment, else a helper."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from emulator.contract.error_words import overloaded
from emulator.contract.errors import APIError
from emulator.emulation.header_fields import given_headers
from emulator.engine.prompts import EnginePrompt
from emulator.helpers.pool import BusyError, HelperPool, Job, Lane, Pieces, close
from emulator.helpers.spool import Spool
from emulator.reading.bodies import MAX_BYTES_KEPT, BodyReader, ReceivedBody, is_light, named_model
from emulator.reading.counting import MAX_BYTES_COUNTED_INLINE, PromptCount
from emulator.reading.helper_work import HelperOrder, Refused
from emulator.reading.jobs import next_result
from emulator.reading.judging import WORKER_S
from emulator.reading.reader import BodyOfTexts, Read, Reader, Ready, Ruling, prompts_of
from emulator.reading.seeing import seen_of
from emulator.rules.deciding import Decision
from emulator.rules.globs import Budget, OverBudgetError
from emulator.state import State
from emulator.timing.clock import running_clock
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
        seen = None if exchange.state.rules is None else seen_of(exchange)
        is_slow = False
        if received.encoding is None and is_light(content):
            if exchange.state.rules is not None and exchange.state.rules.are_heavy:
                # Of many that come at once, as many are read in one go as take a millisecond.
                await running_clock().turn()
            ruling = Ruling(seen)
            try:
                read = self.here(
                    exchange,
                    received,
                    lambda body: self.reader.read(api, given, body, exchange.state, ruling),
                )
            except OverBudgetError:
                is_slow = True  # a helper has more time
            else:
                if read.is_quick:
                    order = HelperOrder(api.path, given, seen=seen)
                    return self._made(exchange, order, read, content)
        order = HelperOrder(api.path, given, counts=exchange.state.policy is not None, seen=seen)
        return await self._by_helper(exchange, order, received, is_slow=is_slow)

    def _made(
        self, exchange: Exchange, order: HelperOrder, read: Read, content: bytes | bytearray
    ) -> Ready:
        """Return a request that was read here, with its answers."""
        exchange.model, exchange.asked = read.ask.model, read.asked
        made = self.reader.compose(read)
        exchange.rules = made.decision.rules
        if len(content) <= MAX_BYTES_COUNTED_INLINE:
            made.count = PromptCount(now=read.prompt.count)
        else:
            counting = HelperOrder(order.path, order.given, only_counts=True)
            made.count = PromptCount(
                later=partial(self.submit, exchange, counting, content, Lane.LATER)
            )
        if exchange.state.engine is not None:
            made.ids = read.prompt.ids
        if made.undecided is not None:
            made.again = partial(self._again, exchange, order, read, content)
        return made

    async def _again(
        self,
        exchange: Exchange,
        order: HelperOrder,
        read: Read,
        content: bytes | bytearray,
        decision: Decision,
    ) -> Ready:
        """Return a request that was read here, as rules decide it by now."""
        try:
            budget = Budget(WORKER_S)
            decided = self.reader.decide(read, decision, exchange.state.settings, budget)
        except OverBudgetError:
            decided = None
        if decided is not None and decided.is_quick:
            return self._made(exchange, order, decided, content)
        return await self._again_by_helper(exchange, order, content, decision)

    async def _by_helper(
        self, exchange: Exchange, order: HelperOrder, received: ReceivedBody, *, is_slow: bool
    ) -> Ready:
        """Have a helper read a request; keep its body if rules may have to be counted."""
        held = self.held(exchange, received)
        encoded = order._replace(encoding=received.encoding)
        try:
            job, (result, parts) = await self.ask(exchange, order, received, is_slow=is_slow)
        except BaseException:
            close(held)
            raise
        ready: Ready = result
        ready.parts = parts
        exchange.model, exchange.asked = ready.ask.model, ready.asked
        exchange.rules = ready.decision.rules
        ready.count = PromptCount(job=job)
        if ready.undecided is None:
            close(held)
        else:
            ready.held = held
            ready.again = partial(self._again_held, exchange, encoded, ready)
        return ready

    def held(self, exchange: Exchange, received: ReceivedBody) -> bytes | bytearray | Spool:
        """Return a body to read again if rules may have to be counted, else an empty one."""
        rules, content = exchange.state.rules, received.content
        if rules is None or not rules.counts:
            return b""
        return content.twin() if isinstance(content, Spool) else content

    async def _again_held(
        self, exchange: Exchange, order: HelperOrder, ready: Ready, decision: Decision
    ) -> Ready:
        held, ready.held = ready.held, b""
        return await self._again_by_helper(exchange, order, held, decision)

    async def _again_by_helper(
        self,
        exchange: Exchange,
        order: HelperOrder,
        body: bytes | bytearray | Spool,
        decision: Decision,
    ) -> Ready:
        """Have a helper read a request as rules decide it by now."""
        lane = Lane.SHORT if order.encoding is None and len(body) <= MAX_BYTES_KEPT else Lane.LONG
        job = self.submit(exchange, order._replace(decision=decision, counts=False), body, lane)
        result, parts = await self.result(exchange, job)
        ready: Ready = result
        ready.parts = parts
        exchange.asked, exchange.rules = ready.asked, decision.rules
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
        self,
        exchange: Exchange,
        order: HelperOrder,
        received: ReceivedBody,
        *,
        is_slow: bool = False,
    ) -> tuple[Job, tuple[Any, Pieces]]:
        """Have a helper do it; return its first result. What `is_slow` leaves a helper to others.

        Raises:
            APIError: The request is refused, or takes too much, or there is no time for it.
            ClientDisconnect: The client went away.
        """
        body = received.content
        try:
            lane = Lane.LONG if is_slow or len(body) > MAX_BYTES_KEPT else Lane.SHORT
            if received.encoding is not None:
                order, lane = order._replace(encoding=received.encoding), Lane.LONG
            job = self.submit(exchange, order, body, lane)
            received.content = b""
            del body
            return job, await self.result(exchange, job)
        finally:
            received.release()

    def submit(
        self, exchange: Exchange, order: HelperOrder, body: bytes | bytearray | Spool, lane: Lane
    ) -> Job:
        """Have a helper begin with an order.

        Raises:
            APIError: All are busy.
        """
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
