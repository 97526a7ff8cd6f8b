"""The wire format of the Responses API: requests, and the answers for the OpenAPI document."""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)
from typing_extensions import TypeAliasType

from emulator.contract.bodies import (
    Metadata,
    ModelRequest,
    ReasoningEffort,
    RequestModel,
    Stop,
    Verbosity,
)
from emulator.contract.bounds import (
    INT64_MAX,
    MAX_MESSAGES,
    MAX_PARTS,
    MAX_TOOLS,
    AnyObject,
    Id,
    Label,
    Members,
    ModelName,
    Name,
    Text,
)
from emulator.contract.errors import refusal
from emulator.contract.parts import (
    ImageAddress,
    InputAudio,
    JsonObjectFormat,
    JsonSchema,
    PromptPart,
    RefusalPart,
    TextFormat,
    ToolMode,
    ToolName,
)
from emulator.contract.unions import json_type, variant
from emulator.contract.usage import TokenLogprob

MAX_INCLUDED = 128

# There is no store: an id is known by its form.
_RESPONSE_ID = re.compile(r"resp_[0-9a-f]{32,64}")

# --------------------------------------------------------------------------------------
# Unions
# --------------------------------------------------------------------------------------


def _typed(
    *named: str, others: Sequence[str], guess: Callable[[dict[str, Any]], str | None]
) -> Discriminator:
    """Choose the variant named by ``type``; all of `others` share the tag ``<other>``.

    `guess` names the type of a value that does not tell it.
    """

    def tag(value: object) -> str | None:
        if not isinstance(value, dict):
            return None
        name = value.get("type")
        if name is None:
            name = guess(value)
        if name in named:
            return f"<{name}>"
        return "<other>" if isinstance(name, str) and name in others else None

    return Discriminator(
        tag,
        custom_error_type="unknown_variant",
        custom_error_message="unknown variant",
        custom_error_context={"key": "type", "supported": ",".join([*named, *others])},
    )


def _other(*kinds: str) -> WithJsonSchema:
    """Describe an object of one of these types, of which nothing else is looked at."""
    properties = {"type": {"type": "string", "enum": [*kinds]}}
    return WithJsonSchema({"type": "object", "properties": properties, "required": ["type"]})


# --------------------------------------------------------------------------------------
# Input
# --------------------------------------------------------------------------------------


class InputText(PromptPart):
    """A piece of text."""

    type: Literal["input_text"]
    text: Text


class InputImage(PromptPart):
    """A picture, by address, as base64 data, or by the id of an upload."""

    type: Literal["input_image"]
    image_url: ImageAddress | None = None
    file_id: Label | None = None
    detail: Literal["auto", "low", "high", "original"] | None = "auto"


class InputFileItem(PromptPart):
    """A document; accepted, and not counted."""

    type: Literal["input_file"]
    file_data: str | None = None
    file_id: Label | None = None
    file_url: Text | None = None
    filename: Label | None = None
    detail: Any = None


