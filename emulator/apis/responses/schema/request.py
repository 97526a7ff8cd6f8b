"""The bodies of POST /v1/responses, /v1/responses/compact and /v1/responses/input_tokens."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, Tag, ValidationInfo, model_validator
from typing_extensions import TypeAliasType

from emulator.apis.responses.schema.input import Input
from emulator.apis.responses.schema.moved import REFUSED, refuse_chat_parameters
from emulator.apis.responses.schema.tools import (
    ResponseTextFormat,
    ResponseTool,
    ResponseToolChoice,
)
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
    MAX_TOOLS,
    AnyObject,
    Label,
    Members,
    ModelName,
    Text,
)
from emulator.contract.errors import refusal
from emulator.contract.unions import json_type

MAX_INCLUDED = 128

# There is no store: an id is known by its form.
_RESPONSE_ID = re.compile(r"resp_[0-9a-f]{32,64}")


def not_found(response_id: str) -> tuple[str, str, str]:
    """Return message, code and parameter of the refusal of an earlier response's id."""
    return (
        f"Previous response with id '{response_id[:128]}' not found.",
        "previous_response_not_found",
        "previous_response_id",
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


class PromptReference(RequestModel):
    """A template of a prompt; there is no store, so that it stands for nothing."""

    id: Label
    version: Label | None = None
    variables: AnyObject | None = None


class ResponseStreamOptions(RequestModel):
    """What a stream carries beside its text."""

    include_obfuscation: bool | None = None


ServiceTier = Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"]
CacheRetention = Literal["in_memory", "in-memory", "24h"]
Seed = Annotated[int, Field(ge=-INT64_MAX - 1, le=INT64_MAX)]

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


def _describe_input(schema: dict[str, Any]) -> None:
    """Tell in the OpenAPI document that there is an input; an earlier response would do too."""
    schema["required"] = [*schema.get("required", ()), "input"]
    schema["properties"]["input"] = schema["properties"]["input"]["anyOf"][0]


def _with_model(body: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    """Return a body that names a model: if it does not, the one that the reader gives."""
    given = body.get("model") is not None or not info.context
    return body if given else {**body, "model": info.context}


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
    prompt: PromptReference | None = None
    client_metadata: Any = None  # Codex's: accepted and ignored

    @model_validator(mode="before")
    @classmethod
    def _says_it_as_responses_do(cls, body: object) -> object:
        if isinstance(body, dict) and not REFUSED.isdisjoint(body):
            refuse_chat_parameters(body)
        return body

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
            message, code, param = not_found(self.previous_response_id)
            raise refusal(message, code, param)
        return self

    @property
    def served_model(self) -> str | None:
        """The model that a request asks for; a count needs none."""
        return self.model


class CompactRequest(InputTokensRequest, ModelRequest):
    """The body of POST /v1/responses/compact."""

    model: ModelName
    service_tier: ServiceTier | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_retention: CacheRetention | None = None
    seed: Seed | None = None  # other servers have it
    # Accepted and ignored: they change nothing that an emulator does.
    prompt_cache_options: Any = None
    image: Any = None

    @model_validator(mode="before")
    @classmethod
    def _is_not_streamed(cls, body: object, info: ValidationInfo) -> object:
        if not isinstance(body, dict):
            return body
        if body.get("stream"):
            raise refusal("Unknown parameter: 'stream'.", "unknown_parameter", "stream")
        return _with_model(body, info) if "model" in body else body

    @property
    def extensions(self) -> list[str]:
        """The parameters in use that other servers have and OpenAI does not."""
        return ["seed"] if "seed" in self.model_fields_set else []


class ResponsesRequest(InputTokensRequest, ModelRequest):
    """The body of POST /v1/responses."""

    model: ModelName
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    max_tool_calls: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    include: Annotated[list[Includable], Members(MAX_INCLUDED)] | None = None
    metadata: Metadata | None = None
    store: bool | None = None
    background: bool | None = Field(None, json_schema_extra={"const": False})
    service_tier: ServiceTier | None = None
    user: Label | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_retention: CacheRetention | None = None
    safety_identifier: Label | None = None
    # Other servers have these.
    seed: Seed | None = None
    stop: Stop | None = None
    min_tokens: int | None = Field(None, ge=0)
    ignore_eos: bool | None = None
    # False only makes ready for the next request of a websocket.
    generate: bool | None = None
    # Accepted and ignored: they change nothing that an emulator does.
    prompt_cache_options: Any = None
    context_management: Any = None
    moderation: Any = None
    background_options: Any = None
    access_programs: Any = None
    image: Any = None

    @model_validator(mode="before")
    @classmethod
    def _prompt_has_a_model(cls, body: object, info: ValidationInfo) -> object:
        return _with_model(body, info) if isinstance(body, dict) and body.get("prompt") else body

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
