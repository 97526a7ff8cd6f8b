"""Rules from a file, or as plain data: checked, with errors that name rule and field."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError, create_model, field_validator

from emulator.contract.error_words import placed
from emulator.contract.errors import APIError
from emulator.emulation.header_fields import HEADERS_BY_FIELD, check_headers, header_text
from emulator.faults.asking import FaultRule, contradiction
from emulator.faults.fault import kind_of
from emulator.rules.model import (
    MAX_ANSWERS,
    MAX_COUNT,
    MAX_RULES,
    TIMING_FIELDS,
    AtEnd,
    Entry,
    Match,
    Rule,
    RuleName,
    ScopeId,
    Scripted,
)
from emulator.rules.ruleset import Rules
from emulator.rules.scripting import sources_of
from emulator.rules.templates import TemplateError, compiled
from emulator.settings import Settings
from emulator.timing.jitter import Floats, Jitter
from emulator.yaml_files import Document, Place, explained

_Count = Annotated[int, Field(ge=1, le=MAX_COUNT, strict=True)]


class _RuleEntry(Entry):
    """A rule as it stands in a file; fields of timing are checked as headers are."""

    name: RuleName | None = None
    enabled: bool = Field(True, strict=True)
    match: Match = Match()
    times: _Count | None = None
    after: Annotated[int, Field(ge=0, le=MAX_COUNT, strict=True)] = 0
    every: _Count = 1
    probability: Annotated[float, Field(ge=0, le=1)] = 1
    scope: ScopeId | None = None
    at_end: AtEnd | None = None
    fault: FaultRule | None = None
    answer: Annotated[tuple[Scripted, ...] | None, Field(min_length=1, max_length=MAX_ANSWERS)] = (
        None
    )

    @field_validator("answer", mode="before")
    @classmethod
    def _is_listed(cls, value: object) -> object:
        return [value] if isinstance(value, dict) else value


_ENTRY = create_model(  # type: ignore[call-overload]
    "RuleEntry", __base__=_RuleEntry, **dict.fromkeys(TIMING_FIELDS, (Any, None))
)
_RULES: TypeAdapter[tuple[_RuleEntry, ...]] = TypeAdapter(
    Annotated[tuple[_ENTRY, ...], Field(max_length=MAX_RULES)]
)


class RulesError(ValueError):
    """Data is not a valid list of rules.

    Args:
        place: The keys and indices that lead to what is at fault.
        problem: What was expected there, and what came.
        name: The rule's name; empty if it is no rule's fault.
    """

    def __init__(self, place: Place, problem: str, name: str = "") -> None:
        path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place)
        self.param = f"rules{path}"
        self.place, self.problem, self.name = place, problem, name
        super().__init__(f"{self.param}{f' ({name})' if name else ''}: {problem}")


def read_rules(path: Path, settings: Settings, traces: Mapping[str, Floats]) -> Rules:
    """Read a file of rules.

    Args:
        path: The file.
        settings: Say how long an answer may be.
        traces: The gaps of each trace, by name.

    Raises:
        ConfigError: It cannot be read, or is no list of rules.
    """
    document = Document(path, _RULES, name=_name_of)
    try:
        return _rules(document.content, settings, traces)
    except RulesError as error:
        raise document.error(error.place, error.problem) from None


def check_rules(data: object, settings: Settings, traces: Mapping[str, Floats]) -> Rules:
    """Return the rules that some plain data holds, as a file would.

    Raises:
        RulesError: It is no list of rules.
    """
    try:
        content = _RULES.validate_python(data)
    except ValidationError as error:
        place, problem = explained(error, _RULES)[0]
        first, entries = place[0] if place else None, data if isinstance(data, list) else []
        is_entry = isinstance(first, int) and first < len(entries)
        name = _name_of(entries[int(first)], int(first)) if first is not None and is_entry else ""
        raise RulesError(place, problem, name) from None
    return _rules(content, settings, traces)


def _name_of(entry: object, index: int) -> str:
    given = entry.get("name") if isinstance(entry, dict) else None
    return f"rule '{given if isinstance(given, str) and given else _default_name(index)}'"


def _default_name(index: int) -> str:
    return f"rule-{index + 1}"


def _rules(
    entries: Sequence[_RuleEntry], settings: Settings, traces: Mapping[str, Floats]
) -> Rules:
    rules: list[Rule] = []
    source: list[Mapping[str, Any]] = []
    places: dict[str, int] = {}
    for index, entry in enumerate(entries):
        try:
            said = entry.model_dump(mode="json", by_alias=True, exclude_unset=True)
            rule = _rule(entry, said, index, settings, traces)
        except RulesError as error:
            name = entry.name or _default_name(index)
            raise RulesError((index, *error.place), error.problem, f"rule '{name}'") from None
        if rule.name in places:
            raise RulesError(
                (index, *(("name",) if entry.name else ())),
                f"expected a name of its own, but rule {places[rule.name] + 1} is called so too",
                f"rule '{rule.name}'",
            )
        places[rule.name] = index
        if entry.enabled:
            rules.append(rule)
        source.append({"name": rule.name, **said})
    return Rules(tuple(rules), tuple(_warnings(rules)), source)


def _rule(
    entry: _RuleEntry,
    said: Mapping[str, Any],
    index: int,
    settings: Settings,
    traces: Mapping[str, Floats],
) -> Rule:
    answers = entry.answer or ()
    timing = _timing(entry, settings, traces)
    if entry.fault is not None and (found := contradiction(entry.fault, str)):
        raise RulesError(("fault", found[0]), found[1])
    if not (timing or entry.fault or answers):
        raise RulesError((), "it says nothing; expected a field of timing, a fault or an answer")
    if entry.at_end is not None and not answers:
        raise RulesError(("at_end",), "expected an answer beside it, but got none")
    numbered = False
    for place, answer in enumerate(answers):
        at = ("answer", place) if len(answers) > 1 else ("answer",)
        numbered = _check_templates(answer, at) or numbered
    counts = (
        entry.times is not None
        or entry.after > 0
        or entry.every > 1
        or len(answers) > 1
        or entry.at_end == "pass"
        or numbered
    )
    told = {field: value for field, value in said.items() if field != "enabled"}
    digest = hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=8)
    name = entry.name or _default_name(index)
    return Rule(
        name=name,
        match=entry.match,
        timing=timing,
        fault=entry.fault,
        answers=answers,
        at_end=entry.at_end or "last",
        times=entry.times,
        after=entry.after,
        every=entry.every,
        probability=entry.probability,
        scope=entry.scope,
        identity=f"{name} {digest.hexdigest()}",
        counts=counts,
    )


def _check_templates(answer: Scripted, at: Place) -> bool:
    """Compile the templates of an answer; return whether one asks for the match's number."""
    numbered = False
    for place, source in sources_of(answer):
        try:
            numbered = "n" in compiled(source).names or numbered
        except TemplateError as error:
            raise RulesError((*at, *place), str(error)) from None
    return numbered


