"""POST /v1/completions as one object."""

from functools import partial
from typing import ClassVar

from emulator.apis.api import TextAPI
from emulator.apis.asking import ask_of
from emulator.apis.completions.events import CompletionRenderer
from emulator.apis.completions.prompt import CompletionPrompt, echoes
from emulator.apis.completions.schema import CompletionRequest
from emulator.reading.reader import Reading
from emulator.rules.subject import Conversation, TextConversation


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
        )
        renderer = partial(
            CompletionRenderer, echoes=echoes(request), include_usage=request.include_usage
        )
        return Reading(ask, CompletionPrompt(request), renderer)

    def conversation(self, request: CompletionRequest) -> Conversation:
        """Return the prompts in the words of rules."""
        return TextConversation([each for each in request.prompt if isinstance(each, str)])
