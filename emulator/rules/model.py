"""The schema of a rule in a file, and the plain data that is made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

import regex
from annotated_types import MaxLen
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from emulator.contract.bounds import MAX_LABEL_LENGTH, MAX_TOOL_CALLS
from emulator.contract.headers import EmulationHeaders
from emulator.faults.asking import FaultRule
from emulator.timing.plan import FinishReason

MAX_RULES = 1000
MAX_GLOB_LENGTH = 256
MAX_TEXT_GLOB_LENGTH = 1024
# What regex does to prepare a long literal takes the cube of its length, past any timeout.
MAX_REGEX_LENGTH = 200
MAX_HEADERS = 16
MAX_SCRIPT_LENGTH = 2**20  # characters of one text
MAX_ANSWERS = 1000
MAX_NUMBERS = 16_384
MAX_COUNT = 10**9

# These say something to rules, so that no rule can say them.
_OF_REQUESTS = ("emulation_strict", "emulation_scope")
TIMING_FIELDS = tuple(name for name in EmulationHeaders.model_fields if name not in _OF_REQUESTS)


def _expression(pattern: str) -> str:
    try:
        regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError) as error:
        raise ValueError(f"expected a regular expression, but: {error}") from None
    return pattern


Glob = Annotated[str, Field(min_length=1, max_length=MAX_GLOB_LENGTH)]
TextGlob = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_GLOB_LENGTH)]
Expression = Annotated[
    str, Field(min_length=1, max_length=MAX_REGEX_LENGTH), AfterValidator(_expression)
]
_RULE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:/ -]{0,63}$"
RuleName = Annotated[str, Field(pattern=_RULE_NAME)]
ScopeId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
# They stand in JSON and headers as they are.
_Printed = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/-]{1,128}$")]
_Script = Annotated[str, MaxLen(MAX_SCRIPT_LENGTH)]
_Tokens = Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)]


def is_rule_name(text: str) -> bool:
    """Tell whether a rule may be called so."""
    return regex.fullmatch(_RULE_NAME, text) is not None


class Entry(BaseModel):
    """The base of all that files of rules hold: no name but those that there are."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Match(Entry):
    """The conditions of a rule, all of which must match; texts are globs."""

    model: Glob | None = None
    path: Glob | None = None
    stream: bool | None = Field(None, strict=True)
    user: Glob | None = None
    api_key: Glob | None = Field(None, description="of its sha256 in small hex digits")
    header: Annotated[dict[str, Glob], MaxLen(MAX_HEADERS)] | None = None
    text: TextGlob | None = Field(None, description="of the last user message, folded")
    text_regex: Expression | None = Field(None, description="found in the last user message")
    system: TextGlob | None = Field(None, description="of the instructions, folded")
    tool_result: TextGlob | None = Field(None, description="of the last tool result, folded")
    has_tool_result: bool | None = Field(None, strict=True)
    tools: Glob | None = Field(None, description="of a tool's name that is offered")
    turn: int | None = Field(None, ge=0, strict=True, description="assistant messages before")


class ScriptedCall(Entry):
    """A tool call; arguments that are a text are sent as they stand."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    arguments: Any = {}
    id: _Printed | None = None
    offered: bool = Field(True, strict=True)


class ScriptedPart(Entry):
    """One part of an answer that has an order of its own."""

    text: _Script | None = None
    reasoning: _Script | None = None
    refusal: _Script | None = None
    tool_call: ScriptedCall | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("expected one of text, reasoning, refusal and tool_call")
        return self


class ScriptedUsage(Entry):
    """Figures that stand in place of the true ones."""

    prompt_tokens: _Tokens | None = None
    completion_tokens: _Tokens | None = None
    total_tokens: _Tokens | None = None
    cached_tokens: _Tokens | None = None
    reasoning_tokens: _Tokens | None = None


class Scripted(Entry):
    """What one answer says."""

    text: _Script | None = None
    reasoning: _Script | None = None
    refusal: _Script | None = None
    json_value: Any = Field(None, alias="json")
    tool_calls: Annotated[
        tuple[ScriptedCall, ...] | None, Field(min_length=1, max_length=MAX_TOOL_CALLS)
    ] = None
    parts: Annotated[
        tuple[ScriptedPart, ...] | None, Field(min_length=1, max_length=MAX_TOOL_CALLS)
    ] = None
    embedding: Annotated[tuple[float, ...] | None, Field(min_length=1, max_length=MAX_NUMBERS)] = (
        None
    )
    finish_reason: FinishReason | None = None
    usage: ScriptedUsage | None = None
    id: _Printed | None = None
    model: Annotated[str, Field(min_length=1, max_length=MAX_LABEL_LENGTH)] | None = None
    system_fingerprint: _Printed | None = None
    service_tier: _Printed | None = None
    template: bool = Field(True, strict=True)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        given = self.model_fields_set
        said = sorted(given & {"text", "refusal", "json_value"})
        if len(said) > 1:
            raise ValueError(f"expected no {_shown(said[1])} beside {_shown(said[0])}")
        for alone in ("parts", "embedding"):
            beside = sorted(given & CONTENT - {alone})
            if alone in given and beside:
                raise ValueError(f"expected no {_shown(beside[0])} beside {alone}")
        kinds = [next(iter(part.model_fields_set)) for part in self.parts or ()]
        if "reasoning" in kinds[kinds.count("reasoning") :]:
            raise ValueError("expected reasoning before the other parts")
        if "refusal" in kinds and "text" in kinds:
            raise ValueError("expected no text beside a refusal")
        if not given - {"template"}:
            raise ValueError("expected something that the answer says")
        return self

    @property
    def has_content(self) -> bool:
        """Whether the script sets the content of an answer, not only its metadata."""
        return not self.model_fields_set.isdisjoint(CONTENT)


CONTENT = {"text", "reasoning", "refusal", "json_value", "tool_calls", "parts", "embedding"}


def _shown(name: str) -> str:
    return name.removesuffix("_value")


AtEnd = Literal["repeat", "last", "pass"]


@dataclass(frozen=True)
class Rule:
    """One rule.

    Args:
        name: Its name, which no other has.
        match: What requests it is for.
        timing: The fields of timing and length that it says something about.
        fault: How requests fail, if they do.
        answers: What answers say, one match after the other.
        at_end: What comes after the last of several answers.
        times: How many matches it is for; None for all.
        after: How many matches come before those.
        every: Of so many matches it is for the last one.
        probability: How likely it is for a request that matches.
        scope: The scope that alone sees it; None for all.
        identity: Tells it, with all that it says, from others; counts are kept by it.
        counts: Whether its matches have to be counted.
    """

    name: str
    match: Match = field(default_factory=Match)
    timing: Mapping[str, Any] = field(default_factory=dict)
    fault: FaultRule | None = None
    answers: tuple[Scripted, ...] = ()
    at_end: AtEnd = "last"
    times: int | None = None
    after: int = 0
    every: int = 1
    probability: float = 1
    scope: str | None = None
    identity: str = ""
    counts: bool = False

    @property
    def says(self) -> frozenset[str]:
        """The names of all that it decides."""
        return frozenset(self.timing) | {
            name for name, said in (("fault", self.fault), ("answer", self.answers)) if said
        }

    @property
    def is_for_all(self) -> bool:
        """Whether the rule has no condition, so that it matches every request."""
        return (
            self.match == Match()
            and not self.after
            and self.times is None
            and self.every == 1
            and self.probability == 1
            and self.scope is None
        )
