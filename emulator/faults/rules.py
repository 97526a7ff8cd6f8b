"""faults.yaml: which requests fail, and how."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, model_validator

from emulator.faults.asking import AfterTokens, Wish, contradiction
from emulator.yaml_files import Document

MAX_RULES = 1000

_Glob = Annotated[str, Field(min_length=1, max_length=256)]


class Span(BaseModel):
    """A uniformly distributed number of tokens, ends included."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: AfterTokens
    max: AfterTokens

    @model_validator(mode="after")
    def _is_a_span(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"expected a min of at most max ({self.max}), but got {self.min}")
        return self


def _span(value: object) -> object:
    """Turn a number into a span with equal ends."""
    is_number = isinstance(value, int | float | str) and not isinstance(value, bool)
    return {"min": value, "max": value} if is_number else value


class Match(BaseModel):
    """The conditions of a rule, all of which have to hold; texts are globs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: _Glob | None = None
    path: _Glob | None = None
    user: _Glob | None = None
    api_key: _Glob | None = Field(None, description="of its sha256 in small hex digits")
    stream: bool | None = Field(None, strict=True)


class Rule(Wish):
    """One entry of the file."""

    model_config = ConfigDict(extra="forbid")

    match: Match = Match()
    after_tokens: Annotated[Span | None, BeforeValidator(_span)] = None


RULES = TypeAdapter(Annotated[tuple[Rule, ...], Field(max_length=MAX_RULES)])


def read_rules(path: Path) -> tuple[Rule, ...]:
    """Read a file of rules.

    Raises:
        ConfigError: The file is invalid.
    """
    document = Document(path, RULES)
    if found := contradicting(document.content):
        raise document.error(*found)
    return document.content


def contradicting(rules: Sequence[Rule]) -> tuple[tuple[int | str, ...], str] | None:
    """Return the place of a rule's field that contradicts another, and what is wrong with it."""
    for index, rule in enumerate(rules):
        if found := contradiction(rule, str):
            field, problem = found
            return (index, field), problem
    return None