def _timing(
    entry: _RuleEntry, settings: Settings, traces: Mapping[str, Floats]
) -> Mapping[str, Any]:
    headers: dict[str, str] = {}
    for name in filter(entry.model_fields_set.__contains__, TIMING_FIELDS):
        try:
            headers[HEADERS_BY_FIELD[name]] = _checked(name, getattr(entry, name), traces)
        except ValueError as error:
            raise RulesError((name,), str(error)) from None
    checked = check_headers(headers)
    length = settings.output_length if checked.output_length is None else checked.output_length
    tokens, most = length + (checked.reasoning_length or 0), settings.max_output_length
    if tokens > most:
        raise RulesError((), f"expected at most {most} tokens, but got {tokens}")
    return {
        name: getattr(checked, name) for name in TIMING_FIELDS if name in checked.model_fields_set
    }


def _checked(field: str, value: object, traces: Mapping[str, Floats]) -> str:
    """Return a field's value as its header says it.

    Raises:
        ValueError: It is not what the field takes.
    """
    text = header_text(value, field)
    if text is None:
        raise ValueError("expected one of a number, string or boolean")
    header = HEADERS_BY_FIELD[field]
    try:
        check_headers({header: text})
    except APIError as error:
        message = placed(error, {header: field}).body.message
        problem = message.removeprefix(f"Invalid '{field}': ").removesuffix(" instead.")
        raise ValueError(problem) from None
    if field.endswith("_jitter"):
        Jitter.parse(text, traces)
    return text


def _warnings(rules: Sequence[Rule]) -> Iterator[str]:
    """Yield for each rule that can never decide anything why it cannot."""
    by: dict[str, str] = {}
    for rule in rules:
        if all(name in by for name in rule.says):
            names = ", ".join(sorted({f"'{by[name]}'" for name in rule.says}))
            yield f"the rule '{rule.name}' never decides: {names} before it is for all requests"
        elif rule.is_for_all:
            by |= {name: rule.name for name in rule.says - set(by) if _is_sure(rule, name)}


def _is_sure(rule: Rule, name: str) -> bool:
    """Tell whether a rule for all requests decides a field of each."""
    match name:
        case "fault":
            return rule.fault is not None and kind_of(rule.fault).fits(
                stream=False, says_failed=False
            )
        case "answer":
            return not (len(rule.answers) > 1 and rule.at_end == "pass") and all(
                answer.text is not None for answer in rule.answers
            )
        case _:
            return True
