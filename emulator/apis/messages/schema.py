"""The body of POST /v1/messages, as far as vLLM 0.32 honours it."""

from typing import Annotated, Any, Literal

from pydantic import Field

from emulator.contract.bodies import ModelRequest, RequestModel
from emulator.contract.bounds import (
    MAX_MESSAGES,
    MAX_TOOLS,
    AnyObject,
    Label,
    Members,
    NonEmptyText,
    Text,
)

Blocks = Annotated[list[AnyObject], Members(MAX_MESSAGES)]


class TurnMessage(RequestModel):
    """One turn: a text, or blocks of it, of pictures, of calls and of their results."""

    role: Literal["user", "assistant"]
    content: Text | Blocks


class InputTool(RequestModel):
    """A tool that may be called."""

    name: Label
    description: Text | None = None
    input_schema: AnyObject


class InputToolChoice(RequestModel):
    """Which tool is to be called; ``any`` is one of them."""

    type: Literal["auto", "any", "tool", "none"]
    name: Label | None = None


class MessagesRequest(ModelRequest):
    """The body of POST /v1/messages."""

    messages: Annotated[list[TurnMessage], Members(MAX_MESSAGES, least=1)]
    max_tokens: int = Field(ge=1)
    system: Text | Blocks | None = None
    stop_sequences: Annotated[list[NonEmptyText], Members(4)] | None = None
    stream: bool | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = None
    tools: Annotated[list[InputTool], Members(MAX_TOOLS)] | None = None
    tool_choice: InputToolChoice | None = None
    metadata: Any = None
