"""What APIs share whose answers are a list of items, never streamed, due after the TTFT."""

import json
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from emulator.answers.ask import Ask
from emulator.answers.script import Told
from emulator.apis.api import API
from emulator.contract.bodies import ModelRequest
from emulator.contract.error_words import placed
from emulator.contract.errors import APIError
from emulator.emulation.asked import Asked, read_asked
from emulator.engine.times import TokenTimes
from emulator.faults.fault import Fault
from emulator.helpers.pool import Job, Lane, Pieces, close
from emulator.helpers.spool import Spool
from emulator.injection.fault_injector import FaultInjector
from emulator.injection.faulty_answers import instant_s
from emulator.reading.bodies import is_light
from emulator.reading.counting import PromptCount
from emulator.reading.dispatcher import Dispatcher
from emulator.reading.helper_work import HelperOrder
from emulator.reading.judging import Judged
from emulator.reading.reader import Reader, Ruling
from emulator.reading.seeing import seen_of
from emulator.rules.deciding import NOTHING, Decision, Undecided, answer_of
from emulator.rules.globs import OverBudgetError
from emulator.rules.scripting import told_of
from emulator.rules.subject import Conversation
from emulator.state import State
from emulator.timing.clock import sleep_until
from emulator.timing.plan import GenerationPlan
from emulator.transport.ending import Ending
from emulator.transport.exchange import Exchange
from emulator.transport.sending import PiecesReply, Reply, ended_by_disconnect, own_headers

Piece = bytes | bytearray | memoryview


class Made(NamedTuple):
    """The items of an answer as JSON, in pieces with their commas, and the inputs' tokens."""

    pieces: Sequence[Piece]
    tokens: int


Q = TypeVar("Q", bound=ModelRequest)


class Read(NamedTuple, Generic[Q]):
    """A request that was read, and what rules decide of it; it travels from a helper."""

    request: Q
    asked: Asked
    decision: Decision = NOTHING
    undecided: Undecided | None = None


