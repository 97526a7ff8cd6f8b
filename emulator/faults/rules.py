"""faults.yaml: which requests fail, and how. Errors name file and line."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import yaml  # type: ignore[import-untyped]  # ships no types
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from emulator.faults.asking import AfterTokens, Wish, contradiction

MAX_RULES = 1000

_Glob = Annotated[str, Field(min_length=1, max_length=256)]


class RulesError(ValueError):
    """A file of rules that cannot be used; the message names it, the line and what is wrong."""


class Span(BaseModel):
    """A number of tokens that is drawn evenly, both ends included."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: AfterTokens
    max: AfterTokens

    @model_validator(mode="after")
    def _is_a_span(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"expected a min of at most max ({self.max}), but got {self.min}")
        return self


def _span(value: object) -> object:
    """Take a number for a span of it alone."""
    is_number = isinstance(value, int | float | str) and not isinstance(value, bool)
    return {"min": value, "max": value} if is_number else value


class Match(BaseModel):
    """What requests a rule is for: all that is given has to match; texts are globs."""

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


_RULES = TypeAdapter(Annotated[tuple[Rule, ...], Field(max_length=MAX_RULES)])


def read_rules(path: Path) -> tuple[Rule, ...]:
    """Read a file of rules.

    Raises:
        RulesError: It cannot be read, or is no list of rules.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, yaml.SafeLoader)
        data = yaml.safe_load(text)
    except OSError as error:
        raise RulesError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RulesError(f"{path}: expected text in UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RulesError(f"{path}, line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise RulesError(f"{path}: {error}") from None
    try:
        rules = _RULES.validate_python(data)
    except ValidationError as error:
        place, problem = _first(error)
        raise _error(path, root, place, problem) from None
    for index, rule in enumerate(rules):
        if found := contradiction(rule, str):
            raise _error(path, root, (index, found[0]), found[1])
    return rules


def _error(
    path: Path, root: yaml.Node | None, place: Sequence[int | str], problem: str
) -> RulesError:
    fields = ".".join(str(part) for part in place if isinstance(part, str))
    where = f"{path}, line {_line(root, place)}"
    return RulesError(f"{where}: {fields}: {problem}" if fields else f"{where}: {problem}")


def _first(error: ValidationError) -> tuple[Sequence[int | str], str]:
    """Return where the first fault is and what is wrong there, in terms of the file."""
    details = error.errors(include_url=False)[0]
    place = details["loc"]
    match details["type"]:
        case "extra_forbidden":
            return place, "there is no such field"
        case "missing":
            return place, "it is missing"
        case "model_type":
            return place, "expected fields with values"
        case "tuple_type":
            return place, "expected a list of rules"
    problem = details["msg"].removeprefix("Value error, ")
    if isinstance(details["input"], str | int | float):
        problem += f", but got {details['input']!r}"
    return place, problem


def _line(node: yaml.Node | None, place: Sequence[int | str]) -> int:
    """Return the line of a place, or of the last part of it that the file has."""
    line = 1
    for part in place:
        found = next((child for name, *child in _children(node) if name == part), None)
        if found is None:
            break
        mark, node = found
        line = mark.start_mark.line + 1
    return line


def _children(node: Any) -> Iterator[tuple[int | str, yaml.Node, yaml.Node]]:  # noqa: ANN401
    """Yield the key or index of each part, the node that marks its line, and its node."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield str(key.value), key, value
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield index, value, value
