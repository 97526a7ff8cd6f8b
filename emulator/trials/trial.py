"""Which rules a request would match, and the first condition of each that fails. Pure."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from emulator.answers.ask import Ask
from emulator.apis.api import TextAPI
from emulator.contract.errors import APIError
from emulator.control.changes.refusals import refused_at
from emulator.emulation.asked import Asked, read_asked
from emulator.emulation.header_fields import FAULT_NAMES, HEADERS_BY_FIELD, given_headers
from emulator.limits.keys import key_of
from emulator.reading.bodies import parse_any_body
from emulator.reading.judging import HELPER_S
from emulator.rules.globs import Budget
from emulator.rules.matching import conditions_of
from emulator.rules.model import Rule
from emulator.rules.ruleset import Rules
from emulator.rules.subject import Seen, Subject, TextConversation, checked_scope
from emulator.settings import Settings

MAX_BODY_BYTES = 65_536
MAX_HEADERS = 64
MAX_HEADER_LENGTH = 4096
# The conditions that the journal's row of a request answers, whatever was said in it.
OF_ROWS = frozenset({"model", "path", "stream", "scope"})

Apis = Mapping[str, TextAPI[Any]]
"""The APIs of texts, by path."""


class TriedRequest(BaseModel):
    """A request as a client would send it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    path: str = Field("/v1/chat/completions", max_length=1024)
    headers: Annotated[
        dict[str, Annotated[str, Field(max_length=MAX_HEADER_LENGTH)]],
        Field(max_length=MAX_HEADERS),
    ] = {}
    body: dict[str, Any] = Field(description=f"at most {MAX_BODY_BYTES} bytes of JSON")


class Trial(BaseModel):
    """What is tried: the rules in force, or one that is not, against a request."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str | None = Field(None, max_length=128, description="of a request in the journal")
    request: TriedRequest | None = Field(None, description="in the place of an id")
    rule: dict[str, Any] | None = Field(
        None, description="tried before the rules in force, in the place of the one of its name"
    )


class TriedRule(BaseModel):
    """What a rule makes of a request."""

    name: str
    matches: bool | None = Field(description="null where the journal does not hold what decides it")
    condition: str = Field("", description="the first that fails, or cannot be told")
    expected: str = ""
    came: str = ""
    chance: float = Field(1, description="its probability, which is not drawn here")
    decides: list[str] = Field([], description="what it says that nothing before it says for sure")
    decided_before: dict[str, str] = Field({}, description="the rest, and who says it")


class TrialResult(BaseModel):
    """What each rule makes of a request, in their order."""

    revision: int
    rules: list[TriedRule]


class Tried(NamedTuple):
    """A request as rules see it.

    Args:
        subject: The request to try.
        decided: By each field that the client has decided, where it says so.
        known: The conditions that can be told; None for all.
    """

    subject: Subject
    decided: Mapping[str, str]
    known: frozenset[str] | None = None


def of_row(path: str, model: str, scope: str, *, stream: bool) -> Tried:
    """Return a request of which no more is known than the journal's row tells."""
    ask = Ask(model, stream=stream)
    return Tried(Subject(Seen(path), ask, TextConversation([]), scope), {}, OF_ROWS)


def of_request(
    apis: Apis, request: tuple[str, Mapping[str, str], bytes], rules: Rules, settings: Settings
) -> Tried:
    """Return a whole request.

    Args:
        apis: Those that read requests.
        request: The path, the headers and the body.
        rules: Those that are tried.
        settings: The operator's.

    Raises:
        APIError: It is none that an API takes.
    """
    path, headers, body = request
    api = apis.get(path)
    if api is None:
        expected = ", ".join(apis)
        raise refused_at(("request", "path"), f"expected one of {expected}, but got '{path:.128}'")
    if len(body) > MAX_BODY_BYTES:
        raise refused_at(
            ("request", "body"), f"expected at most {MAX_BODY_BYTES} bytes, but got {len(body)}"
        )
    fields = {
        name.lower().encode("latin-1", "replace"): value.encode() for name, value in headers.items()
    }
    try:
        given = given_headers(tuple(fields.items()), fields)
        parsed = parse_any_body(body, api.body, default_model=settings.models[0])
        asked = read_asked(given, parsed)
        reading = api.read(parsed, lenient=settings.lenient)
    except APIError as error:
        error.body.message = f"Invalid 'request': {error.body.message}"
        raise
    lowered = {name.lower(): value for name, value in headers.items()}
    key = key_of(lowered.get("authorization"))
    seen = rules.see(path, lambda name: lowered.get(name.decode()), key, 0)
    scope = asked.emulation.emulation_scope or checked_scope(seen.scope)
    decided = {name: _source(name, asked) for name in asked.decided}
    return Tried(Subject(seen, reading.ask, api.conversation(parsed), scope), decided)


def _source(name: str, asked: Asked) -> str:
    """Return where the client says something."""
    headers = FAULT_NAMES if name == "fault" else {HEADERS_BY_FIELD[name]}
    return "the header" if headers.isdisjoint(asked.places) else "the body"


def tried(rules: Sequence[Rule], request: Tried) -> list[TriedRule]:
    """Return what each rule makes of a request; nothing is counted or drawn."""
    budget, decided = Budget(HELPER_S), dict(request.decided)
    results = []
    for rule in rules:
        result = _tried(rule, request, budget)
        if result.matches:
            result.decides = sorted(name for name in rule.says if name not in decided)
            result.decided_before = {
                name: decided[name] for name in sorted(rule.says) if name in decided
            }
            if not rule.counts and rule.probability == 1:
                decided |= dict.fromkeys(result.decides, rule.name)
        results.append(result)
    return results


def _tried(rule: Rule, request: Tried, budget: Budget) -> TriedRule:
    """Return whether a rule matches; a condition that fails counts before one that is unknown."""
    unknown = ""
    for condition in conditions_of(rule):
        if condition.name == "probability":
            continue
        if request.known is not None and condition.name not in request.known:
            unknown = unknown or condition.name
        elif not condition.holds(request.subject, budget):
            return TriedRule(
                name=rule.name,
                matches=False,
                condition=condition.name,
                expected=condition.expected,
                came=condition.came(request.subject),
                chance=rule.probability,
            )
    matches = None if unknown else True
    return TriedRule(name=rule.name, matches=matches, condition=unknown, chance=rule.probability)
