"""Requests that an engine times: into its queue, out of it when their clients go, or refused."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

from emulator.answers.ask import Ask
from emulator.contract.error_words import RETRY_AFTER_S, invalid_header, overloaded
from emulator.contract.errors import APIError
from emulator.dialects.dialect import Dialect
from emulator.emulation.asked import Asked
from emulator.engine.cache import private_keys
from emulator.engine.config import EngineConfig
from emulator.engine.metrics import EngineMetrics, Metrics
from emulator.engine.prompts import EnginePrompt
from emulator.engine.routing import DEFAULT_POLICY, Router
from emulator.engine.runner import Choices, EngineRunner, TimedSequence
from emulator.engine.scheduler import OverloadError, Scheduler
from emulator.engine.times import TokenTimes
from emulator.metrics import TALLY
from emulator.reading.reader import Ready
from emulator.settings import Settings
from emulator.timing.clock import running_clock, sleep_until
from emulator.transport.exchange import Exchange


class Replica(NamedTuple):
    """One engine of this worker."""

    runner: EngineRunner
    metrics: EngineMetrics


def _replica(config: EngineConfig, number: int, metrics: Metrics, model: str) -> Replica:
    """Return an engine with a number, which is its label and the seed of its steps' spread."""
    scheduler = Scheduler[TimedSequence](config, seed=number)
    told = EngineMetrics(scheduler, TALLY, str(number), metrics, [model])
    runner = EngineRunner(
        scheduler,
        sleep_until,
        wake=lambda waiters: running_clock().wake_in_turn(waiters),
        observe=told.see,
        observe_left=told.see_left,
    )
    return Replica(runner, told)


