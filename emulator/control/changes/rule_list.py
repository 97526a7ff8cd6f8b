"""The list of rules as data: read, named, changed rule by rule, and the seam to what checks it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from pydantic_core import from_json, to_json

from emulator.contract.error_words import invalid_type, path_of
from emulator.control.changes.refusals import refused_at, unknown_name
from emulator.rules.model import MAX_RULES, is_rule_name
from emulator.rules.reading import RulesError, check_rules
from emulator.rules.ruleset import Rules
from emulator.settings import Settings
from emulator.timing.jitter import Floats

MAX_TTL_S = 30 * 86_400


Place: TypeAlias = Sequence[int | str]


def _in_list(place: Place) -> Place:
    return ("rules", *place)


class Entry(NamedTuple):
    """A rule as data, and when it ends by itself, on ``time.time()``; None for never."""

    data: Mapping[str, Any]
    expires_at: float | None = None


def packed(entries: Sequence[Entry]) -> bytes:
    """Return rules as the document of changes holds them."""
    return to_json([[entry.data, entry.expires_at] for entry in entries])


def unpacked(text: bytes) -> list[Entry]:
    """Return the rules that a document of changes holds."""
    return [Entry(*entry) for entry in from_json(text)]


def as_data(rules: Rules | None) -> list[Entry]:
    """Return rules that were read from a file as the data that says the same."""
    return [] if rules is None else [Entry(said) for said in rules.source]


def read(
    entries: Sequence[Entry],
    settings: Settings,
    traces: Mapping[str, Floats],
    place: Callable[[Place], Place] = _in_list,
) -> Rules:
    """Return the rules that some data says.

    Args:
        entries: The data.
        settings: Say how long an answer may be.
        traces: The gaps of each trace, by name.
        place: Returns where something stands in the body; it is given its place in the list.

    Raises:
        APIError: One is not good; it names the rule by its place, and the field by its path.
    """
    try:
        return check_rules([entry.data for entry in entries], settings, traces)
    except RulesError as error:
        raise refused_at(place(error.place), error.problem) from None


def listed(body: object, now: float) -> list[Entry]:
    """Return the rules of a body, a list of objects, each with a name of its own.

    Args:
        body: The list.
        now: The time from which on `ttl_s` counts, on ``time.time()``.

    Raises:
        APIError: It is no such list, or has a name twice.
    """
    if not isinstance(body, list):
        raise invalid_type(body, "an array", "rules")
    if len(body) > MAX_RULES:
        raise refused_at(("rules",), f"expected at most {MAX_RULES} rules, but got {len(body)}")
    places: dict[str, int] = {}
    entries = []
    for index, data in enumerate(body):
        entry = timed(data, now, ("rules", index))
        name = entry.data.get("name", f"rule-{index + 1}")
        if name in places:
            raise refused_at(
                ("rules", index, "name"), f"rules[{places[name]}] has the name '{name}' too"
            )
        places[name] = index
        entries.append(entry._replace(data={"name": name, **entry.data}))
    return entries


def timed(data: object, now: float, place: Sequence[int | str]) -> Entry:
    """Return one rule of a body, and when it ends.

    Raises:
        APIError: It is no object, or its name or ``ttl_s`` are none.
    """
    if not isinstance(data, Mapping):
        raise invalid_type(data, "an object", path_of(place))
    rule = dict(data)
    name, ttl_s = rule.get("name"), rule.pop("ttl_s", None)
    if name is not None:
        check_name(name, (*place, "name"))
    if ttl_s is None:
        return Entry(rule)
    is_number = isinstance(ttl_s, int | float) and not isinstance(ttl_s, bool)
    if not is_number or not 0 < ttl_s <= MAX_TTL_S:
        raise refused_at(
            (*place, "ttl_s"),
            f"expected a number of seconds above 0 and up to {MAX_TTL_S}, but got {ttl_s!r:.64}",
        )
    return Entry(rule, now + ttl_s)


def check_name(name: object, place: Sequence[int | str]) -> None:
    """Refuse a name that no rule can have.

    Raises:
        APIError: It is no such text.
    """
    if not isinstance(name, str) or not is_rule_name(name):
        raise refused_at(
            place,
            "expected 1 to 64 of letters, digits, blanks and ._:/-, with a letter or digit first, "
            f"but got {name!r:.80}",
        )


def refuse_other_name(entry: Entry, name: str) -> None:
    """Refuse a rule whose name differs from the name in the path.

    Raises:
        APIError: It has another.
    """
    own = entry.data.get("name", name)
    if own != name:
        raise refused_at(("name",), f"expected '{name}', as in the path, but got '{own:.80}'")


def index_of(entries: Sequence[Entry], name: str, param: str = "name") -> int:
    """Return where the rule of a name is.

    Raises:
        APIError: There is none, 404.
    """
    names = [str(entry.data["name"]) for entry in entries]
    if name not in names:
        raise unknown_name(name, names, "rule", param)
    return names.index(name)


def placed(entries: Sequence[Entry], entry: Entry, before: str | None) -> list[Entry]:
    """Return rules with one that is new, or in the place of the one of its name.

    Args:
        entries: The rules.
        entry: The one to place, with its name.
        before: The rule before which it comes; None to leave it where it is, or put it first.

    Raises:
        APIError: There is no rule `before`, or it is this one.
    """
    name = entry.data["name"]
    names = [each.data["name"] for each in entries]
    if before is None:
        if name in names:
            return [entry if each.data["name"] == name else each for each in entries]
        return [entry, *entries]
    others = [each for each in entries if each.data["name"] != name]
    at = index_of(others, before, "before")
    return [*others[:at], entry, *others[at:]]


def alive(entries: Sequence[Entry], now: float) -> list[Entry]:
    """Return the rules that have not ended."""
    return [each for each in entries if each.expires_at is None or each.expires_at > now]


def shown(entries: Sequence[Entry], now: float) -> list[dict[str, Any]]:
    """Return rules in the shape that a body has."""
    return [shown_one(entry, now) for entry in entries]


def shown_one(entry: Entry, now: float) -> dict[str, Any]:
    """Return one rule in the shape that a body has."""
    if entry.expires_at is None:
        return dict(entry.data)
    return {**entry.data, "ttl_s": round(max(entry.expires_at - now, 0.001), 3)}
