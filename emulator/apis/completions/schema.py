"""The body of the legacy POST /v1/completions, and its answers."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from emulator.apis.chat.tools import ResponseFormat
from emulator.contract.bodies import GenerationRequest
from emulator.contract.bounds import MAX_ALL_CHOICES, MAX_PROMPT_TOKENS, MAX_PROMPTS, Text
from emulator.contract.errors import refusal
from emulator.contract.token_ids import are_lists_of_token_ids, is_token_ids, refuse_long_texts
from emulator.contract.usage import Usage
from emulator.timing.plan import FinishReason

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
        refuse_long_texts("prompt", value)
        return (value,)
    if isinstance(value, list) and value:
        most = MAX_PROMPT_TOKENS if isinstance(value[0], int) else MAX_PROMPTS
        if len(value) > most:
            raise PydanticCustomError("too_long", "too many", {"max_length": most})
        if all(isinstance(item, str) for item in value):
            refuse_long_texts("prompt", value)
            return tuple(value)
        if is_token_ids(value):
            return (tuple(value),)
        if are_lists_of_token_ids(value):
            _refuse_many_tokens(value)
            return tuple(tuple(item) for item in value)
    raise PydanticCustomError(
        "wrong_json_type",
        "not a prompt",
        {"expected": "a string, or a non-empty array of strings, token ids or arrays of token ids"},
    )


def _refuse_many_tokens(prompts: list[list[int]]) -> None:
    if (tokens := sum(map(len, prompts))) > MAX_PROMPT_TOKENS:
        raise refusal(
            f"Invalid 'prompt': arrays too long. Expected at most {MAX_PROMPT_TOKENS} token ids in "
            f"all prompts, but got {tokens} instead.",
            "array_above_max_length",
        )


class CompletionRequest(GenerationRequest):
    """The body of the legacy POST /v1/completions."""

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
    response_format: ResponseFormat | None = None
    # A chat's, which are refused.
    messages: Any = None
    max_completion_tokens: Any = None

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
    def extensions(self) -> list[str]:
        """The parameters in use that vLLM has and OpenAI does not."""
        formatted = ["response_format"] if "response_format" in self.model_fields_set else []
        return super().extensions + formatted

    @property
    def choices(self) -> int:
        """How many answers the client wants: n for each prompt."""
        return (self.n or 1) * len(self.prompt)

    @property
    def scores_prompt(self) -> bool:
        """Whether log probabilities are told of the prompt too."""
        return bool(self.echo) and self.logprobs is not None


class CompletionLogprobs(BaseModel):
    """The log probabilities of a legacy answer's tokens, field by field.

    Those of an echoed prompt come first; of its first token they are null.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
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
