"""POST /v1/embeddings as one object."""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from emulator.answers.ask import Ask
from emulator.apis.api import API
from emulator.apis.embeddings.schema import EmbeddingRequest
from emulator.apis.embeddings.vectors import (
    ReadyEmbeddings,
    count_inputs,
    dimensions_of,
    embed,
    embed_all,
    told_vectors,
)
from emulator.embeddings.embedder import Embedded, Embedder
from emulator.emulation.asked import Asked, read_asked
from emulator.engine.times import TokenTimes
from emulator.faults.fault import Fault
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
from emulator.rules.subject import TextConversation
from emulator.state import State
from emulator.timing.clock import sleep_until
from emulator.timing.plan import GenerationPlan
from emulator.transport.ending import Ending
from emulator.transport.exchange import Exchange
from emulator.transport.sending import PiecesReply, Reply, ended_by_disconnect, openai_headers
from tokenizer import TokenGenerator


class EmbeddingsAPI(API[ReadyEmbeddings]):
    """Embeddings, after their time to first token.

    The vectors of small requests are made in a thread, which serves one after the other.
    """

    path = "/v1/embeddings"
    body = EmbeddingRequest

    def __init__(self, generator: TokenGenerator, fingerprint: str) -> None:
        super().__init__(generator, fingerprint)
        self._embedder = Embedder()
        self._thread = ThreadPoolExecutor(1, "embeddings")

    async def take(self, exchange: Exchange, dispatcher: Dispatcher) -> ReadyEmbeddings:
        """Read a request; a helper makes the vectors of a large one."""
        received, given = await dispatcher.take(exchange)
        seen = None if exchange.state.rules is None else seen_of(exchange)
        if received.encoding is None and is_light(received.content):
            with suppress(OverBudgetError):  # a helper has more time
                read = dispatcher.here(
                    exchange,
                    received,
                    lambda body: _read(
                        dispatcher.reader, given, body, exchange.state, Ruling(seen)
                    ),
                )
                return _ready(exchange, read, None)
        order = HelperOrder(self.path, given, seen=seen)
        job, (result, vectors) = await dispatcher.ask(exchange, order, received)
        pieces = [*vectors]
        while result is None:
            result, vectors = await dispatcher.result(exchange, job)
            pieces += vectors
        read, tokens = result
        return _ready(exchange, read, Embedded(pieces, tokens))

    async def decided(
        self, exchange: Exchange, ready: ReadyEmbeddings, decision: Decision
    ) -> ReadyEmbeddings:
        """Return a request as rules that were counted have decided it."""
        read = _Read(ready.request, ready.plain or ready.asked, decision, None)
        return _ready(exchange, read, ready.embedded)

    def work(
        self, reader: Reader, order: HelperOrder, state: State, body: bytearray
    ) -> Iterator[tuple[object, bytes]]:
        """Yield the vectors piece by piece, which together are large, and then what they are of."""
        read = _read(reader, order.given, body, state, order.ruling)
        request, tokens = read.request, 0
        for piece, counted in embed(self._embedder, request):
            tokens += counted
            yield None, piece
        light = request.model_copy(update={"input": [""] * len(request.inputs), "emulation": None})
        yield (read._replace(request=light), tokens), b""

    async def answer(
        self,
        exchange: Exchange,
        ready: ReadyEmbeddings,
        times: TokenTimes | None,  # noqa: ARG002 - no engine makes the times of embeddings
        fault: Fault | None,
        injector: FaultInjector,
    ) -> Reply:
        """Return the vectors when they are due."""
        answer = VectorAnswer(exchange, ready)
        exchange.delivery = answer
        due_s = exchange.start_s + ready.plan.total_s
        async with ended_by_disconnect(exchange.receive):
            if answer.embedded is None:
                answer.embedded = await asyncio.get_running_loop().run_in_executor(
                    self._thread, embed_all, self._embedder, ready.request
                )
            if fault is None:
                await sleep_until(due_s)
        if fault is not None:
            answer.fault = fault.kind.name
            wait = partial(sleep_until, exchange.start_s + instant_s(fault, ready.plan, ()))
            return await injector.inject_whole(exchange, fault, ready.ask, answer, wait)
        exchange.left_s = time.monotonic()
        return PiecesReply(answer.pieces(answer.report()), openai_headers(exchange))


class _Read(NamedTuple):
    """A request that was read, and what rules decide of it; it travels from a helper."""

    request: EmbeddingRequest
    asked: Asked
    decision: Decision = NOTHING
    undecided: Undecided | None = None


