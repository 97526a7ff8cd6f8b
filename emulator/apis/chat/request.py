"""The body of POST /v1/chat/completions."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from emulator.apis.chat.messages import Message
from emulator.apis.chat.tools import (
    FunctionCallChoice,
    FunctionTool,
    ResponseFormat,
    Tool,
    ToolChoice,
)
from emulator.contract.bodies import GenerationRequest, Metadata, ReasoningEffort, Verbosity
from emulator.contract.bounds import MAX_MESSAGES, MAX_TOOLS, Members
from emulator.contract.errors import refusal
from emulator.contract.parts import FunctionDefinition


class ChatCompletionRequest(GenerationRequest):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Members(MAX_MESSAGES, least=1)]
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Members(MAX_TOOLS, least=1)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[FunctionDefinition], Members(MAX_TOOLS, least=1)] | None = None
    function_call: FunctionCallChoice | None = None
    reasoning_effort: ReasoningEffort | None = None
    verbosity: Verbosity | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    metadata: Metadata | None = None
    # Accepted and ignored: they change nothing that an emulator does.
    store: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    moderation: Any = None
    prediction: Any = None
    modalities: Any = None
    audio: Any = None
    web_search_options: Any = None

    @model_validator(mode="after")
    def _parameters_fit_together(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise refusal(
                "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.",
                param="top_logprobs",
            )
        if self.function_call is not None and self.functions is None:
            raise refusal(
                "'function_call' is only allowed when 'functions' are specified.",
                param="function_call",
            )
        return self

    @property
    def offered_functions(self) -> tuple[FunctionDefinition, ...]:
        """The functions of ``tools``, and of the deprecated ``functions``."""
        tools = (tool.function for tool in self.tools or () if isinstance(tool, FunctionTool))
        return (*tools, *(self.functions or ()))
