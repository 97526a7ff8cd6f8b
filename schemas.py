"""The wire format: requests, the X-* headers, responses and errors.

Nothing here does I/O, reads a clock or draws a random number.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from annotated_types import Len, MaxLen
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    PlainValidator,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, to_json
from pydantic_core.core_schema import no_info_before_validator_function
from typing_extensions import TypeAliasType, TypedDict

from emulator.embeddings.models import MAX_INPUTS, most_dimensions, takes_dimensions
from emulator.prompts.attachments import AttachmentError, ImageSource
from emulator.settings import MAX_ITL_MS, MAX_OUTPUT_LENGTH, MAX_TTFT_MS
from emulator.timing.plan import FinishReason

MAX_SSE_BATCH_SIZE = 1024
MAX_CHOICES = 128
MAX_ALL_CHOICES = 2048  # n for each prompt
MAX_TOOL_CALLS = 128
MAX_EMULATION_FIELDS = 64
MAX_TOKENS_OF_ALL_CHOICES = 2**18
MAX_CHARACTERS_ECHOED = 2**22  # of prompts in all choices
MAX_LOGPROBS = 2**20  # of all tokens, each with its alternatives
INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1

# Of what clients send: a request that is larger is wrong, and costs little to refuse.
MAX_MODEL_LENGTH = 256
MAX_NAME_LENGTH = 64
MAX_ID_LENGTH = 64
MAX_LABEL_LENGTH = 512
MAX_STRING_LENGTH = 10_485_760
MAX_MESSAGES = 2048  # of a chat, and items of a response's input
MAX_PARTS = 2048  # of one message
MAX_PROMPTS = 2048
MAX_PROMPT_TOKENS = 2**20  # token ids of all prompts
MAX_TOOLS = 128
MAX_LOGIT_BIASES = 1024
MAX_BIAS = 100

# --------------------------------------------------------------------------------------
# Bounds
# --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Members:
    """How many members an array or object may have; of faulty ones in an array the first is told.

    The length is checked before any member is, so that a long one costs no more than a short one.
    """

    most: int
    least: int = 0

    def __get_pydantic_core_schema__(
        self,
        source: Any,  # noqa: ANN401 - pydantic's protocol
        handler: GetCoreSchemaHandler,
    ) -> CoreSchema:
        """Return the validation that pydantic builds, with the bounds."""
        schema: Any = handler(source)
        schema |= {"min_length": self.least, "max_length": self.most}
        if schema["type"] == "list":
            schema["fail_fast"] = True
        return no_info_before_validator_function(self.check, schema)

    def check(self, value: object) -> object:
        """Return an array or object that is not too long, and what is neither."""
        if isinstance(value, list | dict) and len(value) > self.most:
            raise PydanticCustomError("too_long", "too long", {"max_length": self.most})
        return value


def _refuse_infinity(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse a number that was too large for a double: as JSON it could not be told again."""
    if b"Infinity" in to_json(value):  # the quickest look; it may be part of a text
        path = next(_paths_of_infinity(value), None)
        if path is not None:
            raise PydanticCustomError("beyond_double", "beyond a double", {"path": path})
    return value


