"""Requests that an engine times: into its queue, out of it when their clients go, or refused."""

import math
import time
from collections.abc import Sequence

from starlette.requests import Request

from emulator.answers.answer import Answer
from emulator.apis.chat.prompt_ids import EnginePrompt
from emulator.contract.error_words import RETRY_AFTER_S, invalid_header, overloaded
from emulator.contract.errors import APIError
from emulator.engine.cache import private_keys
from emulator.engine.config import EngineConfig
from emulator.engine.metrics import EngineMetrics
from emulator.engine.runner import EngineRunner, TimedSequence
from emulator.engine.scheduler import OverloadError, Scheduler, TooLongError
from emulator.engine.times import TokenTimes
from emulator.metrics import TALLY
from emulator.serving.bodies import Asked
from emulator.serving.generation import Generation
from emulator.timing.clock import running_clock, sleep_until
from emulator.timing.plan import GenerationPlan
from emulator.transport.sending import Deadline


class EngineTiming:
    """The engine of this worker, and who takes a place in it.

    Args:
        config: The engine.
        number: The worker's number, a label of its metrics.
        model: The model whose metrics are there before the first request.
        timeout_s: The longest that an answer may take that is not streamed.
    """

    def __init__(self, config: EngineConfig, number: str, model: str, timeout_s: float) -> None:
        self.config = config
        self._timeout_s = timeout_s
        self._deadline = Deadline(timeout_s)
        scheduler = Scheduler[TimedSequence](config)
        self.metrics = EngineMetrics(scheduler, TALLY, number, [model])
        self.runner = EngineRunner(
            scheduler,
            sleep_until,
            wake=lambda waiters: running_clock().wake_in_turn(waiters),
            observe=self.metrics.see,
            observe_left=self.metrics.see_left,
        )

    def times(self, asked: Asked) -> bool:
        """Whether it times a request: one that says nothing of its times.

        Raises:
            APIError: The request asks for jitter, of which an engine knows nothing.
        """
        if not asked.says_no_time:
            return False
        for name in ("ttft_jitter", "itl_jitter"):
            if getattr(asked.emulation, name) is not None:
                raise invalid_header(
                    f"X-{name.upper().replace('_', '-')}",
                    "jitter needs X-TTFT-MS or X-ITL-MS, because without them an engine makes "
                    "the times of this server",
                )
        return True

    def queue(
        self,
        request: Request,
        model: str,
        prompts: Sequence[EnginePrompt],
        answers: Sequence[Answer],
        plan: GenerationPlan,
    ) -> TokenTimes:
        """Queue the choices of a request, and return the times that its tokens will have.

        It has arrived when its headers had, or its body, where that came in parts.

        Raises:
            APIError: It does not fit into the cache, or too many wait.
        """
        start_s = request.scope["start_s"]
        arrival_s = request.scope.get("body_s", start_s)
        sequences: list[TimedSequence] = []
        each = len(answers) // len(prompts)
        for index, answer in enumerate(answers):
            prompt = prompts[index // each]
            if index % each == 0:
                keys = prompt.keys
                if each > 1 and not keys:
                    keys = private_keys(prompt.tokens, self.config.block_size)
            sequences.append(
                TimedSequence(
                    max(prompt.tokens, 1),
                    max(plan.hidden_tokens + answer.slots, 1),
                    arrival_s,
                    keys,
                    model=model,
                    finish_reason=answer.finish_reason,
                    is_first_choice=index % each == 0,
                )
            )
        try:
            self.runner.submit(sequences)
        except OverloadError:
            raise self._overloaded() from None
        except TooLongError:
            raise self._too_long(sequences) from None
        self.metrics.touch()
        return TokenTimes(self.runner, sequences, start_s)

    async def whole(self, generation: Generation) -> bytes | bytearray:
        """Return a whole answer when its last token has come.

        Raises:
            APIError: That takes longer than any answer may.
        """
        try:
            with self._deadline:
                return await generation.whole_in_time()
        except TimeoutError:
            raise APIError(
                f"The engine did not finish this answer within {self._timeout_s:g} s, and an "
                "answer that is not streamed must take less. Set 'stream' to true, ask for fewer "
                "tokens, or raise the server's timeout_s.",
                status=504,
                type="server_error",
                code="timeout_exceeded",
            ) from None

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

    def _too_long(self, sequences: Sequence[TimedSequence]) -> APIError:
        longest = max(sequences, key=lambda s: s.prompt_tokens + s.output_tokens)
        prompt, answer = longest.prompt_tokens, longest.output_tokens
        return APIError(
            f"This model's maximum context length is {self.config.max_model_len} tokens. However, "
            f"you requested {prompt + answer} tokens ({prompt} in the messages, {answer} in the "
            "completion). Please reduce the length of the messages or completion.",
            param="messages",
            code="context_length_exceeded",
        )


class Startup:
    """How long a server takes to load its model.

    Args:
        startup_s: That long after its start nothing is answered.
    """

    def __init__(self, startup_s: float) -> None:
        self._ready_s = time.monotonic() + startup_s

    @property
    def is_over(self) -> bool:
        """Whether the model is loaded."""
        return time.monotonic() >= self._ready_s

    def check(self) -> None:
        """Refuse a request while the model loads.

        Raises:
            APIError: It is not loaded yet.
        """
        left_s = self._ready_s - time.monotonic()
        if left_s > 0:
            raise APIError(
                f"The model is still loading. Please try again in {math.ceil(left_s)} s.",
                status=503,
                type="service_unavailable_error",
                code="model_loading",
                headers={"retry-after": str(math.ceil(left_s))},
            )