def _read(
    reader: Reader,
    given: Mapping[str, str],
    body: bytes | bytearray,
    state: State,
    ruling: Ruling,
) -> _Read:
    """Read a request.

    Raises:
        APIError: It is refused.
        OverBudgetError: Rules take too long.
    """
    request = reader.parse(body, EmbeddingRequest, state.settings)
    asked = read_asked(given, request)
    if state.rules is None and not asked.emulation.emulation_strict:
        return _Read(request, asked)
    texts = [each for each in request.inputs if isinstance(each, str)]
    talk = TextConversation(texts, wants_vectors=True)
    judged = Judged(state.rules, ruling.seen, _ask(request), asked, talk, state.settings)
    return _Read(request, asked, *judged.judge(ruling.budget()))


def _ask(request: EmbeddingRequest) -> Ask:
    return Ask(request.model, user=request.user)


def _ready(exchange: Exchange, read: _Read, embedded: Embedded | None) -> ReadyEmbeddings:
    """Return a request with the plan of its answer.

    Raises:
        APIError: It asks for vectors of another length than a rule has.
    """
    request, plain, decision, undecided = read
    asked = plain.ruled(decision.timing, decision.sources) if decision.timing else plain
    exchange.model, exchange.asked, exchange.rules = request.model, asked, decision.rules
    rules, told = exchange.state.rules, None
    if rules is not None and decision.choice is not None:
        told = told_of(answer_of(rules.rules, decision.choice))
    vectors = None if told is None else told_vectors(request, told)
    count = PromptCount(now=partial(count_inputs, request), size=exchange.size)
    if embedded is not None:
        count = PromptCount(embedded.tokens)
    if vectors is not None:
        tokens = count_inputs(request) if embedded is None else embedded.tokens
        embedded = Embedded(vectors, tokens)
    given_ms = asked.emulation.ttft_ms
    ttft_ms = exchange.state.settings.ttft_ms if given_ms is None else given_ms
    return ReadyEmbeddings(
        request,
        _ask(request),
        asked,
        GenerationPlan(1, "stop", ttft_s=ttft_ms / 1000, itl_s=0),
        count,
        embedded,
        decision=decision,
        undecided=undecided,
        plain=plain,
        told=told,
    )


@dataclass(slots=True, eq=False)
class VectorAnswer:
    """The vectors of one request on their way to the client.

    Args:
        exchange: The request.
        ready: What was read of it.
        fault: The failure that the answer is to have.
    """

    exchange: Exchange
    ready: ReadyEmbeddings
    fault: str = ""

    @property
    def embedded(self) -> Embedded | None:
        """The vectors, once they are made."""
        return self.ready.embedded

    @embedded.setter
    def embedded(self, embedded: Embedded) -> None:
        self.ready.embedded = embedded

    async def whole(self) -> bytes:
        """Return the answer as JSON."""
        return b"".join(self.pieces(""))

    def reported(self, body: bytes | bytearray) -> bytes | bytearray:
        """Return the answer with the report, if that was asked for."""
        report = self.report()
        return body[:-1] + f"{report}}}".encode() if report else body

    def pieces(self, report: str) -> list[bytes | bytearray | memoryview]:
        """Return the answer as JSON, in parts; `report` is its last member.

        Raises:
            RuntimeError: The vectors are not made.
        """
        embedded = self.embedded
        if embedded is None:
            raise RuntimeError("the vectors are not made yet")
        told = self.ready.told
        figures = (told.usage if told is not None else None) or {}
        tokens = figures.get("prompt_tokens", embedded.tokens)
        total = figures.get("total_tokens", tokens)
        usage = f'{{"prompt_tokens":{tokens},"total_tokens":{total}}}'
        model = json.dumps((told and told.model) or self.ready.request.model)
        end = f'],"model":{model},"usage":{usage}{report}}}'
        return [b'{"object":"list","data":[', *embedded.pieces, end.encode()]

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
        tokens = self.embedded.tokens if self.embedded is not None else 0
        is_complete = exchange.status == 200 and not self.fault
        left_s = (exchange.left_s or time.monotonic()) - exchange.start_s
        return Ending(
            kind="embeddings",
            tokens=tokens,
            is_complete=is_complete,
            total_s=(ready.plan.total_s, left_s),
            whole_lag_s=left_s - ready.plan.total_s if is_complete else None,
            fault=self.fault,
            note=f" inputs={len(ready.request.inputs)} prompt_tokens={tokens} "
            f"dimensions={dimensions_of(ready.request)}",
        )
