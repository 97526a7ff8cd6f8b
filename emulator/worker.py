"""The parts of one worker, put together."""

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from emulator import metrics
from emulator.apis.api import API, ReadyRequest
from emulator.apis.computations import Computation
from emulator.apis.table import APIS, COMPUTATIONS
from emulator.engine.runner import TimedSequence
from emulator.faults.fault import Fault
from emulator.helpers.pool import HelperPool
from emulator.injection.fault_injector import FaultInjector, Wished, refuse_time_in_engine
from emulator.limits.gate import open_store
from emulator.limits.resets import NO_RESETS
from emulator.metrics import TALLY
from emulator.reading.bodies import BodyReader
from emulator.reading.dispatcher import Dispatcher
from emulator.reading.helper_work import HelperWork
from emulator.rules.counting import counted, open_counts
from emulator.serving.backlog import BACKLOG
from emulator.serving.endings import Endings
from emulator.serving.endpoint import Endpoint, Handler
from emulator.serving.engine_timing import EngineTiming, Startup
from emulator.serving.limiting import Limiter
from emulator.serving.timing import Timing
from emulator.state import LiveState, State
from emulator.transport.bentoml_seam import worker_number
from emulator.transport.exchange import Exchange
from emulator.transport.sending import Reply
from tokenizer import TokenGenerator

R = TypeVar("R", bound=ReadyRequest)


class Checked(NamedTuple):
    """What is to be done for a request beside answering it.

    Args:
        wished: The failure that it may get.
        sequences: What an engine is to work at.
    """

    wished: Wished | None
    sequences: Sequence[TimedSequence] = ()


class Worker:
    """Everything that a worker needs to serve requests.

    ``lookups`` tell of requests for anything but an API's answers, which metrics and log leave out.

    Args:
        live: The state that counts for the next request.
        endings: Is told how each request for an API ended.
        version: The emulator's version, which the fingerprint of answers is made of.
    """

    def __init__(self, live: LiveState, endings: Endings, version: str) -> None:
        settings, generator = live.current.settings, TokenGenerator()
        fingerprint = "fp_" + hashlib.sha256(version.encode()).hexdigest()[:10]
        self.live = live
        if live.current.rules is not None:
            live.current.rules.prepare()
        self.apis: Sequence[API[Any]] = [api(generator, fingerprint) for api in APIS]
        self.computations: Sequence[Computation] = [each() for each in COMPUTATIONS]
        work = HelperWork([*self.apis, *self.computations], live.current)
        self.helpers = HelperPool(settings.helpers, work, work.fresh)
        self.dispatcher = Dispatcher(
            work.reader,
            BodyReader(int(settings.max_body_mb * 1_000_000), settings.timeout_s),
            self.helpers,
        )
        self.injector = FaultInjector(generator)
        self.counts = open_counts(settings.store, alone=settings.workers == 1)
        self.startup = Startup(settings.startup_s)
        self.engine = self._engine()
        self.timing = Timing(self.engine, self.dispatcher)
        self.limiter = Limiter(
            partial(
                open_store,
                settings.store,
                lambda: TALLY.add(metrics.UNLIMITED),
                alone=settings.workers == 1,
            )
        )
        self.endings = endings
        self.lookups = Endings()
        BACKLOG.open(worker_number() or 1)

    async def check(self, exchange: Exchange, ready: ReadyRequest) -> Checked:
        """Refuse what this server cannot do for a request; return what it is to do beside that.

        Raises:
            APIError: It is refused.
        """
        wished = self.injector.wish(exchange, ready.ask, ready.decision)
        if self.timing.is_by_engine(ready):
            refuse_time_in_engine(wished)
            return Checked(wished, await self.timing.sequences(exchange, ready))
        await self.timing.draw(exchange, ready)
        return Checked(wished)

    async def decide(self, api: API[R], exchange: Exchange, ready: R) -> R:
        """Count the rules that a request matches, and return it as they decide it.

        Raises:
            APIError: It is refused, or the store of the counts is away.
            ClientDisconnect: The client went away.
        """
        undecided, rules = ready.undecided, exchange.state.rules
        if undecided is None or rules is None:
            return ready
        decision = await counted(
            rules,
            undecided,
            ready.ask,
            self.counts,
            exchange.state.counted_since(undecided.scope),
        )
        decided = await api.decided(exchange, ready, decision)
        exchange.asked, exchange.rules = decided.asked, decision.rules
        return decided

    async def fail(self, exchange: Exchange, wished: Wished | None) -> Fault | None:
        """Return the failure that a request gets, or None; this counts its attempts."""
        before = 0
        if wished is not None and wished.attempt is None:
            scope = exchange.asked.emulation.emulation_scope if exchange.asked else None
            since = exchange.state.counted_since(scope or "")
            found = self.counts.add(wished.key, scope or "", since)
            before = found if isinstance(found, int) else await found
        return self.injector.draw(wished, before)

    def _engine(self) -> EngineTiming | None:
        state = self.live.current
        if state.engine is None:
            return None
        number = (worker_number() or 1) - 1  # vLLM counts from 0
        return EngineTiming(state.engine, state.settings, number)

    def adopt(self, state: State) -> None:
        """Let the engine run by a state that is new, which no request asks it to."""
        if self.engine is not None and state.engine is not None:
            self.engine.adopt(state.engine, state.resets.get("engine", NO_RESETS).everybody)

    def endpoint(self, handler: Handler) -> Endpoint:
        """Return an endpoint that anybody may ask."""
        return Endpoint(handler, self.live, self.limiter)

    def guarded(self, handler: Handler) -> Endpoint:
        """Return an endpoint that asks for a good key, where keys are set."""

        async def identified(exchange: Exchange) -> Reply:
            self.limiter.identify(exchange, exchange.fields.get(b"authorization"))
            return await handler(exchange)

        return Endpoint(identified, self.live, self.limiter, self.lookups)

    def computing(self, computation: Computation) -> Endpoint:
        """Return the endpoint of a computation; OpenAI's own ask for a good key."""

        async def answer(exchange: Exchange) -> Reply:
            return await computation.answer(exchange, self.dispatcher, self.limiter)

        is_openai = computation.path.startswith("/v1/")
        if is_openai:
            return self.guarded(answer)
        return Endpoint(answer, self.live, self.limiter, self.lookups)

    def answering(self, api: API[Any], handler: Handler) -> Endpoint:
        """Return the endpoint of an API, whose requests are told to metrics and log."""
        return Endpoint(handler, self.live, self.limiter, self.endings, api.envelope)