def _paths_of_infinity(value: object, path: str = "") -> Iterator[str]:
    """Yield where the infinite numbers stand; JSON is nested 200 levels deep at most."""
    if isinstance(value, float) and math.isinf(value):
        yield path
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths_of_infinity(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _paths_of_infinity(item, f"{path}.{key[:64]}")


Text = Annotated[str, MaxLen(MAX_STRING_LENGTH)]
ModelName = Annotated[str, Len(1, MAX_MODEL_LENGTH)]
Name = Annotated[str, MaxLen(MAX_NAME_LENGTH)]
Id = Annotated[str, MaxLen(MAX_ID_LENGTH)]
Label = Annotated[str, MaxLen(MAX_LABEL_LENGTH)]
# What of a request is kept as it came, to be used or told again.
AnyObject = Annotated[dict[str, Any], AfterValidator(_refuse_infinity)]


# --------------------------------------------------------------------------------------
# Headers
# --------------------------------------------------------------------------------------


_Text = Annotated[str, Len(1, MAX_STRING_LENGTH)]

_NUMBERS = (
    "ttft_ms",
    "itl_ms",
    "output_length",
    "sse_batch_size",
    "reasoning_length",
    "tool_calls",
    "cached_tokens",
)
_MILLISECONDS = "a number of milliseconds"
_TOKENS = "a whole number of tokens"


class EmulationHeaders(BaseModel):
    """The X-* request headers; None where the client sent none.

    Each ``title`` says, in the error message, what the header takes.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    ttft_ms: float | None = Field(
        None,
        alias="X-TTFT-MS",
        ge=0,
        le=MAX_TTFT_MS,
        title=_MILLISECONDS,
        description="Time to first token, in ms",
    )
    itl_ms: float | None = Field(
        None,
        alias="X-ITL-MS",
        ge=0,
        le=MAX_ITL_MS,
        title=_MILLISECONDS,
        description="Inter-token latency, in ms",
    )
    output_length: int | None = Field(
        None,
        alias="X-OUTPUT-LENGTH",
        ge=1,
        le=MAX_OUTPUT_LENGTH,
        title=_TOKENS,
        description="Length of the answer, in tokens",
    )
    sse_batch_size: int = Field(
        1,
        alias="X-SSE-BATCH-SIZE",
        ge=1,
        le=MAX_SSE_BATCH_SIZE,
        title=_TOKENS,
        description="Tokens for each event of a stream",
    )
    reasoning_length: int | None = Field(
        None,
        alias="X-REASONING-LENGTH",
        ge=0,
        le=MAX_OUTPUT_LENGTH,
        title=_TOKENS,
        description="Reasoning tokens before the answer",
    )
    tool_calls: int = Field(
        0,
        alias="X-TOOL-CALLS",
        ge=0,
        le=MAX_TOOL_CALLS,
        title="a whole number of calls",
        description="Tool calls to make, also with tool_choice auto",
    )
    cached_tokens: int = Field(
        0,
        alias="X-CACHED-TOKENS",
        ge=0,
        le=INT32_MAX,
        title=_TOKENS,
        description="Prompt tokens to report as cached, at most all of them",
    )
    ttft_jitter: str | None = Field(
        None, alias="X-TTFT-JITTER", description="Distribution of the TTFT around X-TTFT-MS"
    )
    itl_jitter: str | None = Field(
        None, alias="X-ITL-JITTER", description="Distribution of the gaps around X-ITL-MS"
    )
    emulation_report: bool = Field(
        False,
        alias="X-EMULATION-REPORT",
        title="true or false",
        description="Report the times asked and actual with the end of the answer",
    )

    @field_validator(*_NUMBERS, mode="before")
    @classmethod
    def _no_digit_groups(cls, value: str) -> str:
        if "_" in value:
            raise ValueError("Python's digit groups are not numbers elsewhere")
        return value


# What a body says in place of headers. Its names and values are checked where headers are, because
# all rooms that read headers read this.
Emulation = Annotated[
    dict[str, Any],
    Members(MAX_EMULATION_FIELDS),
    WithJsonSchema(
        {
            "type": "object",
            "description": "What the X-* headers say, where headers do not reach; these win",
            "properties": EmulationHeaders.model_json_schema(by_alias=False)["properties"],
        }
    ),
]


# --------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------


class ErrorBody(BaseModel):
    """What went wrong, in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorBody


class APIError(Exception):
    """A failure that the client is told about, as OpenAI would tell it.

    Args:
        message: What was expected and what came.
        param: The path of the faulty field, such as ``messages[0].role``, or a header's name.
        code: OpenAI's machine-readable code.
        status: The HTTP status.
        type: OpenAI's error class.
        headers: Headers of the answer.
    """

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        type: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.body = ErrorBody(message=message, type=type, param=param, code=code)


def refusal(message: str, code: str = "", param: str = "") -> PydanticCustomError:
    """Reject a value with a message of our own; `param` is appended to the value's path."""
    context = {"message": message, "code": code, "param": param}
    return PydanticCustomError("refused", "{message}", context)


# --------------------------------------------------------------------------------------
# Unions
#
# Pydantic puts the tag of the chosen variant into an error's location. The tags are
# written <like this>, so that errors.py can tell them from the names of fields.
# --------------------------------------------------------------------------------------


def variant(key: str, *supported: str) -> Discriminator:
    """Choose the variant named by `key`, the way messages are told apart by ``role``."""

    def tag(value: object) -> str | None:
        name = value.get(key) if isinstance(value, dict) else getattr(value, key, None)
        return f"<{name}>" if name in supported else None

    return Discriminator(
        tag,
        custom_error_type="unknown_variant",
        custom_error_message="unknown variant",
        custom_error_context={"key": key, "supported": ",".join(supported)},
    )


def json_type(expected: str, **tags: type) -> Discriminator:
    """Choose the variant by the value's JSON type; `expected` names the types for the error."""

    def tag(value: object) -> str | None:
        return next((f"<{name}>" for name, type_ in tags.items() if isinstance(value, type_)), None)

    return Discriminator(
        tag,
        custom_error_type="wrong_json_type",
        custom_error_message="wrong JSON type",
        custom_error_context={"expected": expected},
    )


# --------------------------------------------------------------------------------------
# Content parts
# --------------------------------------------------------------------------------------


class RequestModel(BaseModel):
    """The base of all that clients send: no type coercion, unknown keys are accepted."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    @property
    def served_model(self) -> str | None:
        """The model that a request asks for; None where it asks for none."""
        return None

    @property
    def extensions(self) -> list[str]:
        """The parameters in use that other servers have and OpenAI does not."""
        return []


def _parse_image_url(url: object) -> ImageSource:
    if not isinstance(url, str):
        raise PydanticCustomError("string_type", "not a string")
    try:
        return ImageSource.parse(url)
    except AttachmentError as error:
        raise refusal(str(error), error.code) from None


ImageAddress = Annotated[
    ImageSource,
    PlainValidator(_parse_image_url),
    WithJsonSchema({"type": "string", "format": "uri"}),
]


class ImageURL(RequestModel):
    """A picture, by address or as base64 data."""

    url: ImageAddress
    detail: Literal["auto", "low", "high", "original"] | None = "auto"


class CacheBreakpoint(RequestModel):
    """Where a part of the prompt that is cached ends."""

    mode: Literal["explicit"]


class PromptPart(RequestModel):
    """What the parts of a prompt share: checked and ignored, there is no cache."""

    prompt_cache_breakpoint: CacheBreakpoint | None = None


class TextPart(PromptPart):
    """A piece of text."""

    type: Literal["text"]
    text: Text


class ImagePart(PromptPart):
    """A picture for a vision model."""

    type: Literal["image_url"]
    image_url: ImageURL


class InputAudio(RequestModel):
    """Base64 audio data."""

    data: str
    format: Literal["wav", "mp3"]


class AudioPart(PromptPart):
    """A sound for an audio model; accepted, and not counted."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class InputFile(RequestModel):
    """A file, as base64 data or by the id of an upload."""

    file_data: str | None = None
    file_id: Label | None = None
    filename: Label | None = None


class FilePart(PromptPart):
    """A document; accepted, and not counted."""

    type: Literal["file"]
    file: InputFile


class RefusalPart(RequestModel):
    """An earlier refusal of the assistant."""

    type: Literal["refusal"]
    refusal: Text


_TEXT_OR_PARTS = json_type("one of a string or array of objects", text=str, parts=list)
_TextContent = Annotated[Text, Tag("<text>")]
_PARTS = Members(MAX_PARTS, least=1)

UserPart = TypeAliasType(
    "UserPart",
    Annotated[
        Annotated[TextPart, Tag("<text>")]
        | Annotated[ImagePart, Tag("<image_url>")]
        | Annotated[AudioPart, Tag("<input_audio>")]
        | Annotated[FilePart, Tag("<file>")],
        variant("type", "text", "image_url", "input_audio", "file"),
    ],
)
AssistantPart = TypeAliasType(
    "AssistantPart",
    Annotated[
        Annotated[TextPart, Tag("<text>")] | Annotated[RefusalPart, Tag("<refusal>")],
        variant("type", "text", "refusal"),
    ],
)

UserContent = TypeAliasType(
    "UserContent",
    Annotated[_TextContent | Annotated[list[UserPart], _PARTS, Tag("<parts>")], _TEXT_OR_PARTS],
)
AssistantContent = TypeAliasType(
    "AssistantContent",
    Annotated[
        _TextContent | Annotated[list[AssistantPart], _PARTS, Tag("<parts>")], _TEXT_OR_PARTS
    ],
)
TextContent = TypeAliasType(
    "TextContent",
    Annotated[_TextContent | Annotated[list[TextPart], _PARTS, Tag("<parts>")], _TEXT_OR_PARTS],
)


# --------------------------------------------------------------------------------------
# Messages
# --------------------------------------------------------------------------------------


class FunctionCall(RequestModel):
    """A function's name and its arguments as JSON text."""

    name: Name
    arguments: Text


class CustomCall(RequestModel):
    """A custom tool's name and its free-form input."""

    name: Name
    input: Text


class FunctionToolCall(RequestModel):
    """A call of a function that the assistant made earlier."""

    id: Id
    type: Literal["function"]
    function: FunctionCall


class CustomToolCall(RequestModel):
    """A call of a custom tool that the assistant made earlier."""

    id: Id
    type: Literal["custom"]
    custom: CustomCall


ToolCall = TypeAliasType(
    "ToolCall",
    Annotated[
        Annotated[FunctionToolCall, Tag("<function>")] | Annotated[CustomToolCall, Tag("<custom>")],
        variant("type", "function", "custom"),
    ],
)


class AudioReference(RequestModel):
    """An earlier spoken answer."""

    id: Id


class InstructionMessage(RequestModel):
    """What the developer tells the model, under either of its two role names."""

    role: Literal["system", "developer"]
    content: TextContent
    name: Name | None = None


class UserMessage(RequestModel):
    """What the user says and shows."""

    role: Literal["user"]
    content: UserContent
    name: Name | None = None


class AssistantMessage(RequestModel):
    """What the assistant answered earlier."""

    role: Literal["assistant"]
    content: AssistantContent | None = None
    refusal: Text | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ToolCall], Members(MAX_TOOLS)] | None = None
    function_call: FunctionCall | None = None
    audio: AudioReference | None = None


