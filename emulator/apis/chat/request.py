"""The body of POST /v1/chat/completions."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from emulator.apis.chat.messages import (
    AssistantMessage,
    FunctionToolCall,
    ImagePart,
    Message,
    TextPart,
    ToolMessage,
)
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
from emulator.contract.parts import FunctionDefinition, ImageURL, Prompt, RefusalPart


class ChatCompletionRequest(GenerationRequest):
    """The body of POST /v1/chat/completions."""

    ID_PREFIX: ClassVar = "chatcmpl-"

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
    def token_limit(self) -> tuple[str, int | None]:
        """The parameter that limits the answer, and the most tokens that it allows."""
        if self.max_completion_tokens is None:
            return "max_tokens", self.max_tokens
        return "max_completion_tokens", self.max_completion_tokens

    @property
    def effort(self) -> str | None:
        """How hard the client wants the model to think."""
        return self.reasoning_effort

    @property
    def is_plain(self) -> bool:
        """Whether the answer takes no more work than to pick a text."""
        return super().is_plain and not (self.response_format or self.tools or self.functions)

    def schema_param(self, tool: int) -> str:
        """Return the path of the schema of a function in ``tools``."""
        return f"tools[{tool}].function.parameters"

    @property
    def offered_functions(self) -> tuple[FunctionDefinition, ...]:
        """The functions of ``tools``, and of the deprecated ``functions``."""
        tools = (tool.function for tool in self.tools or () if isinstance(tool, FunctionTool))
        return (*tools, *(self.functions or ()))

    def prompt(self) -> Prompt:
        """Gather what counts as prompt tokens."""
        texts: list[str] = []
        images: list[ImageURL] = []
        named = 0
        for message in self.messages:
            texts.append(message.role)
            if isinstance(message.content, str):
                texts.append(message.content)
            else:
                for part in message.content or ():
                    if isinstance(part, TextPart):
                        texts.append(part.text)
                    elif isinstance(part, ImagePart):
                        images.append(part.image_url)
                    elif isinstance(part, RefusalPart):
                        texts.append(part.refusal)
            if isinstance(message, ToolMessage):
                texts.append(message.tool_call_id)
            elif message.name is not None:
                named += 1
                texts.append(message.name)
            if isinstance(message, AssistantMessage):
                texts.extend(_assistant_texts(message))
        return Prompt(
            len(self.messages), named, tuple(texts), tuple(images), self.offered_functions
        )


def _assistant_texts(message: AssistantMessage) -> Iterator[str]:
    if message.refusal is not None:
        yield message.refusal
    calls = [message.function_call] if message.function_call else []
    for call in message.tool_calls or ():
        if isinstance(call, FunctionToolCall):
            calls.append(call.function)
        else:
            yield call.custom.name
            yield call.custom.input
    for function in calls:
        yield function.name
        yield function.arguments
