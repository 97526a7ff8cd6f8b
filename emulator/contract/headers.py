"""The X-* request headers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator

from emulator.contract.bounds import (
    INT32_MAX,
    MAX_EMULATION_FIELDS,
    MAX_SSE_BATCH_SIZE,
    MAX_TOOL_CALLS,
    Members,
)
from emulator.contract.moderation import CATEGORIES, LISTED
from emulator.settings import MAX_ITL_MS, MAX_KEEPALIVE_MS, MAX_OUTPUT_LENGTH, MAX_TTFT_MS

_NUMBERS = (
    "ttft_ms",
    "itl_ms",
    "output_length",
    "sse_batch_size",
    "reasoning_length",
    "tool_calls",
    "cached_tokens",
    "keepalive_ms",
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
    head: Literal["accepted", "first-token"] | None = Field(
        None,
        alias="X-HEAD",
        title="one of accepted, first-token",
        description="When the head of a stream leaves: at once, or with its first token",
    )
    keepalive_ms: float | None = Field(
        None,
        alias="X-KEEPALIVE-MS",
        ge=0,
        le=MAX_KEEPALIVE_MS,
        title=_MILLISECONDS,
        description="Time between comments of a stream before its first token, in ms; 0 for none",
    )
    text: Literal["english", "unicode"] | None = Field(
        None,
        alias="X-TEXT",
        title="one of english, unicode",
        description="What the texts are: English, or many scripts with accents and emoji",
    )
    optional: Literal["fill", "omit"] | None = Field(
        None,
        alias="X-OPTIONAL",
        title="one of fill, omit",
        description="Whether JSON and arguments have the optional properties of their schema",
    )
    numbers: Literal["whole", "fractional"] = Field(
        "whole",
        alias="X-NUMBERS",
        title="one of whole, fractional",
        description="What a schema's numbers are where it leaves that open",
    )
    flagged: str | None = Field(
        None,
        alias="X-FLAGGED",
        pattern=LISTED,
        title=f"categories with commas between them ({', '.join(CATEGORIES)})",
        description="Categories that moderations flag",
    )
    emulation_report: bool = Field(
        False,
        alias="X-EMULATION-REPORT",
        title="true or false",
        description="Report the times asked and actual with the end of the answer",
    )
    emulation_strict: bool | None = Field(
        None,
        alias="X-EMULATION-STRICT",
        title="true or false",
        description="Refuse the request if no rule has an answer for it",
    )
    emulation_scope: str | None = Field(
        None,
        alias="X-EMULATION-SCOPE",
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9._:-]*$",
        title="1 to 64 letters, digits, dots, hyphens, colons or underscores",
        description="Whose counts of rules count, and whose own rules do",
    )

    emulation_revision: bool = Field(
        False,
        alias="X-EMULATION-REVISION",
        title="true or false",
        description="Tell in x-emulation-revision by which revision the answer was made",
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
