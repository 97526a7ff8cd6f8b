"""POST /v1/completions as one object."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, cast

from emulator.answers.ask import ContextWords, ParamNames
from emulator.apis.api import TextAPI
from emulator.apis.asking import ask_of
from emulator.apis.chat.asking import response_schema
from emulator.apis.completions.events import CompletionRenderer
from emulator.apis.completions.prompt import CompletionPrompt, echoes
from emulator.apis.completions.refusals import refuse_completion
from emulator.apis.completions.schema import CompletionRequest
from emulator.apis.completions.scored_events import ScoredRenderer
from emulator.apis.completions.scores import PromptScores
from emulator.apis.completions.vllm_events import VLLMCompletionRenderer
from emulator.apis.prompt_logprobs import PromptLogprobs
from emulator.dialects.dialect import OPENAI, Dialect
from emulator.engine.times import TokenTimes
from emulator.reading.reader import Reading, Ready
from emulator.rendering.renderer import Renderer
from emulator.rules.subject import Conversation, TextConversation
from emulator.serving.generation import Generation
from emulator.transport.exchange import Exchange

_TOO_LONG = (
    "This model's maximum context length is {most} tokens, however you requested {total} tokens "
    "({prompt} in your prompt; {answer} for the completion). Please reduce your prompt; or "
    "completion length."
)
RENDERERS: Mapping[str, Callable[..., Renderer]] = {
    "openai": CompletionRenderer,
    "vllm": VLLMCompletionRenderer,
}
NAMES = ParamNames(context=ContextWords(_TOO_LONG, _TOO_LONG, param=None, code=None))


class CompletionsAPI(TextAPI[CompletionRequest]):
    """Legacy completions."""

    path = "/v1/completions"
    body = CompletionRequest
    id_prefix: ClassVar = "cmpl-"

    def read(
        self,
        request: CompletionRequest,
        *,
        lenient: bool,
        dialect: Dialect = OPENAI,
    ) -> Reading:
        """Return what a request asks.

        Raises:
            APIError: OpenAI refuses it, or its prompts cannot be echoed.
        """
        if not lenient:
            refuse_completion(request)
        ask = ask_of(
            request,
            prompts=len(request.prompt),
            token_limit=request.max_tokens,
            logprobs=request.logprobs,
            schema=response_schema(request.response_format),
            scores_prompt=dialect.scores_prompts,
            names=NAMES,
        )
        prompt = CompletionPrompt(request)
        if request.scores_prompt:
            scored = partial(ScoredRenderer, n=ask.n, include_usage=request.include_usage)
            return Reading(ask, prompt, scored, PromptScores(request, prompt))
        plain = partial(
            RENDERERS[dialect.name],
            echoes=echoes(request),
            include_usage=request.include_usage,
            **dialect.rendering,
        )
        scores, top = None, request.prompt_logprobs
        if dialect.scores_prompts and top is not None:
            scores = PromptLogprobs(prompt.ids, request.model, top, choices=ask.n)
        return Reading(ask, prompt, plain, scores)

    def conversation(self, request: CompletionRequest) -> Conversation:
        """Return the prompts in the words of rules."""
        return TextConversation([each for each in request.prompt if isinstance(each, str)])

    def _generation(self, exchange: Exchange, ready: Ready, times: TokenTimes | None) -> Generation:
        if ready.parts:
            make = cast("Callable[..., ScoredRenderer]", ready.renderer)
            ready.renderer = partial(make, parts=ready.parts)
        generation = super()._generation(exchange, ready, times)
        renderer = generation.renderer
        if isinstance(renderer, ScoredRenderer):
            generation.is_large = renderer.is_large
            if ready.ask.stream and not ready.ask.continuous_usage:
                generation.lead = renderer.lead(ready.answers)
        return generation
