"""What tests ask of the official client, whose overloads do not take a dict of parameters."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.support.wire import chat, headers


def complete(
    client: openai.OpenAI, asked: Mapping[str, str] | None = None, /, **parameters: object
) -> ChatCompletion:
    """Return the whole answer to a chat with these X-* headers and parameters."""
    create: Any = client.chat.completions.create
    answer = create(**chat(**parameters), extra_headers=asked or headers())
    assert isinstance(answer, ChatCompletion)
    return answer


def chunks(
    client: openai.OpenAI, asked: Mapping[str, str] | None = None, /, **parameters: object
) -> list[ChatCompletionChunk]:
    """Return all chunks of a streamed chat."""
    create: Any = client.chat.completions.create
    return list(create(**chat(**parameters), stream=True, extra_headers=asked or headers()))


def text_of(answer: ChatCompletion | Sequence[ChatCompletionChunk], index: int = 0) -> str:
    """Return the text of one choice, whole or streamed."""
    if isinstance(answer, ChatCompletion):
        return answer.choices[index].message.content or ""
    return "".join(
        choice.delta.content or ""
        for chunk in answer
        for choice in chunk.choices
        if choice.index == index
    )


def refused(
    client: openai.OpenAI, body: Mapping[str, object], path: str = "/chat/completions"
) -> openai.APIStatusError:
    """Return the client's exception for a body, which is posted as it is and must be refused."""
    with pytest.raises(openai.APIStatusError) as caught:
        client.post(path, body=dict(body), cast_to=object, options={"headers": headers()})
    return caught.value


def message_of(error: openai.APIStatusError) -> str:
    """Return the message of OpenAI's envelope."""
    return str(cast("dict[str, object]", error.body)["message"])
