"""The options of a failure, in headers and rules, and which contradict each other."""

from collections.abc import Callable
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from emulator.faults.codes import CODES
from emulator.faults.kinds import KINDS, PLACED, TELLING
from emulator.settings import MAX_OUTPUT_LENGTH

MAX_AFTER_MS = 3_600_000  # the longest timeout_s
MAX_RETRY_AFTER_MS = 86_400_000
MAX_ATTEMPTS = 1_000_000
MAX_KEY_LENGTH = 128
MAX_MESSAGE_LENGTH = 1024
MAX_SLICE_BYTES = 1024
DEFAULT_STATUS = 500
DEFAULT_SLICE_BYTES = 7

_NUMBERS = ("status", "after_ms", "probability", "attempts", "retry_after_ms", "slice_bytes")
KIND_NAMES: Final = ", ".join(KINDS)
CODE_NAMES: Final = ", ".join(CODES)


def _known(name: str) -> str:
    if name not in KINDS:
        raise ValueError(f"expected one of {KIND_NAMES}")
    return name


def _known_code(name: str) -> str:
    if name not in CODES:
        raise ValueError(f"expected one of {CODE_NAMES}")
    return name


KindName = Annotated[str, AfterValidator(_known)]
CodeName = Annotated[str, AfterValidator(_known_code)]
AfterTokens = Annotated[int, Field(ge=0, le=MAX_OUTPUT_LENGTH)]


class Wish(BaseModel):
    """The options that headers and rules share; each ``title`` says what a field takes."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    kind: KindName | None = Field(
        None,
        title=f"one of {KIND_NAMES}",
        description="Kind of failure; `status` if a status or a code is given",
        json_schema_extra={"enum": [*KINDS]},
    )
    status: int | None = Field(
        None,
        ge=400,
        le=599,
        title="a status",
        description="Status of the kinds `status`, `error` and `failed`, by default the code's, "
        "or 500",
    )
    code: CodeName | None = Field(
        None,
        title=f"one of {CODE_NAMES}",
        description="OpenAI's code of an error, which decides its status, type and message",
        json_schema_extra={"enum": [*CODES]},
    )
    message: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_MESSAGE_LENGTH,
        title=f"a text of 1 to {MAX_MESSAGE_LENGTH} characters",
        description="Message of an error in place of OpenAI's",
    )
    after_ms: float | None = Field(
        None,
        ge=0,
        le=MAX_AFTER_MS,
        title="a number of milliseconds",
        description="When to fail, in ms after the start, in place of a number of tokens",
    )
    probability: float = Field(
        1,
        ge=0,
        le=1,
        title="a number",
        description="How likely to fail, drawn from the request's seed if it has one",
    )
    attempts: int | None = Field(
        None,
        ge=0,
        le=MAX_ATTEMPTS,
        title="a whole number of attempts",
        description="How many attempts fail, from the first on",
    )
    retry_after_ms: int | None = Field(
        None,
        ge=0,
        le=MAX_RETRY_AFTER_MS,
        title="a whole number of milliseconds",
        description="Sent as `retry-after-ms` and, in whole seconds, as `retry-after`",
    )
    slice_bytes: int | None = Field(
        None,
        ge=1,
        le=MAX_SLICE_BYTES,
        title="a whole number of bytes",
        description="Size of the pieces of the kind `slice`, by default 7",
    )

    @field_validator(*_NUMBERS, "after_tokens", mode="before", check_fields=False)
    @classmethod
    def _no_digit_groups(cls, value: object) -> object:
        if isinstance(value, str) and "_" in value:
            raise ValueError("Python's digit groups are not numbers elsewhere")
        return value

    @property
    def kind_name(self) -> str | None:
        """The kind, `status` if only a status or a code is given; None if none of them is."""
        says_status = self.status is not None or self.code is not None
        return self.kind or ("status" if says_status else None)


def _header_name(field: str) -> str:
    return f"X-FAULT-{field.upper().replace('_', '-')}"


class FaultHeaders(Wish):
    """The X-FAULT-* request headers, None where there is none."""

    model_config = ConfigDict(alias_generator=_header_name)

    after_tokens: int | None = Field(
        None,
        ge=0,
        le=MAX_OUTPUT_LENGTH,
        title="a whole number of tokens",
        description="Which token the failure takes the place of, at its due time",
    )
    key: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_KEY_LENGTH,
        title=f"a text of 1 to {MAX_KEY_LENGTH} characters",
        description="What counts as the same call for attempts",
    )


def contradiction(wish: Wish, name: Callable[[str], str]) -> tuple[str, str] | None:
    """Return a field that contradicts others and the problem, or None.

    Args:
        wish: The options.
        name: Returns the name by which the caller knows a field.
    """
    given = wish.model_fields_set & {*Wish.model_fields, "after_tokens", "key"}
    kind = wish.kind_name
    if kind is None:
        field = min(given, default="kind")
        asked = f"{name('kind')}, {name('status')} or {name('code')}"
        return field, f"expected {asked} beside it, but got none of them"
    if {"after_tokens", "after_ms"} <= given:
        return "after_ms", f"expected no {name('after_tokens')} beside it, but got one"
    if "key" in given and "attempts" not in given:
        return "key", f"expected {name('attempts')} beside it, but got none"
    options = KINDS[kind].options
    for field in sorted(given & (TELLING | PLACED | {"slice_bytes"}) - options):
        kinds = ", ".join(each.name for each in KINDS.values() if field in each.options)
        return field, f"expected a kind that it says something to ({kinds}), but got {kind}"
    if wish.code is not None and wish.retry_after_ms is not None and not CODES[wish.code].waits:
        waiting = ", ".join(code for code, told in CODES.items() if told.waits)
        asked = f"a {name('code')} that it helps to wait for ({waiting})"
        return "retry_after_ms", f"expected {asked}, but got {wish.code}"
    return None


def header_contradiction(headers: FaultHeaders) -> tuple[str, str] | None:
    """Return a header that contradicts others and the problem, or None."""
    found = contradiction(headers, _header_name)
    return found and (_header_name(found[0]), found[1])
