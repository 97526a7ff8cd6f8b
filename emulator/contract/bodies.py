"""What the bodies of all requests share."""

from typing import Annotated, Literal, Self

from annotated_types import MaxLen
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Tag, model_validator
from typing_extensions import TypeAliasType

from emulator.contract.bounds import (
    INT64_MAX,
    MAX_BIAS,
    MAX_CHOICES,
    MAX_GUIDED_CHOICES,
    MAX_LOGIT_BIASES,
    MAX_STOP_TOKEN_IDS,
    AnyObject,
    Label,
    Members,
    ModelName,
    NonEmptyText,
    Text,
)
from emulator.contract.errors import refusal
from emulator.contract.headers import Emulation
from emulator.contract.unions import json_type


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


Stop = TypeAliasType(
    "Stop",
    Annotated[
        Annotated[NonEmptyText, Tag("<string>")]
        | Annotated[list[NonEmptyText], Members(4, least=1), Tag("<array>")],
        json_type("one of a string or array of strings", string=str, array=list),
    ],
)

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


TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]


class StreamOptions(RequestModel):
    """What a stream carries beside its text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


SchemaOrText = TypeAliasType(
    "SchemaOrText",
    Annotated[
        Annotated[AnyObject, Tag("<object>")] | Annotated[Text, Tag("<string>")],
        json_type("one of an object or string", object=dict, string=str),
    ],
)

GuidedChoice = Annotated[list[Text], Members(MAX_GUIDED_CHOICES, least=1)]


class StructuredOutputs(RequestModel):
    """vLLM's constraints on a text, of which one may be set."""

    json_: SchemaOrText | None = Field(None, alias="json")
    json_object: bool | None = None
    regex: Text | None = None
    choice: GuidedChoice | None = None
    grammar: Text | None = None
    structural_tag: Text | None = None


class ModelRequest(RequestModel):
    """What all requests to a model share."""

    model: ModelName
    emulation: Emulation | None = None

    @property
    def served_model(self) -> str | None:
        """The model that a request asks for."""
        return self.model


# What vLLM has and OpenAI does not, of chats and legacy completions.
VLLM_PARAMETERS = (
    *("ignore_eos", "min_tokens", "structured_outputs", "return_token_ids", "prompt_logprobs"),
    *("stop_token_ids", "include_stop_str_in_output"),
    *("guided_json", "guided_regex", "guided_choice", "guided_grammar"),
)


class GenerationRequest(ModelRequest):
    """The parameters that chat and legacy completions share."""

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
    structured_outputs: StructuredOutputs | None = None
    guided_json: SchemaOrText | None = None
    guided_regex: Text | None = None
    guided_choice: GuidedChoice | None = None
    guided_grammar: Text | None = None
    return_token_ids: bool | None = None
    stop_token_ids: Annotated[list[TokenId], Members(MAX_STOP_TOKEN_IDS)] | None = None
    include_stop_str_in_output: bool | None = None
    prompt_logprobs: int | None = None

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
        used = [name for name in VLLM_PARAMETERS if name in self.model_fields_set]
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
    def stops(self) -> tuple[str, ...]:
        """The stop sequences."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
