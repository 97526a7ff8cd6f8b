"""POST /v1/chat/completions as one object."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, cast

from emulator.apis.api import TextAPI
from emulator.apis.chat.asking import chat_ask
from emulator.apis.chat.events import ChatRenderer
from emulator.apis.chat.prompt import CHATML, CHATML_TEXTS, ChatConversation, ChatPrompt
from emulator.apis.chat.refusals import refuse_chat
from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.chat.vllm.events import VLLMChatRenderer
from emulator.apis.prompt_logprobs import PromptLogprobs
from emulator.dialects.dialect import OPENAI, Dialect
from emulator.engine.times import TokenTimes
from emulator.reading.reader import Reading, Ready
from emulator.rendering.renderer import Renderer
from emulator.rules.subject import Conversation
from emulator.serving.generation import Generation
from emulator.transport.exchange import Exchange
from tokenizer import encoding_name

RENDERERS: Mapping[str, Callable[..., Renderer]] = {
    "openai": ChatRenderer,
    "vllm": VLLMChatRenderer,
}


class ChatAPI(TextAPI[ChatCompletionRequest]):
    """Chat completions."""

    path = "/v1/chat/completions"
    body = ChatCompletionRequest
    id_prefix: ClassVar = "chatcmpl-"

    def read(
        self,
        request: ChatCompletionRequest,
        *,
        lenient: bool,
        dialect: Dialect = OPENAI,
    ) -> Reading:
        """Return what a chat asks.

        Raises:
            APIError: OpenAI refuses it.
        """
        prompt = ChatPrompt(request)
        if not lenient:
            refuse_chat(request, prompt.texts)
        make = RENDERERS[dialect.name]
        renderer = partial(make, include_usage=request.include_usage, **dialect.rendering)
        scores, top = None, request.prompt_logprobs
        if dialect.scores_prompts and top is not None:
            markers = dict(zip(CHATML[encoding_name(request.model)], CHATML_TEXTS, strict=True))
            scores = PromptLogprobs(prompt.ids, request.model, top, markers=markers)
        ask = chat_ask(request, scores_prompt=scores is not None)
        return Reading(ask, prompt, renderer, scores)

    def _generation(self, exchange: Exchange, ready: Ready, times: TokenTimes | None) -> Generation:
        if ready.parts:
            make = cast("Callable[..., Renderer]", ready.renderer)
            ready.renderer = partial(make, parts=ready.parts)
        return super()._generation(exchange, ready, times)

    def conversation(self, request: ChatCompletionRequest) -> Conversation:
        """Return a chat in the words of rules."""
        return ChatConversation(request)