class ToolMessage(RequestModel):
    """The result of a tool call."""

    role: Literal["tool"]
    content: TextContent
    tool_call_id: Id


class FunctionMessage(RequestModel):
    """The result of a function call, in its deprecated form."""

    role: Literal["function"]
    content: Text | None = None
    name: Name


Message = TypeAliasType(
    "Message",
    Annotated[
        Annotated[InstructionMessage, Tag("<system>")]
        | Annotated[AssistantMessage, Tag("<assistant>")]
        | Annotated[UserMessage, Tag("<user>")]
        | Annotated[FunctionMessage, Tag("<function>")]
        | Annotated[ToolMessage, Tag("<tool>")]
        | Annotated[InstructionMessage, Tag("<developer>")],
        variant("role", "system", "assistant", "user", "function", "tool", "developer"),
    ],
)


# --------------------------------------------------------------------------------------
# Tools and formats
# --------------------------------------------------------------------------------------

ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
JsonSchema = AnyObject


class FunctionDefinition(RequestModel):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    name: ToolName
    description: Text | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None


class FunctionTool(RequestModel):
    """A function as a tool."""

    type: Literal["function"]
    function: FunctionDefinition


class CustomDefinition(RequestModel):
    """A tool that takes free text."""

    name: ToolName
    description: Text | None = None
    format: AnyObject | None = None


