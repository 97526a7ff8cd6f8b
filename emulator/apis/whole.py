"""What APIs share whose answers are a list of items, never streamed, due after the TTFT."""

import json
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from emulator.answers.ask import Ask
from emulator.apis.api import API
from emulator.contract.bodies import ModelRequest
from emulator.contract.error_words import placed
from emulator.contract.errors import APIError
from emulator.emulation.asked import Asked, read_asked
from emulator.engine.times import TokenTimes
from emulator.faults.deciding import Fault
from emulator.injection.fault_injector import FaultInjector
from emulator.injection.faulty_answers import instant_s
from emulator.reading.bodies import is_light
from emulator.reading.counting import PromptCount
from emulator.reading.dispatcher import Dispatcher
from emulator.reading.helper_work import HelperOrder
from emulator.reading.reader import Reader
from emulator.state import State
from emulator.timing.clock import sleep_until
from emulator.timing.plan import GenerationPlan
from emulator.transport.ending import Ending
from emulator.transport.exchange import Exchange
from emulator.transport.sending import PiecesReply, Reply, ended_by_disconnect, openai_headers

Piece = bytes | bytearray | memoryview


class Made(NamedTuple):
    """The items of an answer as JSON, in pieces with their commas, and the inputs' tokens."""

    pieces: Sequence[Piece]
    tokens: int


Q = TypeVar("Q", bound=ModelRequest)


@dataclass(slots=True)
class ReadyWhole(Generic[Q]):
    """A request that was read.

    Args:
        request: The body; from a helper without its inputs.
        ask: What was asked, in the words of all APIs.
        asked: The X-* headers.
        plan: When the answer is due: as the one token of a generation.
        count: The count of the inputs' tokens.
        made: The items, once they are made.
    """

    request: Q
    ask: Ask
    asked: Asked
    plan: GenerationPlan
    count: PromptCount
    made: Made | None = None
    token_limit: int | None = None
    planned_tokens: int = 0


class WholeAPI(API[ReadyWhole[Q]], Generic[Q]):
    """An API whose answers are lists of items."""

    body: type[Q]
    kind: ClassVar[str]  # what the log calls its answers

    def check(self, request: Q, asked: Asked) -> None:
        """Check what was asked beside the body.

        Raises:
            APIError: It does not fit the request.
        """

    @abstractmethod
    def items(self, request: Q, asked: Asked, *, counts: bool) -> Iterator[tuple[bytes, int]]:
        """Yield the items, some at a time: a piece of JSON, and the tokens of its inputs.

        Where nobody `counts` tokens, they need not be told.

        Raises:
            APIError: An input is refused.
        """

    @abstractmethod
    def count(self, request: Q) -> int:
        """Return how many tokens the inputs have."""

    @abstractmethod
    def light(self, request: Q) -> Q:
        """Return a request without what its inputs say."""

    @abstractmethod
    def around(self, request: Q, tokens: int) -> tuple[str, str]:
        """Return what comes before the items, as JSON, and what after, but for the last brace."""

    @abstractmethod
    def note(self, request: Q, tokens: int) -> str:
        """Return what the log line says of an answer."""

    @abstractmethod
    def stays(self, request: Q) -> bool:
        """Tell whether a worker makes the items of a small request, and not a helper."""

    async def make(self, request: Q, asked: Asked) -> Made:
        """Return the items of a small request that stays here.

        Raises:
            APIError: An input is refused.
        """
        return self.all_items(request, asked)

    def all_items(self, request: Q, asked: Asked) -> Made:
        """Return the items of a request, all together.

        Raises:
            APIError: An input is refused.
        """
        pieces, tokens = zip(*self.items(request, asked, counts=False), strict=True)
        return Made(pieces, sum(tokens))

    async def take(self, exchange: Exchange, dispatcher: Dispatcher) -> ReadyWhole[Q]:
        """Read a request; a helper makes the items of a large one."""
        received, given = await dispatcher.take(exchange)
        if received.encoding is None and is_light(received.content):
            request, asked = dispatcher.here(
                exchange,
                received,
                lambda body: self._read(dispatcher.reader, given, body, exchange.state),
            )
            if self.stays(request):
                return self._ready(exchange, request, asked, None)
        order = HelperOrder(self.path, given, counts=exchange.state.policy is not None)
        job, (result, pieces) = await dispatcher.ask(exchange, order, received)
        made: list[Piece] = [*pieces]
        while result is None:
            result, pieces = await dispatcher.result(exchange, job)
            made += pieces
        request, asked, tokens = result
        return self._ready(exchange, request, asked, Made(made, tokens))

    def _read(
        self, reader: Reader, given: Mapping[str, str], body: bytes | bytearray, state: State
    ) -> tuple[Q, Asked]:
        request = reader.parse(body, self.body, state.settings)
        asked = read_asked(given, request, state.profiles)
        try:
            self.check(request, asked)
        except APIError as error:
            raise placed(error, asked.places) from None
        return request, asked

    def _ready(
        self, exchange: Exchange, request: Q, asked: Asked, made: Made | None
    ) -> ReadyWhole[Q]:
        exchange.model, exchange.asked = request.model, asked
        given_ms = asked.emulation.ttft_ms
        ttft_ms = exchange.state.settings.ttft_ms if given_ms is None else given_ms
        return ReadyWhole(
            request,
            Ask(request.model, user=getattr(request, "user", None)),
            asked,
            GenerationPlan(1, "stop", ttft_s=ttft_ms / 1000, itl_s=0),
            PromptCount(now=partial(self.count, request), size=exchange.size)
            if made is None
            else PromptCount(made.tokens),
            made,
        )

    def work(
        self, reader: Reader, order: HelperOrder, state: State, body: bytearray
    ) -> Iterator[tuple[object, bytes]]:
        """Yield the items piece by piece, which together are large, and then what they are of."""
        request, asked = self._read(reader, order.given, body, state)
        tokens = 0
        for piece, counted in self.items(request, asked, counts=order.counts):
            tokens += counted
            yield None, piece
        yield (self.light(request), asked, tokens), b""

    async def answer(
        self,
        exchange: Exchange,
        ready: ReadyWhole[Q],
        times: TokenTimes | None,  # noqa: ARG002 - no engine makes the times of such answers
        fault: Fault | None,
        injector: FaultInjector,
    ) -> Reply:
        """Return the items when they are due."""
        answer = WholeAnswer(exchange, ready, self)
        exchange.delivery = answer
        due_s = exchange.start_s + ready.plan.total_s
        async with ended_by_disconnect(exchange.receive):
            if ready.made is None:
                ready.made = await self.make(ready.request, ready.asked)
            if fault is None:
                await sleep_until(due_s)
        if fault is not None:
            answer.fault = fault.kind.name
            wait = partial(sleep_until, exchange.start_s + instant_s(fault, ready.plan, ()))
            return await injector.inject_whole(exchange, fault, ready.ask, answer, wait)
        exchange.left_s = time.monotonic()
        return PiecesReply(answer.pieces(answer.report()), openai_headers(exchange))


