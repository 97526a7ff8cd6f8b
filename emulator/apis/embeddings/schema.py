"""The body of POST /v1/embeddings, and its answer."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self, cast

from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from emulator.contract.bodies import ModelRequest
from emulator.contract.bounds import INT32_MAX, Label
from emulator.contract.errors import refusal
from emulator.contract.token_ids import are_lists_of_token_ids, is_token_ids, refuse_long_texts
from emulator.embeddings.models import MAX_INPUTS, most_dimensions, takes_dimensions

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
    if isinstance(value, list) and type(value[0]) is int and is_token_ids(value):
        return value
    refuse_long_texts("input", value if isinstance(value, str) else "")
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
    refuse_long_texts("input", inputs if isinstance(value, list) else "")
    if not (all(isinstance(item, str) for item in inputs) or are_lists_of_token_ids(inputs)):
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
