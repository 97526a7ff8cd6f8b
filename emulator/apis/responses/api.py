"""POST /v1/responses, /v1/responses/compact and /v1/responses/input_tokens as objects."""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from emulator.apis.api import TextAPI
from emulator.apis.chat.prompt import ChatConversation, ChatPrompt
from emulator.apis.computations import Computation
from emulator.apis.responses.as_chat import to_chat
from emulator.apis.responses.asking import compaction_ask, response_ask
from emulator.apis.responses.compaction import user_messages
from emulator.apis.responses.echo import Echoed, refuse_long_echo
from emulator.apis.responses.events import CompactedRenderer, ResponsesRenderer, stamp_completion
from emulator.apis.responses.refusals import refuse_response, refuse_unstored
from emulator.apis.responses.schema.answer import InputTokens
from emulator.apis.responses.schema.request import (
    CompactRequest,
    InputTokensRequest,
    ResponsesRequest,
)
from emulator.apis.responses.vllm.events import VLLMResponsesRenderer
from emulator.dialects.dialect import OPENAI, Dialect
from emulator.reading.reader import Reader, Reading
from emulator.rules.subject import Conversation
from emulator.state import State

RENDERERS: Mapping[str, type[ResponsesRenderer]] = {
    "openai": ResponsesRenderer,
    "vllm": VLLMResponsesRenderer,
}


class ResponsesAPI(TextAPI[ResponsesRequest]):
    """Responses, each read as the chat that asks for the same in other words."""

    path = "/v1/responses"
    body = ResponsesRequest
    id_prefix: ClassVar = "resp_"
    id_digits: ClassVar = 50

    def read(
        self,
        request: ResponsesRequest,
        *,
        lenient: bool,
        dialect: Dialect = OPENAI,
    ) -> Reading:
        """Return what a request asks.

        Raises:
            APIError: OpenAI refuses it.
        """
        chat, param = to_chat(request)
        if not lenient:
            refuse_unstored(request)
            refuse_response(request, chat, param)
        renderer = partial(RENDERERS[dialect.name], echo=Echoed.of(request))
        return Reading(response_ask(request, chat, param), ChatPrompt(chat), renderer)

    def conversation(self, request: ResponsesRequest) -> Conversation:
        """Return a request in the words of rules."""
        return ChatConversation(to_chat(request)[0])

    def stamp(self, content: bytes | bytearray) -> None:
        """Say in a whole answer that it is completed now."""
        if isinstance(content, bytearray):
            stamp_completion(content)


class CompactAPI(TextAPI[CompactRequest]):
    """What is left of conversations, timed like answers."""

    path = "/v1/responses/compact"
    body = CompactRequest
    id_prefix: ClassVar = "resp_"
    id_digits: ClassVar = 50

    def read(
        self,
        request: CompactRequest,
        *,
        lenient: bool,
        dialect: Dialect = OPENAI,  # noqa: ARG002
    ) -> Reading:
        """Return what a request asks.

        Raises:
            APIError: OpenAI refuses it, or its answer would repeat too much.
        """
        chat, _ = to_chat(request)
        if not lenient:
            refuse_unstored(request)
        kept = user_messages(request)
        refuse_long_echo(sum(map(len, kept)), "messages of the user")
        renderer = partial(CompactedRenderer, kept=kept)
        return Reading(compaction_ask(request, chat), ChatPrompt(chat), renderer)

    def conversation(self, request: CompactRequest) -> Conversation:
        """Return a request in the words of rules."""
        return ChatConversation(to_chat(request)[0])


class InputTokensAPI(Computation):
    """The input tokens of a Responses request."""

    path = "/v1/responses/input_tokens"

    def compute(self, reader: Reader, body: bytes | bytearray, state: State) -> tuple[str, bytes]:
        """Return the model, and the answer as JSON.

        Raises:
            APIError: The request is refused.
        """
        request = reader.parse(body, InputTokensRequest, state, self.path)
        if not state.settings.lenient:
            refuse_unstored(request)
        chat, _ = to_chat(request)
        tokens = InputTokens(input_tokens=ChatPrompt(chat).count())
        return chat.model, tokens.model_dump_json().encode()
