"""POST /v1/completions as one object."""

from functools import partial
from typing import ClassVar

from emulator.answers.ask import ContextWords, ParamNames
from emulator.apis.api import TextAPI
from emulator.apis.asking import ask_of
from emulator.apis.chat.asking import response_schema
from emulator.apis.completions.events import CompletionRenderer
from emulator.apis.completions.prompt import CompletionPrompt, echoes
from emulator.apis.completions.schema import CompletionRequest
from emulator.reading.reader import Reading

_TOO_LONG = (
    "This model's maximum context length is {most} tokens, however you requested {total} tokens "
    "({prompt} in your prompt; {answer} for the completion). Please reduce your prompt; or "
    "completion length."
)
NAMES = ParamNames(context=ContextWords(_TOO_LONG, _TOO_LONG, param=None, code=None))


class CompletionsAPI(TextAPI[CompletionRequest]):
    """Legacy completions."""

    path = "/v1/completions"
    body = CompletionRequest
    id_prefix: ClassVar = "cmpl-"

    def read(self, request: CompletionRequest, *, lenient: bool) -> Reading:  # noqa: ARG002
        """Return what a request asks.

        Raises:
            APIError: Its prompts cannot be echoed.
        """
        ask = ask_of(
            request,
            prompts=len(request.prompt),
            token_limit=request.max_tokens,
            logprobs=request.logprobs,
            schema=response_schema(request.response_format),
            names=NAMES,
        )
        renderer = partial(
            CompletionRenderer, echoes=echoes(request), include_usage=request.include_usage
        )
        return Reading(ask, CompletionPrompt(request), renderer)
