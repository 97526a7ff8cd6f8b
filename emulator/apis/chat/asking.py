"""What a chat asks of its answers."""

from collections.abc import Iterator, Sequence
from typing import Any

from emulator.answers.ask import DEFAULT_NAMES, Ask, ParamNames
from emulator.answers.composing import JSON_OBJECT_SCHEMA
from emulator.apis.asking import ask_of
from emulator.apis.chat.calls import calls_of
from emulator.apis.chat.messages import InstructionMessage, Message, TextPart, UserMessage
from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.chat.tools import JsonSchemaFormat, ResponseFormat
from emulator.contract.parts import JsonObjectFormat

MAX_COMPLETION_NAMES = ParamNames(limit="max_completion_tokens")


def chat_ask(chat: ChatCompletionRequest, *, scores_prompt: bool = False) -> Ask:
    """Return what a chat asks, whose prompt's log probabilities may be told.

    Raises:
        APIError: A tool that has to be called is not among the tools.
    """
    limit, names = chat.max_tokens, DEFAULT_NAMES
    if chat.max_completion_tokens is not None:
        limit, names = chat.max_completion_tokens, MAX_COMPLETION_NAMES
    offered, must_call, names_call, most_calls = calls_of(chat)
    return ask_of(
        chat,
        token_limit=limit,
        effort=chat.reasoning_effort,
        logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
        offered=offered,
        must_call=must_call,
        names_call=names_call,
        most_calls=most_calls,
        scores_prompt=scores_prompt,
        schema=response_schema(chat.response_format),
        schema_texts=schema_texts(chat.response_format, chat.messages),
        can_show_reasoning=True,
        names=names,
    )


def response_schema(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    """Return the schema that a text has to satisfy, None for plain text."""
    match wanted:
        case JsonObjectFormat():
            return JSON_OBJECT_SCHEMA
        case JsonSchemaFormat(json_schema=named):
            return named.schema_ or JSON_OBJECT_SCHEMA
        case _:
            return None


def schema_texts(wanted: ResponseFormat | None, messages: Sequence[Message]) -> Sequence[str]:
    """Return the texts that may hold a schema for a JSON object, the last first."""
    return list(_texts_from_the_end(messages)) if isinstance(wanted, JsonObjectFormat) else ()


def _texts_from_the_end(messages: Sequence[Message]) -> Iterator[str]:
    for message in reversed(messages):
        if not isinstance(message, InstructionMessage | UserMessage):
            continue
        if isinstance(message.content, str):
            yield message.content
        else:
            yield from (p.text for p in reversed(message.content) if isinstance(p, TextPart))