@dataclass(slots=True, eq=False)
class WholeAnswer:
    """The items of one request on their way to the client.

    Args:
        exchange: The request.
        ready: What was read of it.
        api: What makes the items.
        fault: The failure that the answer is to have.
    """

    exchange: Exchange
    ready: ReadyWhole[Any]
    api: WholeAPI[Any]
    fault: str = ""

    async def whole(self) -> bytes:
        """Return the answer as JSON."""
        return b"".join(self.pieces(""))

    def reported(self, body: bytes | bytearray) -> bytes | bytearray:
        """Return the answer with the report, if that was asked for."""
        report = self.report()
        return body[:-1] + f"{report}}}".encode() if report else body

    def pieces(self, report: str) -> list[Piece]:
        """Return the answer as JSON, in parts; `report` is its last member.

        Raises:
            RuntimeError: The items are not made.
        """
        made = self.ready.made
        if made is None:
            raise RuntimeError("the items are not made yet")
        before, after = self.api.around(self.ready.request, made.tokens)
        return [before.encode(), *made.pieces, f"{after}{report}}}".encode()]

    def report(self) -> str:
        """Return the times asked and actual in ms, as a member of the answer, if it is wanted."""
        if not self.ready.asked.emulation.emulation_report:
            return ""
        total_s, elapsed_s = self.ready.plan.total_s, self.exchange.elapsed_s
        report: dict[str, object] = {
            "total_ms": {"asked": round(total_s * 1000, 3), "actual": round(elapsed_s * 1000, 3)},
            "worst_lag_ms": round((elapsed_s - total_s) * 1000, 3),
        }
        if self.fault:
            report["fault"] = self.fault
        return f',"emulation":{json.dumps(report, separators=(",", ":"))}'

    def release(self) -> None:
        """Give up a count that is under way."""
        self.ready.count.cancel()

    def ending(self) -> Ending:
        """Return how the answer has ended."""
        exchange, ready = self.exchange, self.ready
        tokens = ready.made.tokens if ready.made is not None else 0
        is_complete = exchange.status == 200 and not self.fault
        left_s = (exchange.left_s or time.monotonic()) - exchange.start_s
        return Ending(
            kind=self.api.kind,
            tokens=tokens,
            is_complete=is_complete,
            total_s=(ready.plan.total_s, left_s),
            whole_lag_s=left_s - ready.plan.total_s if is_complete else None,
            fault=self.fault,
            note=self.api.note(ready.request, tokens),
        )
