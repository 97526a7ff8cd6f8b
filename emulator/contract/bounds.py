"""How large the parts of a request may be, and the types that hold them to it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Len, MaxLen
from pydantic import AfterValidator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, to_json
from pydantic_core.core_schema import no_info_before_validator_function

MAX_SSE_BATCH_SIZE = 1024

MAX_CHOICES = 128

MAX_ALL_CHOICES = 2048  # n for each prompt

MAX_TOOL_CALLS = 128

MAX_EMULATION_FIELDS = 64

MAX_TOKENS_OF_ALL_CHOICES = 2**18

MAX_CHARACTERS_ECHOED = 2**22  # of prompts in all choices

MAX_PROMPT_IDS_TOLD = 2**18  # in all choices

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
MAX_STOP_TOKEN_IDS = 2**18  # more than a vocabulary has

MAX_TOOLS = 128

MAX_ALL_TOOLS = 1024  # of a response: in its tools, in namespaces and in its input

MAX_LOGIT_BIASES = 1024

MAX_GUIDED_CHOICES = 2048

MAX_BIAS = 100


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

NonEmptyText = Annotated[str, Len(1, MAX_STRING_LENGTH)]