@dataclass(slots=True)
class ReadyWhole(Generic[Q]):
    """A request that was read, with the plan of its answer.

    Args:
        request: The body; from a helper without its inputs.
        ask: What was asked, in the words of all APIs.
        asked: The X-* headers.
        plan: When the answer is due: as the one token of a generation.
        count: The count of the inputs' tokens.
        decision: What rules decide.
        undecided: What is known for another decision, if rules have to be counted first.
        again: Returns the request by that decision.
        made: The items, once they are made.
        told: What a rule tells in place of what is true.
        held: The body, if a helper has to read it again.
    """

    request: Q
    ask: Ask
    asked: Asked
    plan: GenerationPlan
    count: PromptCount
    decision: Decision
    undecided: Undecided | None
    again: "Callable[[Decision], Awaitable[ReadyWhole[Q]]]"
    made: Made | None = None
    told: Told | None = None
    held: bytes | bytearray | Spool = b""
    token_limit: int | None = None
    planned_tokens: int = 0

    def give_up(self) -> None:
        """Let go of the body, and give up a count that is under way."""
        self.count.cancel()
        close(self.held)
        self.held = b""


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
    def conversation(self, request: Q) -> Conversation:
        """Return a request in the words of rules."""

    def told_items(self, request: Q, told: Told) -> Sequence[Piece] | None:  # noqa: ARG002
        """Return the items that a rule tells; None if it tells none.

        Raises:
            APIError: They do not fit the request.
        """
        return None

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
    def around(self, request: Q, tokens: int, told: Told | None) -> tuple[str, str]:
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
        rules = exchange.state.rules
        seen = None if rules is None else seen_of(exchange)
        if received.encoding is None and is_light(received.content):
            ruling = Ruling(seen)
            with suppress(OverBudgetError):  # a helper has more time
                read = dispatcher.here(
                    exchange,
                    received,
                    lambda body: self._read(dispatcher.reader, given, body, exchange.state, ruling),
                )
                if self.stays(read.request):
                    return self._ready(exchange, read, None)
        counts = exchange.state.policy is not None
        order = HelperOrder(self.path, given, counts, encoding=received.encoding, seen=seen)
        held = dispatcher.held(exchange, received)
        try:
            job, first = await dispatcher.ask(exchange, order, received)
            ready = await self._by_helper(exchange, dispatcher, job, first)
        except BaseException:
            close(held)
            raise
        if ready.undecided is None:
            close(held)
        else:
            ready.held = held
            ready.again = partial(self._held_again, exchange, dispatcher, order, ready)
        return ready

    async def _by_helper(
        self, exchange: Exchange, dispatcher: Dispatcher, job: Job, first: tuple[Any, Pieces]
    ) -> ReadyWhole[Q]:
        """Return a request with the items that a helper makes."""
        result, pieces = first
        made: list[Piece] = [*pieces]
        while result is None:
            result, pieces = await dispatcher.result(exchange, job)
            made += pieces
        read, tokens = result
        return self._ready(exchange, read, Made(made, tokens))

    async def _held_again(
        self,
        exchange: Exchange,
        dispatcher: Dispatcher,
        order: HelperOrder,
        ready: ReadyWhole[Q],
        decision: Decision,
    ) -> ReadyWhole[Q]:
        held, ready.held = ready.held, b""
        order = order._replace(decision=decision)
        job = dispatcher.submit(exchange, order, held, Lane.LONG)
        first = await dispatcher.result(exchange, job)
        return await self._by_helper(exchange, dispatcher, job, first)

    async def decided(
        self,
        exchange: Exchange,  # noqa: ARG002 - what was kept knows it
        ready: ReadyWhole[Q],
        decision: Decision,
    ) -> ReadyWhole[Q]:
        """Return a request as rules that were counted have decided it."""
        return await ready.again(decision)

    def _read(
        self,
        reader: Reader,
        given: Mapping[str, str],
        body: bytes | bytearray,
        state: State,
        ruling: Ruling,
    ) -> Read[Q]:
        """Read a request.

        Raises:
            APIError: It is refused.
            OverBudgetError: Rules take too long.
        """
        request = reader.parse(body, self.body, state, self.path)
        asked = read_asked(given, request)
        if state.rules is None and not asked.emulation.emulation_strict:
            return self._checked(Read(request, asked))
        if (decision := ruling.decision) is not None:
            return self._checked(Read(request, asked, decision))
        talk = self.conversation(request)
        judged = Judged(state.rules, ruling.seen, _ask(request), asked, talk, state.settings)
        return self._checked(Read(request, asked, *judged.judge(ruling.budget())))

    def _checked(self, read: Read[Q]) -> Read[Q]:
        """Return a request whose headers fit it, as far as they are decided.

        Raises:
            APIError: They do not.
        """
        asked = _ruled(read)
        try:
            self.check(read.request, asked)
        except APIError as error:
            raise placed(error, asked.places) from None
        return read

    def _ready(self, exchange: Exchange, read: Read[Q], made: Made | None) -> ReadyWhole[Q]:
        """Return a request with the plan of its answer.

        Raises:
            APIError: A rule tells items that do not fit it.
        """
        request, asked, decision = read.request, _ruled(read), read.decision
        exchange.model, exchange.asked, exchange.rules = request.model, asked, decision.rules
        rules, told = exchange.state.rules, None
        if rules is not None and decision.choice is not None:
            told = told_of(answer_of(rules.rules, decision.choice))
        count = PromptCount(now=partial(self.count, request), size=exchange.size)
        if made is not None:
            count = PromptCount(made.tokens)
        if told is not None and (items := self.told_items(request, told)) is not None:
            made = Made(items, self.count(request) if made is None else made.tokens)
        given_ms = asked.emulation.ttft_ms
        ttft_ms = exchange.state.settings.ttft_ms if given_ms is None else given_ms
        return ReadyWhole(
            request,
            _ask(request),
            asked,
            GenerationPlan(1, "stop", ttft_s=ttft_ms / 1000, itl_s=0),
            count,
            decision,
            read.undecided,
            partial(self._again, exchange, read),
            made,
            told,
        )

    async def _again(self, exchange: Exchange, read: Read[Q], decision: Decision) -> ReadyWhole[Q]:
        """Return a request that stays here by another decision."""
        read = self._checked(Read(read.request, read.asked, decision))
        return self._ready(exchange, read, None)

    def work(
        self, reader: Reader, order: HelperOrder, state: State, body: bytearray
    ) -> Iterator[tuple[object, bytes]]:
        """Yield the items piece by piece, which together are large, and then what they are of.

        Items that rules may still change are only counted.
        """
        read = self._read(reader, order.given, body, state, order.ruling)
        request, tokens = read.request, 0
        if read.undecided is not None:
            tokens = self.count(request)
        else:
            for piece, counted in self.items(request, _ruled(read), counts=order.counts):
                tokens += counted
                yield None, piece
        yield (read._replace(request=self.light(request)), tokens), b""

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
        return PiecesReply(answer.pieces(answer.report()), own_headers(exchange))


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
        before, after = self.api.around(self.ready.request, made.tokens, self.ready.told)
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
        left_s = (exchange.left_s or exchange.ended_s) - exchange.start_s
        return Ending(
            kind=self.api.kind,
            tokens_in=tokens or None,
            tokens=tokens,
            is_complete=is_complete,
            total_s=(ready.plan.total_s, left_s),
            whole_lag_s=left_s - ready.plan.total_s if is_complete else None,
            worst_lag_s=left_s - ready.plan.total_s if is_complete else None,
            fault=self.fault,
            note=self.api.note(ready.request, tokens),
        )


def _ask(request: ModelRequest) -> Ask:
    return Ask(request.model, user=getattr(request, "user", None))


def _ruled(read: Read[Any]) -> Asked:
    """Return what is asked of a request beside its body, with what rules decide of it."""
    decision = read.decision
    return read.asked.ruled(decision.timing, decision.sources) if decision.timing else read.asked