class InputAudioItem(PromptPart):
    """A sound; accepted, and not counted."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class OutputText(RequestModel):
    """What the assistant said earlier."""

    type: Literal["output_text"]
    text: Text
    annotations: Any = None
    logprobs: Any = None


_TEXT_OR_PARTS = json_type("one of a string or array of objects", text=str, parts=list)
_Text = Annotated[Text, Tag("<text>")]
_PARTS = Members(MAX_PARTS)

InputContentPart = TypeAliasType(
    "InputContentPart",
    Annotated[
        Annotated[InputText, Tag("<input_text>")]
        | Annotated[InputImage, Tag("<input_image>")]
        | Annotated[InputFileItem, Tag("<input_file>")]
        | Annotated[InputAudioItem, Tag("<input_audio>")],
        variant("type", "input_text", "input_image", "input_file", "input_audio"),
    ],
)
InputContent = TypeAliasType(
    "InputContent",
    Annotated[_Text | Annotated[list[InputContentPart], _PARTS, Tag("<parts>")], _TEXT_OR_PARTS],
)
OutputContentPart = TypeAliasType(
    "OutputContentPart",
    Annotated[
        Annotated[OutputText, Tag("<output_text>")] | Annotated[RefusalPart, Tag("<refusal>")],
        variant("type", "output_text", "refusal"),
    ],
)
OutputContent = TypeAliasType(
    "OutputContent",
    Annotated[_Text | Annotated[list[OutputContentPart], _PARTS, Tag("<parts>")], _TEXT_OR_PARTS],
)


class InputItem(RequestModel):
    """What items may have that changes nothing here."""

    id: Label | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class InputMessage(InputItem):
    """What the developer or the user says and shows."""

    type: Literal["message"] | None = None
    role: Literal["user", "system", "developer"]
    content: InputContent
    phase: Any = None


class AssistantItem(InputItem):
    """What the assistant answered earlier."""

    type: Literal["message"] | None = None
    role: Literal["assistant"]
    content: OutputContent
    phase: Any = None


MessageItem = TypeAliasType(
    "MessageItem",
    Annotated[
        Annotated[AssistantItem, Tag("<assistant>")]
        | Annotated[InputMessage, Tag("<system>")]
        | Annotated[InputMessage, Tag("<developer>")]
        | Annotated[InputMessage, Tag("<user>")],
        variant("role", "assistant", "system", "developer", "user"),
    ],
)


class FunctionCallItem(InputItem):
    """A call of a function that the assistant made earlier."""

    type: Literal["function_call"]
    call_id: Id
    name: Name
    arguments: Text
    namespace: Any = None
    caller: Any = None
    async_: Any = Field(None, alias="async")


class FunctionOutputItem(InputItem):
    """The result of a function."""

    type: Literal["function_call_output"]
    call_id: Id
    output: InputContent
    name: Any = None
    namespace: Any = None
    caller: Any = None


class CustomCallItem(InputItem):
    """A call of a custom tool that the assistant made earlier."""

    type: Literal["custom_tool_call"]
    call_id: Id
    name: Name
    input: Text
    namespace: Any = None
    caller: Any = None
    async_: Any = Field(None, alias="async")


class CustomOutputItem(InputItem):
    """The result of a custom tool."""

    type: Literal["custom_tool_call_output"]
    call_id: Id
    output: InputContent
    name: Any = None
    namespace: Any = None
    caller: Any = None


class ReasoningInput(InputItem):
    """An earlier reasoning; accepted, and not counted."""

    type: Literal["reasoning"]
    summary: Annotated[list[dict[str, Any]], _PARTS]
    content: Annotated[list[dict[str, Any]], _PARTS] | None = None
    encrypted_content: Text | None = None


class ItemReference(InputItem):
    """An item of an earlier response; there is no store, so that it stands for nothing."""

    type: Literal["item_reference"] | None = None
    id: Label


# What OpenAI's own tools leave in a conversation: accepted, and not counted.
_OTHER_ITEMS = (
    "additional_tools",
    "apply_patch_call",
    "apply_patch_call_output",
    "code_interpreter_call",
    "compaction",
    "compaction_trigger",
    "computer_call",
    "computer_call_output",
    "configuration_update",
    "file_search_call",
    "image_generation_call",
    "local_shell_call",
    "local_shell_call_output",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "mcp_list_tools",
    "program",
    "program_output",
    "shell_call",
    "shell_call_output",
    "tool_search_call",
    "tool_search_output",
    "web_search_call",
)


def _item_type(item: dict[str, Any]) -> str | None:
    if "role" in item:
        return "message"
    return "item_reference" if "id" in item else None


Item = TypeAliasType(
    "Item",
    Annotated[
        Annotated[MessageItem, Tag("<message>")]
        | Annotated[FunctionCallItem, Tag("<function_call>")]
        | Annotated[FunctionOutputItem, Tag("<function_call_output>")]
        | Annotated[CustomCallItem, Tag("<custom_tool_call>")]
        | Annotated[CustomOutputItem, Tag("<custom_tool_call_output>")]
        | Annotated[ReasoningInput, Tag("<reasoning>")]
        | Annotated[ItemReference, Tag("<item_reference>")]
        | Annotated[dict[str, Any], _other(*_OTHER_ITEMS), Tag("<other>")],
        _typed(
            "message",
            "function_call",
            "function_call_output",
            "custom_tool_call",
            "custom_tool_call_output",
            "reasoning",
            "item_reference",
            others=_OTHER_ITEMS,
            guess=_item_type,
        ),
    ],
)
Input = TypeAliasType(
    "Input",
    Annotated[
        _Text | Annotated[list[Item], Members(MAX_MESSAGES, least=1), Tag("<items>")],
        json_type("one of a string or array of input items", text=str, items=list),
    ],
)


# --------------------------------------------------------------------------------------
# Tools and formats
# --------------------------------------------------------------------------------------


class ResponseFunction(RequestModel):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    type: Literal["function"]
    name: ToolName
    description: Text | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None
    allowed_callers: Any = None
    async_: Any = Field(None, alias="async")
    defer_loading: Any = None
    output_schema: Any = None


class ResponseCustomTool(RequestModel):
    """A tool that takes free text."""

    type: Literal["custom"]
    name: ToolName
    description: Text | None = None
    format: AnyObject | None = None
    allowed_callers: Any = None
    async_: Any = Field(None, alias="async")
    defer_loading: Any = None


# OpenAI's own tools: accepted, and never called.
BUILT_IN_TOOLS = (
    "apply_patch",
    "code_interpreter",
    "computer",
    "computer_use",
    "computer_use_preview",
    "file_search",
    "image_generation",
    "local_shell",
    "mcp",
    "namespace",
    "programmatic_tool_calling",
    "shell",
    "tool_search",
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
)

ResponseTool = TypeAliasType(
    "ResponseTool",
    Annotated[
        Annotated[ResponseFunction, Tag("<function>")]
        | Annotated[ResponseCustomTool, Tag("<custom>")]
        | Annotated[AnyObject, _other(*BUILT_IN_TOOLS), Tag("<other>")],
        _typed("function", "custom", others=BUILT_IN_TOOLS, guess=lambda _: None),
    ],
)


class ToolReference(RequestModel):
    """A function or a custom tool, by its name."""

    type: Literal["function", "custom"]
    name: Name


AllowedTool = TypeAliasType(
    "AllowedTool",
    Annotated[
        Annotated[ToolReference, Tag("<function>")]
        | Annotated[ToolReference, Tag("<custom>")]
        | Annotated[AnyObject, _other(*BUILT_IN_TOOLS), Tag("<other>")],
        _typed("function", "custom", others=BUILT_IN_TOOLS, guess=lambda _: None),
    ],
)


class AllowedTools(RequestModel):
    """The tools that may be called, or of which one must be."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedTool], Members(MAX_TOOLS)]


