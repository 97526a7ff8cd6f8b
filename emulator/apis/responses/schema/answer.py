"""Answers, for the OpenAPI document and the tests: output.py writes them piece by piece."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from emulator.contract.usage import TokenLogprob

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputTextPart(BaseModel):
    """The text of a message."""

    type: Literal["output_text"] = "output_text"
    annotations: list[Any] = []
    logprobs: list[TokenLogprob] = []
    text: str


class OutputMessage(BaseModel):
    """What the assistant says."""

    id: str
    type: Literal["message"] = "message"
    status: ItemStatus
    content: list[OutputTextPart]
    role: Literal["assistant"] = "assistant"


class OutputFunctionCall(BaseModel):
    """A call of a function."""

    id: str
    type: Literal["function_call"] = "function_call"
    status: ItemStatus
    arguments: str
    call_id: str
    name: str
    namespace: str | None = None


class OutputCustomCall(BaseModel):
    """A call of a custom tool."""

    id: str
    type: Literal["custom_tool_call"] = "custom_tool_call"
    status: ItemStatus
    call_id: str
    input: str
    name: str
    namespace: str | None = None


class SummaryText(BaseModel):
    """A part of the summary of a reasoning."""

    type: Literal["summary_text"] = "summary_text"
    text: str


class ReasoningText(BaseModel):
    """The text of a reasoning that is shown."""

    type: Literal["reasoning_text"] = "reasoning_text"
    text: str


class OutputReasoning(BaseModel):
    """A reasoning: what it says is there only where the server shows it."""

    id: str
    type: Literal["reasoning"] = "reasoning"
    summary: list[SummaryText]
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None


class OutputCompaction(BaseModel):
    """What is left of a conversation that was compacted."""

    id: str
    type: Literal["compaction"] = "compaction"
    encrypted_content: str


class InputTokensDetails(BaseModel):
    """What the input's tokens were."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(BaseModel):
    """What the output's tokens were."""

    reasoning_tokens: int


class ResponseUsage(BaseModel):
    """Token counts of one request and its answer."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseFailure(BaseModel):
    """Why there is no answer."""

    code: str
    message: str


class IncompleteDetails(BaseModel):
    """Why an answer is incomplete."""

    reason: Literal["max_output_tokens"]


class ImageTokens(BaseModel):
    """What the tokens of a generated picture were."""

    image_tokens: int = 0
    text_tokens: int = 0


class ImageUsage(BaseModel):
    """Token counts of generated pictures."""

    input_tokens: int = 0
    input_tokens_details: ImageTokens = ImageTokens()
    output_tokens: int = 0
    output_tokens_details: ImageTokens = ImageTokens()
    total_tokens: int = 0


class SearchUsage(BaseModel):
    """Searches of the web."""

    num_requests: int = 0


class ToolUsage(BaseModel):
    """What OpenAI's own tools took: nothing, as they are never called."""

    image_gen: ImageUsage = ImageUsage()
    web_search: SearchUsage = SearchUsage()


class Echo(BaseModel):
    """What a response repeats of its request, with OpenAI's defaults.

    Fields that are always null tell of what the emulator does not do.
    """

    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    parallel_tool_calls: bool
    previous_response_id: str | None
    conversation: dict[str, str] | None
    prompt: dict[str, Any] | None
    prompt_cache_key: str | None
    prompt_cache_options: dict[str, Any] | None
    prompt_cache_retention: str | None
    reasoning: dict[str, Any]
    safety_identifier: str | None
    service_tier: Literal["default"] = "default"
    store: bool
    temperature: float
    frequency_penalty: float
    presence_penalty: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    user: str | None
    metadata: dict[str, str]
    tool_usage: ToolUsage = ToolUsage()
    access_programs: None = None
    image: None = None
    input_transformations: None = None
    moderation: None = None
    prompt_cache_diagnostics: None = None


class Response(Echo):
    """The answer to a request that is not streamed, and what the first and last events hold."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    background: Literal[False] = False
    completed_at: int | None
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    output: list[
        OutputMessage | OutputFunctionCall | OutputCustomCall | OutputReasoning | OutputCompaction
    ]
    usage: ResponseUsage | None


class UserMessage(BaseModel):
    """A message of the user that compacting keeps."""

    id: str
    type: Literal["message"] = "message"
    status: Literal["completed"] = "completed"
    role: Literal["user"] = "user"
    content: list[dict[str, Any]]


class CompactedResponse(BaseModel):
    """The answer of POST /v1/responses/compact: the user's messages, and then what is left."""

    id: str
    object: Literal["response.compaction"] = "response.compaction"
    created_at: int
    output: list[UserMessage | OutputCompaction]
    usage: ResponseUsage


class ResponseEvent(BaseModel):
    """One event of a stream; what else it has depends on its type."""

    model_config = ConfigDict(extra="allow")

    type: str
    sequence_number: int


class InputTokens(BaseModel):
    """The answer of POST /v1/responses/input_tokens."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int
