"""POST /v1/chat/completions as one object."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

from emulator.apis.api import TextAPI
from emulator.apis.chat.asking import chat_ask
from emulator.apis.chat.events import ChatRenderer
from emulator.apis.chat.prompt import ChatConversation, ChatPrompt
from emulator.apis.chat.refusals import refuse_chat
from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.chat.vllm.events import VLLMChatRenderer
from emulator.dialects.dialect import OPENAI, Dialect
from emulator.reading.reader import Reading
from emulator.rendering.renderer import Renderer
from emulator.rules.subject import Conversation

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
        return Reading(chat_ask(request), prompt, renderer)

    def conversation(self, request: ChatCompletionRequest) -> Conversation:
        """Return a chat in the words of rules."""
        return ChatConversation(request)