class EngineTiming:
    """The engines of this worker, and who takes a place in which.

    Args:
        config: What each engine is like.
        settings: How many there are, how a request is routed to one, and the first model's name,
            whose metrics are there before the first request.
        worker: The worker's number, from 0. Its engines have the numbers after those of the workers
            before it.
    """

    def __init__(self, config: EngineConfig, settings: Settings, worker: int) -> None:
        replicas = settings.replicas or 1
        metrics = Metrics(config.max_model_len)
        self._forgotten = 0
        self._replicas = [
            _replica(config, number, metrics, settings.models[0])
            for number in range(worker * replicas, (worker + 1) * replicas)
        ]
        self._schedulers = [replica.runner.scheduler for replica in self._replicas]
        self._router = Router(self._schedulers, settings.routing or DEFAULT_POLICY, seed=worker)

    @property
    def config(self) -> EngineConfig:
        """The engine, with the times and bounds that count for its next step."""
        return self._schedulers[0].config

    @property
    def metrics(self) -> Sequence[EngineMetrics]:
        """What each engine has counted."""
        return [replica.metrics for replica in self._replicas]

    @property
    def load(self) -> int:
        """The sequences that run, and those that wait."""
        return sum(len(each.running) + len(each.waiting) for each in self._schedulers)

    def adopt(self, config: EngineConfig, forgotten: int) -> None:
        """Take other times and bounds for the steps to come; sequences under way go on.

        Args:
            config: The engine; its cache is as large as before.
            forgotten: The revision at which the prefixes of prompts were last to be forgotten.
        """
        for scheduler in self._schedulers:
            scheduler.config = config
            if forgotten > self._forgotten:
                scheduler.pool.forget()
        self._forgotten = forgotten

    def applies_to(self, asked: Asked) -> bool:
        """Tell whether the engine makes the times of a request: one that says nothing of them.

        Raises:
            APIError: The request asks for jitter, of which an engine knows nothing.
        """
        if not asked.has_no_timing:
            return False
        for name in ("ttft_jitter", "itl_jitter"):
            if getattr(asked.emulation, name) is not None:
                raise invalid_header(
                    f"X-{name.upper().replace('_', '-')}",
                    "jitter needs X-TTFT-MS or X-ITL-MS, because without them an engine makes "
                    "the times of this server",
                )
        return True

    def sequences(
        self, exchange: Exchange, ready: Ready, prompts: Sequence[EnginePrompt]
    ) -> list[TimedSequence]:
        """Return the choices of a request as the engine takes them.

        It has arrived when its headers had, or its body, where that came in parts.

        Raises:
            APIError: One would never fit into the cache, or as many wait at all engines as may.
        """
        arrival_s = exchange.arrival_s or exchange.start_s
        sequences: list[TimedSequence] = []
        each, limit = len(ready.answers) // len(prompts), ready.ask.token_limit
        for index, answer in enumerate(ready.answers):
            prompt = prompts[index // each]
            if index % each == 0:
                keys = prompt.keys
                choices = Choices(each, each)
                if each > 1 and not keys:
                    keys = private_keys(prompt.tokens, self.config.block_size)
            sequences.append(
                TimedSequence(
                    max(prompt.tokens, 1),
                    max(ready.plan.hidden_tokens + answer.slots, 1),
                    arrival_s,
                    keys,
                    model=ready.ask.model,
                    finish_reason=answer.finish_reason,
                    is_first_choice=index % each == 0,
                    max_tokens=limit or self.config.max_model_len - prompt.tokens,
                    choices=choices,
                )
            )
        self._refuse_too_long(exchange.state.dialect, ready.ask, sequences)
        if all(len(each.waiting) >= self.config.max_waiting for each in self._schedulers):
            raise self._overloaded()
        return sequences

    def queue(self, exchange: Exchange, sequences: Sequence[TimedSequence]) -> TokenTimes:
        """Route a request to an engine, and return the times that its tokens will have.

        Raises:
            APIError: As many wait there as may.
        """
        replica = self._replicas[self._router.choose(sequences[0].keys)]
        try:
            replica.runner.submit(sequences)
        except OverloadError:
            raise self._overloaded() from None
        replica.metrics.touch()
        return TokenTimes(replica.runner, sequences, exchange.start_s)

    def _overloaded(self) -> APIError:
        if self.config.overload_status != 429:
            return overloaded()
        return APIError(
            f"Rate limit reached: {self.config.max_waiting} requests wait for the engine, "
            f"which is as many as may. Please try again in {RETRY_AFTER_S}s.",
            status=429,
            type="requests",
            code="rate_limit_exceeded",
            headers={"retry-after": str(RETRY_AFTER_S)},
        )

    def _refuse_too_long(
        self, dialect: Dialect, ask: Ask, sequences: Sequence[TimedSequence]
    ) -> None:
        """Refuse a prompt that does not fit with all tokens that the request allows an answer."""
        most, limit = self.config.max_model_len, ask.token_limit
        for sequence in sequences:
            answer = max(sequence.output_tokens, limit or 0)
            if sequence.prompt_tokens + answer > most:
                error = ask.names.context.error(most, sequence.prompt_tokens, answer)
                raise dialect.too_long(error, most, sequence.prompt_tokens, answer)


class Startup:
    """How long a server takes to load its model.

    Args:
        startup_s: That long after its start nothing is answered.
    """

    def __init__(self, startup_s: float) -> None:
        self._ready_s = time.monotonic() + startup_s

    def is_over(self, settings: Settings) -> bool:
        """Return whether the model is loaded."""
        return settings.ready and time.monotonic() >= self._ready_s

    def check(self, settings: Settings) -> None:
        """Refuse a request while the model loads, or while the settings have it seem so.

        Raises:
            APIError: It is not loaded yet.
        """
        if self.is_over(settings):
            return
        left_s = max(math.ceil(self._ready_s - time.monotonic()), RETRY_AFTER_S)
        raise APIError(
            f"The model is still loading. Please try again in {left_s} s.",
            status=503,
            type="service_unavailable_error",
            code="model_loading",
            headers={"retry-after": str(left_s)},
        )
