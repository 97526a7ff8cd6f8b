"""Chat completions, whole and in chunks."""

from typing import Any, Literal

from pydantic import BaseModel
from typing_extensions import TypedDict

from emulator.contract.usage import TokenLogprob, Usage
from emulator.timing.plan import FinishReason


class ChoiceLogprobs(BaseModel):
    """The log probabilities of an answer's tokens."""

    content: list[TokenLogprob]
    refusal: None = None


class CallDelta(TypedDict, total=False):
    """A call of a function, whole or in part."""

    name: str
    arguments: str


class CustomDelta(TypedDict, total=False):
    """A call of a custom tool, whole or in part."""

    name: str
    input: str


class ToolCallDelta(TypedDict, total=False):
    """A tool call, whole or in part; ``index`` is there in streams alone."""

    index: int
    id: str
    type: Literal["function", "custom"]
    function: CallDelta
    custom: CustomDelta


class Delta(TypedDict, total=False):
    """What one event of a stream adds to the message."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: str
    tool_calls: list[ToolCallDelta]
    function_call: CallDelta


class ResponseMessage(Delta):
    """What the assistant says."""

    annotations: list[Any]


class Choice(BaseModel):
    """One answer."""

    index: int
    message: ResponseMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason


class ChatCompletion(BaseModel):
    """The answer to a chat request that is not streamed."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    service_tier: str = "default"
    system_fingerprint: str


class ChunkChoice(BaseModel):
    """One answer's share of a chunk."""

    index: int
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(BaseModel):
    """One event of a stream; ``usage`` is there only when the client asked for it."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    service_tier: str = "default"
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class CompletionList(BaseModel):
    """The stored chat completions: there is no store, so that there are none."""

    object: Literal["list"] = "list"
    data: list[ChatCompletion] = []
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False
