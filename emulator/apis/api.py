"""What an API is to the service: one object, from its path to its answers.

A new API of texts is a class of `TextAPI` in a folder of its own, and a line in service.py's table.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import ClassVar, Generic, Protocol, TypeVar

from emulator.answers.ask import Ask
from emulator.contract.bodies import ModelRequest
from emulator.contract.errors import ErrorBody
from emulator.emulation.asked import Asked
from emulator.engine.times import TokenTimes
from emulator.faults.deciding import Fault
from emulator.injection.fault_injector import FaultInjector
from emulator.reading.counting import PromptCount
from emulator.reading.dispatcher import Dispatcher
from emulator.reading.helper_work import HelperOrder, texts
from emulator.reading.reader import Reader, Reading, Ready
from emulator.rendering.renderer import Header
from emulator.serving.event_stream import EVENT_STREAM, play, stream_of
from emulator.serving.generation import Generation, random_id
from emulator.state import State
from emulator.timing.plan import GenerationPlan
from emulator.transport.exchange import Exchange, openai_envelope
from emulator.transport.sending import (
    JSON,
    PiecesReply,
    Reply,
    ended_by_disconnect,
    openai_headers,
    slices,
    whole_reply,
)
from tokenizer import TokenGenerator


class ReadyRequest(Protocol):
    """A request that was read, whichever API it is for."""

    ask: Ask
    asked: Asked
    plan: GenerationPlan
    count: PromptCount

    @property
    def token_limit(self) -> int | None:
        """The request's own limit on tokens."""

    @property
    def planned_tokens(self) -> int:
        """The tokens that limits charge beside the prompt's."""


B = TypeVar("B", bound=ModelRequest)
R = TypeVar("R", bound=ReadyRequest)


class API(ABC, Generic[R]):
    """One endpoint that answers POST requests.

    ``path`` is its address, ``body`` the schema of its requests.

    Args:
        generator: Gives out the tokens when they are due.
        fingerprint: What answers say of the system that made them.
    """

    path: str
    body: type[ModelRequest]

    def __init__(self, generator: TokenGenerator, fingerprint: str) -> None:
        self._generator = generator
        self._fingerprint = fingerprint

    def authorization(self, exchange: Exchange) -> bytes | None:
        """Return the credentials of a request, as an Authorization header has them."""
        return exchange.fields.get(b"authorization")

    def envelope(self, error: ErrorBody) -> bytes:
        """Return an error as the body of an answer."""
        return openai_envelope(error)

    @abstractmethod
    async def take(self, exchange: Exchange, dispatcher: Dispatcher) -> R:
        """Read a request; what can be made of its answer without the clock is made too.

        Raises:
            APIError: It is refused, or takes too much, or there is no time for it.
            ClientDisconnect: The client went away.
        """

    @abstractmethod
    def work(
        self, reader: Reader, order: HelperOrder, state: State, body: bytearray
    ) -> Iterator[tuple[object, bytes]]:
        """Do in a helper what `take` leaves to one; yield its results.

        Raises:
            APIError: The request is refused.
        """

    @abstractmethod
    async def answer(
        self,
        exchange: Exchange,
        ready: R,
        times: TokenTimes | None,
        fault: Fault | None,
        injector: FaultInjector,
    ) -> Reply:
        """Return the answer when it is due, or the stream of it.

        Args:
            exchange: The request.
            ready: What `take` returned, with the plan that counts.
            times: The due times as an engine makes them, if one does.
            fault: How the answer has to fail, if it has to.
            injector: Makes it fail.

        Raises:
            APIError: It cannot be made in time.
            ClientDisconnect: The client went away.
        """


class TextAPI(API[Ready], Generic[B]):
    """An API whose answers are texts, tool calls or JSON, token by token.

    ``id_prefix`` and ``id_digits`` make the ids of answers; the types are those of their bodies.
    """

    body: type[B]
    id_prefix: ClassVar = ""
    id_digits: ClassVar = 29
    stream_type: ClassVar = EVENT_STREAM
    whole_type: ClassVar = JSON

    @abstractmethod
    def read(self, request: B, *, lenient: bool) -> Reading:
        """Return what a request asks.

        Raises:
            APIError: The API refuses it; a `lenient` one lets pass what other servers do.
        """

    async def take(self, exchange: Exchange, dispatcher: Dispatcher) -> Ready:
        """Read a request, plan and compose its answers."""
        return await dispatcher.texts(exchange, self)

    def work(
        self, reader: Reader, order: HelperOrder, state: State, body: bytearray
    ) -> Iterator[tuple[object, bytes]]:
        """Do in a helper what `take` leaves to one; yield its results."""
        return texts(self, reader, order, state, body)

    async def answer(
        self,
        exchange: Exchange,
        ready: Ready,
        times: TokenTimes | None,
        fault: Fault | None,
        injector: FaultInjector,
    ) -> Reply:
        """Return the answer when it is due, or the stream of it."""
        generation = self._generation(exchange, ready, times)
        exchange.delivery = generation
        ask, count = generation.ask, generation.count
        if ask.wants_usage and count.known is None:
            count.start()
        if ask.continuous_usage:
            async with ended_by_disconnect(exchange.receive):
                await count.tokens()
        if fault is not None:
            return await injector.inject(fault, generation)
        if ask.stream:
            sending = partial(play, generation, self._generator)
            return stream_of(generation, sending, openai_headers(exchange), self.stream_type)
        return await self._whole(generation)

    def _generation(self, exchange: Exchange, ready: Ready, times: TokenTimes | None) -> Generation:
        made_id = random_id(self.id_prefix, self.id_digits, ready.ask.id_end)
        header = Header(made_id, int(time.time()), ready.ask.model, self._fingerprint)
        return Generation(
            exchange,
            ready.ask,
            ready.plan,
            ready.answers,
            ready.renderer(header),
            ready.count,
            made_id,
            ready.note,
            times,
            ready.opening,
        )

    async def _whole(self, generation: Generation) -> Reply:
        """Return a whole answer when its last token is due."""
        exchange = generation.exchange
        if generation.is_due:
            body = await generation.whole()
        else:
            async with ended_by_disconnect(exchange.receive):
                body = await generation.whole_in_time()
        content = generation.reported(body)
        reply: Reply
        if generation.is_large:
            reply = PiecesReply(list(slices(content)), openai_headers(exchange))
        else:
            reply = whole_reply(exchange, content, content_type=self.whole_type)
        exchange.left_s = time.monotonic()
        return reply
