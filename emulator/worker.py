"""The parts of one worker, put together."""

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any

from emulator import metrics
from emulator.apis.api import API
from emulator.apis.computations import Computation
from emulator.apis.table import APIS, COMPUTATIONS
from emulator.helpers.pool import HelperPool
from emulator.injection.fault_injector import FaultInjector
from emulator.limits.gate import open_store
from emulator.limits.resets import NO_RESETS
from emulator.metrics import TALLY
from emulator.reading.bodies import BodyReader
from emulator.reading.dispatcher import Dispatcher
from emulator.reading.helper_work import HelperWork
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


class Worker:
    """Everything that a worker needs to serve requests.

    Args:
        live: The state that counts for the next request.
        endings: Is told how each request for an API ended.
        version: The emulator's version, which the fingerprint of answers is made of.
    """

    def __init__(self, live: LiveState, endings: Endings, version: str) -> None:
        settings, generator = live.current.settings, TokenGenerator()
        fingerprint = "fp_" + hashlib.sha256(version.encode()).hexdigest()[:10]
        self.live = live
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
        self._endings = endings

    def _engine(self) -> EngineTiming | None:
        state = self.live.current
        if state.engine is None:
            return None
        number = (worker_number() or 1) - 1  # vLLM counts from 0
        return EngineTiming(state.engine, str(number), state.settings.models[0])

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

        return self.endpoint(identified)

    def computing(self, computation: Computation) -> Endpoint:
        """Return the endpoint of a computation; OpenAI's own ask for a good key."""

        async def answer(exchange: Exchange) -> Reply:
            return await computation.answer(exchange, self.dispatcher, self.limiter)

        is_openai = computation.path.startswith("/v1/")
        return self.guarded(answer) if is_openai else self.endpoint(answer)

    def answering(self, api: API[Any], handler: Handler) -> Endpoint:
        """Return the endpoint of an API, whose requests are told to metrics and log."""
        return Endpoint(handler, self.live, self.limiter, self._endings, api.envelope)
