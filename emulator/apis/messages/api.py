"""POST /v1/messages as one object."""

from typing import ClassVar

from emulator.apis.api import TextAPI
from emulator.apis.chat.asking import chat_ask
from emulator.apis.chat.prompt import ChatConversation, ChatPrompt
from emulator.apis.messages.as_chat import to_chat
from emulator.apis.messages.events import MessagesRenderer
from emulator.apis.messages.schema import MessagesRequest
from emulator.dialects.dialect import OPENAI, Dialect
from emulator.reading.reader import Reading
from emulator.rules.subject import Conversation
from emulator.transport.exchange import Exchange


class MessagesAPI(TextAPI[MessagesRequest]):
    """Messages, each read as the chat that asks for the same."""

    path = "/v1/messages"
    body = MessagesRequest
    id_prefix: ClassVar = "chatcmpl-"

    def authorization(self, exchange: Exchange) -> bytes | None:
        """Return the credentials of a request, which Anthropic's clients send apart."""
        key = exchange.fields.get(b"x-api-key")
        return exchange.fields.get(b"authorization") if key is None else b"Bearer " + key

    def read(
        self,
        request: MessagesRequest,
        *,
        lenient: bool,  # noqa: ARG002 - OpenAI refuses none of them
        dialect: Dialect = OPENAI,  # noqa: ARG002
    ) -> Reading:
        """Return what a request asks.

        Raises:
            APIError: A block is not what its type says.
        """
        chat = to_chat(request)
        return Reading(chat_ask(chat), ChatPrompt(chat), MessagesRenderer)

    def conversation(self, request: MessagesRequest) -> Conversation:
        """Return a request in the words of rules."""
        return ChatConversation(to_chat(request))