class CustomTool(RequestModel):
    """A free-text tool."""

    type: Literal["custom"]
    custom: CustomDefinition


Tool = TypeAliasType(
    "Tool",
    Annotated[
        Annotated[FunctionTool, Tag("<function>")] | Annotated[CustomTool, Tag("<custom>")],
        variant("type", "function", "custom"),
    ],
)


class NamedTool(RequestModel):
    """The name of a tool."""

    name: Name


class FunctionChoice(RequestModel):
    """One function, by its name."""

    type: Literal["function"]
    function: NamedTool

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.name


class CustomChoice(RequestModel):
    """One custom tool, by its name."""

    type: Literal["custom"]
    custom: NamedTool

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.custom.name


AllowedTool = TypeAliasType(
    "AllowedTool",
    Annotated[
        Annotated[FunctionChoice, Tag("<function>")] | Annotated[CustomChoice, Tag("<custom>")],
        variant("type", "function", "custom"),
    ],
)


class AllowedTools(RequestModel):
    """The tools that may be called, or of which one must be."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedTool], Members(MAX_TOOLS)]


class AllowedToolsChoice(RequestModel):
    """A subset of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolMode = Literal["none", "auto", "required"]
NamedToolChoice = TypeAliasType(
    "NamedToolChoice",
    Annotated[
        Annotated[FunctionChoice, Tag("<function>")]
        | Annotated[CustomChoice, Tag("<custom>")]
        | Annotated[AllowedToolsChoice, Tag("<allowed_tools>")],
        variant("type", "function", "custom", "allowed_tools"),
    ],
)
ToolChoice = TypeAliasType(
    "ToolChoice",
    Annotated[
        Annotated[ToolMode, Tag("<mode>")] | Annotated[NamedToolChoice, Tag("<named>")],
        json_type("one of a string or object", mode=str, named=dict),
    ],
)
FunctionCallChoice = TypeAliasType(
    "FunctionCallChoice",
    Annotated[
        Annotated[Literal["none", "auto"], Tag("<mode>")] | Annotated[NamedTool, Tag("<named>")],
        json_type("one of a string or object", mode=str, named=dict),
    ],
)


