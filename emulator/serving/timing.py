"""When the answers of a request are due: by headers, drawn with jitter, or by an engine."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from emulator.answers.ask import Ask
from emulator.contract.errors import APIError
from emulator.emulation.asked import Asked
from emulator.emulation.jitter import JitterAsked
from emulator.engine.runner import TimedSequence
from emulator.engine.times import TokenTimes
from emulator.reading.counting import PromptCount
from emulator.reading.dispatcher import Dispatcher
from emulator.reading.reader import Ready
from emulator.serving.engine_timing import EngineTiming
from emulator.timing.plan import GenerationPlan
from emulator.transport.exchange import Exchange


class Planned(Protocol):
    """A request whose answer has a plan."""

    ask: Ask
    asked: Asked
    plan: GenerationPlan


class Timing:
    """Gives plans their due times.

    Args:
        engine: The engine of this worker, if the server has one.
        dispatcher: Makes the prompts for the engine.
    """

    def __init__(self, engine: EngineTiming | None, dispatcher: Dispatcher) -> None:
        self._engine = engine
        self._dispatcher = dispatcher

    def is_by_engine(self, ready: Planned) -> bool:
        """Tell whether the engine makes the times of a request.

        Raises:
            APIError: It asks for jitter, of which an engine knows nothing.
        """
        engine = self._engine
        return engine is not None and isinstance(ready, Ready) and engine.applies_to(ready.asked)

    async def sequences(self, exchange: Exchange, ready: Planned) -> Sequence[TimedSequence]:
        """Return what the engine is to work at for a request; nothing is queued yet.

        Raises:
            APIError: It would never fit into the engine, or as many wait as may.
        """
        if self._engine is None or not isinstance(ready, Ready):
            return ()
        prompts = await self._dispatcher.prompts(exchange, ready)
        ready.count = PromptCount(sum(prompt.tokens for prompt in prompts))
        return self._engine.sequences(exchange, ready, prompts)

    async def draw(self, exchange: Exchange, ready: Planned) -> None:
        """Draw the due times of a request that asks for jitter; refuse one that takes too long.

        Raises:
            APIError: A header names no distribution, or a whole answer would take longer than the
                server's timeout.
        """
        jitter = JitterAsked.of(
            ready.asked.emulation, exchange.state.settings, exchange.state.traces
        )
        if jitter is not None:
            offsets = await asyncio.to_thread(jitter.draw, ready.plan, ready.ask.seed)
            ready.plan = ready.plan.timed_at(offsets)
        if not ready.ask.stream:
            refuse_beyond_timeout(ready.plan, exchange.state.settings.timeout_s)

    def queue(
        self, exchange: Exchange, ready: Planned, sequences: Sequence[TimedSequence]
    ) -> TokenTimes | None:
        """Queue a request in the engine; return the times that its tokens will have.

        Raises:
            APIError: As many wait as may.
        """
        if self._engine is None or not sequences:
            return None
        times = self._engine.queue(exchange, sequences)
        ready.plan = ready.plan.timed_at(times)
        return times


def refuse_beyond_timeout(plan: GenerationPlan, timeout_s: float) -> None:
    """Refuse at once a whole answer that BentoML would cut off later.

    Raises:
        APIError: The last token is due after the server's timeout.
    """
    if plan.total_s >= timeout_s:
        raise APIError(
            f"This answer would take {plan.total_s:g} s, and an answer that is not streamed must "
            f"take less than {timeout_s:g} s. Set 'stream' to true, lower X-TTFT-MS, "
            "X-ITL-MS or X-OUTPUT-LENGTH, or raise the server's timeout_s.",
            param="stream",
            code="timeout_exceeded",
        )
