"""The schema that a chat's messages ask the answer to satisfy."""

from collections.abc import Iterator, Sequence
from typing import Any

from emulator.apis.chat.messages import InstructionMessage, Message, TextPart, UserMessage
from emulator.schema_instances import schema_in_text

MAX_SEARCHED = 2**20  # characters; they take up to a second


def schema_in_messages(messages: Sequence[Message]) -> dict[str, Any] | None:
    """Return the last JSON schema of an object in a system, developer or user message.

    Only the last `MAX_SEARCHED` characters are searched.
    """
    left = MAX_SEARCHED
    for text in _texts_from_the_end(messages):
        schema = schema_in_text(text[-left:])
        if schema is not None:
            return schema
        left -= len(text)
        if left <= 0:
            return None
    return None


def _texts_from_the_end(messages: Sequence[Message]) -> Iterator[str]:
    for message in reversed(messages):
        if not isinstance(message, InstructionMessage | UserMessage):
            continue
        if isinstance(message.content, str):
            yield message.content
        else:
            yield from (p.text for p in reversed(message.content) if isinstance(p, TextPart))