class TextFormat(RequestModel):
    """Plain text."""

    type: Literal["text"]


class JsonObjectFormat(RequestModel):
    """Any JSON object."""

    type: Literal["json_object"]


class NamedSchema(RequestModel):
    """A JSON schema and its name."""

    name: ToolName
    description: Text | None = None
    schema_: JsonSchema | None = Field(None, alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(RequestModel):
    """An instance of a JSON schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = TypeAliasType(
    "ResponseFormat",
    Annotated[
        Annotated[TextFormat, Tag("<text>")]
        | Annotated[JsonObjectFormat, Tag("<json_object>")]
        | Annotated[JsonSchemaFormat, Tag("<json_schema>")],
        variant("type", "text", "json_object", "json_schema"),
    ],
)
Stop = TypeAliasType(
    "Stop",
    Annotated[
        Annotated[_Text, Tag("<string>")]
        | Annotated[list[_Text], Members(4, least=1), Tag("<array>")],
        json_type("one of a string or array of strings", string=str, array=list),
    ],
)


# --------------------------------------------------------------------------------------
# Requests
# --------------------------------------------------------------------------------------


ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Verbosity = Literal["low", "medium", "high"]
Metadata = Annotated[dict[Annotated[str, MaxLen(64)], Annotated[str, MaxLen(512)]], Members(16)]


def _check_biases(biases: object) -> object:
    if isinstance(biases, dict) and len(biases) <= MAX_LOGIT_BIASES:  # else the length is told
        wrong = next((key for key in biases if not (key.isascii() and key.isdecimal())), None)
        if wrong is not None:
            raise refusal(
                f"Invalid key in 'logit_bias': {wrong[:64]}. You should only be submitting "
                "non-negative integers."
            )
        for key, bias in biases.items():
            if type(bias) not in (int, float) or not -MAX_BIAS <= bias <= MAX_BIAS:
                return {key: bias}  # of faulty ones the first is told
    return biases


LogitBias = Annotated[
    dict[str, Annotated[float, Field(ge=-MAX_BIAS, le=MAX_BIAS)]],
    Members(MAX_LOGIT_BIASES),
    BeforeValidator(_check_biases),
]


class StreamOptions(RequestModel):
    """What a stream carries beside its text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


class ModelRequest(RequestModel):
    """What all requests to a model share."""

    model: ModelName
    emulation: Emulation | None = None

    @property
    def served_model(self) -> str | None:
        """The model that a request asks for."""
        return self.model


class GenerationRequest(ModelRequest):
    """What chat and legacy completions share, and what Responses are translated to.

    The class variables tell how long an id is, and how errors name what the client sent.
    """

    ID_PREFIX: ClassVar = ""
    ID_DIGITS: ClassVar = 29
    EFFORT_PARAM: ClassVar = "reasoning_effort"
    FORMAT_PARAM: ClassVar = "response_format"
    SCHEMA_PARAM: ClassVar = "response_format.json_schema.schema"

    max_tokens: int | None = Field(None, ge=1)
    min_tokens: int | None = Field(None, ge=0)
    ignore_eos: bool | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    stop: Stop | None = None
    seed: int | None = Field(None, ge=-INT64_MAX - 1, le=INT64_MAX)
    logit_bias: LogitBias | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Label | None = None

    @model_validator(mode="after")
    def _stream_options_need_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise refusal(
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
                param="stream_options",
            )
        return self

    @property
    def extensions(self) -> list[str]:
        """The parameters in use that vLLM has and OpenAI does not; load generators send them."""
        names = ("ignore_eos", "min_tokens")
        used: list[str] = [name for name in names if name in self.model_fields_set]
        options = self.stream_options
        if options is not None and "continuous_usage_stats" in options.model_fields_set:
            used.append("stream_options.continuous_usage_stats")
        return used

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with a chunk that holds the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        """Whether each chunk of the stream holds the usage so far, as vLLM sends it."""
        return self.include_usage and bool(
            self.stream_options and self.stream_options.continuous_usage_stats
        )

    @property
    def wants_summary(self) -> bool:
        """Whether the client wants a summary of the reasoning."""
        return False

    @property
    def wants_usage(self) -> bool:
        """Whether anything of the answer says how many tokens the prompt has."""
        return not self.stream or self.include_usage

    @property
    def token_limit(self) -> tuple[str, int | None]:
        """The parameter that limits the answer, and the most tokens that it allows."""
        return "max_tokens", self.max_tokens

    @property
    def effort(self) -> str | None:
        """How hard the client wants the model to think."""
        return None

    @property
    def choices(self) -> int:
        """How many answers the client wants."""
        return self.n or 1

    @property
    def is_plain(self) -> bool:
        """Whether the answer takes no more work than to pick a text."""
        return self.choices == 1 and not self.stop

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop sequences."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


@dataclass(slots=True)
class Prompt:
    """What of a request counts as prompt tokens.

    ``texts`` holds each message's string values, ``named`` the number of messages with a name.
    """

    messages: int
    named: int
    texts: tuple[str, ...]
    images: tuple[ImageURL, ...]
    functions: tuple[FunctionDefinition, ...]


_PROMPT_SCHEMAS = [
    {"type": "null"},
    {"type": "string"},
    {"type": "array", "items": {"type": "string"}},
    {"type": "array", "items": {"type": "integer"}},
    {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
]


def _parse_prompts(value: object) -> tuple[str | tuple[int, ...], ...]:
    """Read one prompt or several, each a text or a list of token ids; null is an empty text."""
    if value is None:
        return ("",)
    if isinstance(value, str):
        _refuse_long_texts("prompt", value)
        return (value,)
    if isinstance(value, list) and value:
        most = MAX_PROMPT_TOKENS if isinstance(value[0], int) else MAX_PROMPTS
        if len(value) > most:
            raise PydanticCustomError("too_long", "too many", {"max_length": most})
        if all(isinstance(item, str) for item in value):
            _refuse_long_texts("prompt", value)
            return tuple(value)
        if _is_token_ids(value):
            return (tuple(value),)
        if _are_lists_of_token_ids(value):
            _refuse_many_tokens(value)
            return tuple(tuple(item) for item in value)
    raise PydanticCustomError(
        "wrong_json_type",
        "not a prompt",
        {"expected": "a string, or a non-empty array of strings, token ids or arrays of token ids"},
    )


def _is_token_ids(value: list[Any]) -> bool:
    return set(map(type, value)) == {int} and min(value) >= 0 and max(value) <= INT32_MAX


def _are_lists_of_token_ids(value: list[Any]) -> bool:
    is_lists = all(isinstance(item, list) for item in value) and all(value)
    return is_lists and _is_token_ids(list(chain.from_iterable(value)))


def _refuse_long_texts(param: str, value: str | list[Any]) -> None:
    for index, text in enumerate([value] if isinstance(value, str) else value):
        if isinstance(text, str) and len(text) > MAX_STRING_LENGTH:
            where = "" if isinstance(value, str) else f"[{index}]"
            raise refusal(
                f"Invalid '{param}{where}': string too long. Expected a string with maximum length "
                f"{MAX_STRING_LENGTH}, but got a string with length {len(text)} instead.",
                "string_above_max_length",
                where,
            )


def _refuse_many_tokens(prompts: list[list[int]]) -> None:
    if (tokens := sum(map(len, prompts))) > MAX_PROMPT_TOKENS:
        raise refusal(
            f"Invalid 'prompt': arrays too long. Expected at most {MAX_PROMPT_TOKENS} token ids in "
            f"all prompts, but got {tokens} instead.",
            "array_above_max_length",
        )


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


class CompletionRequest(GenerationRequest):
    """The body of the legacy POST /v1/completions."""

    ID_PREFIX: ClassVar = "cmpl-"

    prompt: Annotated[
        tuple[str | tuple[int, ...], ...],
        PlainValidator(_parse_prompts),
        WithJsonSchema({"anyOf": _PROMPT_SCHEMAS}),
    ]
    max_tokens: int | None = Field(None, ge=0)
    suffix: Text | None = None
    echo: bool | None = None
    best_of: int | None = Field(None, ge=1, le=20)
    logprobs: int | None = Field(None, ge=0, le=5)

    @model_validator(mode="after")
    def _best_of_covers_n(self) -> Self:
        least = self.n or 1
        if self.best_of is not None and self.best_of < least:
            raise refusal(
                f"Invalid 'best_of': integer below minimum value. Expected a value >= "
                f"{least} (n), but got {self.best_of} instead.",
                "integer_below_min_value",
                "best_of",
            )
        if self.choices > MAX_ALL_CHOICES:
            raise refusal(
                f"Invalid 'n': too many choices. Expected at most {MAX_ALL_CHOICES}, n for each "
                f"prompt, but got {self.choices} instead.",
                "integer_above_max_value",
                "n",
            )
        return self

    @property
    def choices(self) -> int:
        """How many answers the client wants: n for each prompt."""
        return (self.n or 1) * len(self.prompt)

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompts that are texts."""
        return tuple(prompt for prompt in self.prompt if isinstance(prompt, str))


_EMBEDDING_SCHEMAS = [
    {"type": "string", "minLength": 1},
    *(
        {"type": "array", "minItems": 1, "maxItems": MAX_INPUTS, "items": items}
        for items in (
            {"type": "string", "minLength": 1},
            {"type": "integer", "minimum": 0, "maximum": INT32_MAX},
            {
                "type": "array",
                "minItems": 1,
                "items": {"type": "integer", "minimum": 0, "maximum": INT32_MAX},
            },
        )
    ),
]


def _check_inputs(value: object) -> object:
    """Check one input to embed or several, each a text or a list of token ids."""
    if value == []:
        raise PydanticCustomError("too_short", "empty", {"min_length": 1})
    if isinstance(value, list) and type(value[0]) is int and _is_token_ids(value):
        return value
    _refuse_long_texts("input", value if isinstance(value, str) else "")
    inputs = value if isinstance(value, list) else [value]
    if len(inputs) > MAX_INPUTS:
        raise PydanticCustomError("too_long", "too many", {"max_length": MAX_INPUTS})
    for index, item in enumerate(inputs):
        if item == "":
            where = f"[{index}]" if isinstance(value, list) else ""
            raise refusal(
                f"Invalid 'input{where}': empty string. Expected a string with minimum length 1, "
                "but got an empty string instead.",
                "empty_string",
                where,
            )
    _refuse_long_texts("input", inputs if isinstance(value, list) else "")
    if not (all(isinstance(item, str) for item in inputs) or _are_lists_of_token_ids(inputs)):
        raise PydanticCustomError(
            "wrong_json_type",
            "not an input",
            {
                "expected": "a string, or a non-empty array of strings, token ids or arrays of "
                "token ids"
            },
        )
    return value


class EmbeddingRequest(ModelRequest):
    """The body of POST /v1/embeddings."""

    input: Annotated[
        str | list[str] | list[int] | list[list[int]],
        PlainValidator(_check_inputs),
        WithJsonSchema({"anyOf": _EMBEDDING_SCHEMAS}),
    ]
    dimensions: int | None = Field(None, ge=1)
    encoding_format: Literal["float", "base64"] | None = None
    user: Label | None = None

    @model_validator(mode="after")
    def _dimensions_fit_the_model(self) -> Self:
        if self.dimensions is None:
            return self
        if not takes_dimensions(self.model):
            raise refusal("This model does not support specifying dimensions.", param="dimensions")
        most = most_dimensions(self.model)
        if self.dimensions > most:
            raise refusal(
                f"Invalid 'dimensions': integer above maximum value. Expected a value <= {most}, "
                f"but got {self.dimensions} instead.",
                "integer_above_max_value",
                "dimensions",
            )
        return self

    @property
    def inputs(self) -> Sequence[str | list[int]]:
        """The texts and lists of token ids."""
        several = isinstance(self.input, list) and isinstance(self.input[0], str | list)
        return cast("Sequence[str | list[int]]", self.input if several else [self.input])

    @property
    def wants_base64(self) -> bool:
        """Whether vectors are wanted as base64."""
        return self.encoding_format == "base64"

    def param(self, index: int) -> str:
        """Return the path of one of the inputs."""
        return "input" if self.inputs[0] is self.input else f"input[{index}]"


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


def too_many_tokens(request: GenerationRequest, source: str) -> APIError:
    """Refuse more tokens than all choices may have; `source` asked for them where ``n`` is 1."""
    param = "n" if (request.n or 1) > 1 else source
    return APIError(
        f"Invalid '{param}': expected at most {MAX_TOKENS_OF_ALL_CHOICES} tokens in all choices, "
        "but got more.",
        param=param,
        code="integer_above_max_value",
    )


# --------------------------------------------------------------------------------------
# Responses
# --------------------------------------------------------------------------------------


class PromptTokensDetails(BaseModel):
    """What the prompt's tokens were."""

    cached_tokens: int = 0
    audio_tokens: int = 0


class CompletionTokensDetails(BaseModel):
    """What the answer's tokens were."""

    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class Usage(BaseModel):
    """Token counts of one request and its answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails = PromptTokensDetails()
    completion_tokens_details: CompletionTokensDetails = CompletionTokensDetails()

    @classmethod
    def of(cls, prompt: int, visible: int, hidden: int = 0, cached: int = 0) -> Self:
        """Return the usage of a request with these numbers of tokens.

        Args:
            prompt: Of the prompt.
            visible: Of the texts that the client gets.
            hidden: Of the reasoning.
            cached: Of the prompt's tokens, those from the cache; at most all.
        """
        return cls(
            prompt_tokens=prompt,
            completion_tokens=visible + hidden,
            total_tokens=prompt + visible + hidden,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=min(cached, prompt)),
            completion_tokens_details=CompletionTokensDetails(reasoning_tokens=hidden),
        )


class TopLogprob(BaseModel):
    """One likely token at a position."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token of the answer, how likely it was, and what else was likely."""

    top_logprobs: list[TopLogprob]


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
    refusal: None
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
    service_tier: Literal["default"] = "default"
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
    service_tier: Literal["default"] = "default"
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class CompletionLogprobs(BaseModel):
    """The log probabilities of a legacy answer's tokens, field by field."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One legacy answer, or its share of a chunk."""

    text: str
    index: int
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None = None


class Completion(BaseModel):
    """The answer to a legacy completion request, or one event of its stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
    system_fingerprint: str


class Model(BaseModel):
    """One entry of the model list."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    """The model list."""

    object: Literal["list"] = "list"
    data: list[Model]


class Embedding(BaseModel):
    """One vector: numbers, or base64 of little-endian 32-bit floats."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Token counts of the inputs."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """The answer to a request for embeddings."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class CompletionList(BaseModel):
    """The stored chat completions: there is no store, so that there are none."""

    object: Literal["list"] = "list"
    data: list[ChatCompletion] = []
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class Health(BaseModel):
    """What GET /health answers; ``uptime`` in seconds."""

    status: Literal["ok"] = "ok"
    version: str
    uptime: float