ResponseNamedTool = TypeAliasType(
    "ResponseNamedTool",
    Annotated[
        Annotated[ToolReference, Tag("<function>")]
        | Annotated[ToolReference, Tag("<custom>")]
        | Annotated[AllowedTools, Tag("<allowed_tools>")]
        | Annotated[AnyObject, _other(*BUILT_IN_TOOLS), Tag("<other>")],
        _typed("function", "custom", "allowed_tools", others=BUILT_IN_TOOLS, guess=lambda _: None),
    ],
)
ResponseToolChoice = TypeAliasType(
    "ResponseToolChoice",
    Annotated[
        Annotated[ToolMode, Tag("<mode>")] | Annotated[ResponseNamedTool, Tag("<named>")],
        json_type("one of a string or object", mode=str, named=dict),
    ],
)


class SchemaFormat(RequestModel):
    """An instance of a JSON schema."""

    type: Literal["json_schema"]
    name: ToolName
    description: Text | None = None
    schema_: JsonSchema = Field(alias="schema")
    strict: bool | None = None


ResponseTextFormat = TypeAliasType(
    "ResponseTextFormat",
    Annotated[
        Annotated[TextFormat, Tag("<text>")]
        | Annotated[JsonObjectFormat, Tag("<json_object>")]
        | Annotated[SchemaFormat, Tag("<json_schema>")],
        variant("type", "text", "json_object", "json_schema"),
    ],
)


class TextConfig(RequestModel):
    """What the text shall be like."""

    format: ResponseTextFormat | None = None
    verbosity: Verbosity | None = None


class Reasoning(RequestModel):
    """How hard to think, and whether to sum it up."""

    effort: ReasoningEffort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Any = None
    mode: Any = None


class ConversationReference(RequestModel):
    """A conversation, by its id."""

    id: Label


Conversation = TypeAliasType(
    "Conversation",
    Annotated[
        Annotated[Label, Tag("<text>")] | Annotated[ConversationReference, Tag("<object>")],
        json_type("one of a string or object", text=str, object=dict),
    ],
)


class ResponseStreamOptions(RequestModel):
    """What a stream carries beside its text."""

    include_obfuscation: bool | None = None


Includable = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]


# --------------------------------------------------------------------------------------
# Requests
# --------------------------------------------------------------------------------------


def _describe_input(schema: dict[str, Any]) -> None:
    """Tell in the OpenAPI document that there is an input; an earlier response would do too."""
    schema["required"] = [*schema.get("required", ()), "input"]
    schema["properties"]["input"] = schema["properties"]["input"]["anyOf"][0]


