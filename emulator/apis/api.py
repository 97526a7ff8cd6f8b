"""What an API is to the service: one object, from its path to its answers.

A new API of texts is a class of `TextAPI` in a folder of its own, and a line in service.py's table.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import ClassVar, Generic, Protocol, TypeVar

from emulator.answers.ask import Ask
from emulator.answers.script import Told
from emulator.contract.bodies import ModelRequest
from emulator.contract.errors import ErrorBody
from emulator.dialects.dialect import OPENAI, Dialect
from emulator.emulation.asked import Asked
from emulator.engine.times import TokenTimes
from emulator.faults.fault import Fault
from emulator.injection.fault_injector import FaultInjector
from emulator.reading.counting import PromptCount
from emulator.reading.dispatcher import Dispatcher
from emulator.reading.helper_work import HelperOrder, texts
from emulator.reading.reader import Reader, Reading, Ready
from emulator.rendering.renderer import Header
from emulator.rules.deciding import Decision, Undecided
from emulator.rules.subject import Conversation
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
    own_headers,
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
    decision: Decision
    undecided: Undecided | None

    def give_up(self) -> None:
        """Let go of what was kept, and give up a count that is under way."""

    @property
    def token_limit(self) -> int | None:
        """The request's own limit on tokens."""

    @property
    def planned_tokens(self) -> int:
        """The tokens that limits charge beside the prompt's."""


def told_header(header: Header, told: Told) -> Header:
    """Return what an answer says of itself, where a rule says it in place of what is true."""
    return Header(
        told.id or header.id,
        header.created,
        told.model or header.model,
        told.system_fingerprint or header.system_fingerprint,
        told.service_tier or header.service_tier,
    )


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
    async def decided(self, exchange: Exchange, ready: R, decision: Decision) -> R:
        """Return a request as rules that were counted have decided it.

        Raises:
            APIError: It is refused.
            ClientDisconnect: The client went away.
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
    def read(self, request: B, *, lenient: bool, dialect: Dialect = OPENAI) -> Reading:
        """Return what a request asks, with what writes its answers in a dialect.

        Raises:
            APIError: The API refuses it; a `lenient` one lets pass what other servers do.
        """

    @abstractmethod
    def conversation(self, request: B) -> Conversation:
        """Return a request in the words of rules."""

    async def take(self, exchange: Exchange, dispatcher: Dispatcher) -> Ready:
        """Read a request, plan and compose its answers."""
        return await dispatcher.texts(exchange, self)

    async def decided(
        self,
        exchange: Exchange,  # noqa: ARG002 - what was kept knows it
        ready: Ready,
        decision: Decision,
    ) -> Ready:
        """Return a request as rules that were counted have decided it."""
        again = await ready.again(decision)
        again.count, again.ids, again.prompts = ready.count, ready.ids, ready.prompts
        return again

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
            return stream_of(generation, sending, own_headers(exchange), self.stream_type)
        return await self._whole(generation)

    def _generation(self, exchange: Exchange, ready: Ready, times: TokenTimes | None) -> Generation:
        made_id = exchange.state.dialect.answer_id(self.id_prefix, exchange.fields)
        if made_id is None:
            made_id = random_id(self.id_prefix, self.id_digits, ready.ask.id_end)
        header = Header(made_id, int(time.time()), ready.ask.model, self._fingerprint)
        if ready.told is not None:
            header = told_header(header, ready.told)
            made_id = header.id
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
            told_usage=None if ready.told is None else ready.told.usage,
        )

    def stamp(self, content: bytes | bytearray) -> None:
        """Write into a whole answer what only the moment when it leaves can tell."""

    async def _whole(self, generation: Generation) -> Reply:
        """Return a whole answer when its last token is due."""
        exchange = generation.exchange
        if generation.is_due:
            body = await generation.whole()
        else:
            async with ended_by_disconnect(exchange.receive):
                body = await generation.whole_in_time()
        content = generation.reported(body)
        self.stamp(content)
        reply: Reply
        if generation.is_large:
            reply = PiecesReply(list(slices(content)), own_headers(exchange))
        else:
            reply = whole_reply(exchange, content, content_type=self.whole_type)
        exchange.left_s = time.monotonic()
        return reply