class InputTokensRequest(RequestModel):
    """The body of POST /v1/responses/input_tokens: what of a response is its input."""

    model_config = ConfigDict(json_schema_extra=_describe_input)

    model: ModelName | None = None
    input: Input | None = None
    instructions: Text | None = None
    tools: Annotated[list[ResponseTool], Members(MAX_TOOLS)] | None = None
    tool_choice: ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None
    previous_response_id: str | None = Field(
        None, json_schema_extra={"pattern": f"^{_RESPONSE_ID.pattern}$"}
    )
    conversation: Conversation | None = None
    prompt: Any = None

    @model_validator(mode="after")
    def _there_is_input(self) -> Self:
        state = (self.input, self.prompt, self.previous_response_id, self.conversation)
        if all(part is None for part in state):
            raise refusal(
                "Missing required parameter: 'input'.", "missing_required_parameter", "input"
            )
        if self.previous_response_id is None:
            return self
        if self.conversation is not None:
            raise refusal(
                "Mutually exclusive parameters: 'previous_response_id' and 'conversation'.",
                "mutually_exclusive_parameters",
                "previous_response_id",
            )
        if not _RESPONSE_ID.fullmatch(self.previous_response_id):
            raise refusal(
                f"Previous response with id '{self.previous_response_id[:128]}' not found.",
                "previous_response_not_found",
                "previous_response_id",
            )
        return self

    @property
    def served_model(self) -> str | None:
        """The model that a request asks for; a count needs none."""
        return self.model


class ResponsesRequest(InputTokensRequest, ModelRequest):
    """The body of POST /v1/responses."""

    model: ModelName
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    max_tool_calls: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    include: Annotated[list[Includable], Members(MAX_INCLUDED)] | None = None
    metadata: Metadata | None = None
    store: bool | None = None
    background: bool | None = Field(None, json_schema_extra={"const": False})
    service_tier: (
        Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None
    ) = None
    user: Label | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    safety_identifier: Label | None = None
    # Other servers have these.
    seed: int | None = Field(None, ge=-INT64_MAX - 1, le=INT64_MAX)
    stop: Stop | None = None
    min_tokens: int | None = Field(None, ge=0)
    ignore_eos: bool | None = None
    # Accepted and ignored: they change nothing that an emulator does.
    prompt_cache_options: Any = None
    context_management: Any = None
    moderation: Any = None
    background_options: Any = None
    access_programs: Any = None
    image: Any = None

    @model_validator(mode="after")
    def _parameters_fit_together(self) -> Self:
        if self.background:
            raise refusal(
                "Background responses are not supported: there is no store to fetch them from. "
                "Set 'background' to false.",
                "unsupported_value",
                "background",
            )
        if self.stream_options is not None and not self.stream:
            raise refusal(
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
                param="stream_options",
            )
        return self

    @property
    def extensions(self) -> list[str]:
        """The parameters in use that other servers have and OpenAI does not."""
        names = ("ignore_eos", "min_tokens", "seed", "stop")
        return [name for name in names if name in self.model_fields_set]


# --------------------------------------------------------------------------------------
# Answers, for the OpenAPI document: responses_events.py writes them piece by piece
# --------------------------------------------------------------------------------------

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


class OutputCustomCall(BaseModel):
    """A call of a custom tool."""

    id: str
    type: Literal["custom_tool_call"] = "custom_tool_call"
    status: ItemStatus
    call_id: str
    input: str
    name: str


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


class IncompleteDetails(BaseModel):
    """Why an answer is incomplete."""

    reason: Literal["max_output_tokens"]


class Echo(BaseModel):
    """What a response repeats of its request, with OpenAI's defaults."""

    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    parallel_tool_calls: bool
    previous_response_id: str | None
    conversation: dict[str, str] | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    reasoning: dict[str, str | None]
    safety_identifier: str | None
    service_tier: Literal["default"] = "default"
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    user: str | None
    metadata: dict[str, str]


class Response(Echo):
    """The answer to a request that is not streamed, and what the first and last events hold."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete"]
    background: Literal[False] = False
    error: None = None
    incomplete_details: IncompleteDetails | None
    output: list[OutputMessage | OutputFunctionCall | OutputCustomCall | OutputReasoning]
    usage: ResponseUsage | None


class ResponseEvent(BaseModel):
    """One event of a stream; what else it has depends on its type."""

    model_config = ConfigDict(extra="allow")

    type: str
    sequence_number: int


class InputTokens(BaseModel):
    """The answer of POST /v1/responses/input_tokens."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int
