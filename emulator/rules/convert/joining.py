"""From fixtures to one list of rules, of which the first that matches decides all, as there."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from emulator.rules.convert.conditions import (
    EMBEDDINGS_PATH,
    TEXTS_PATH,
    conditions_of,
    sequence_of,
)
from emulator.rules.convert.files import Json, Source, UnsaidError
from emulator.rules.convert.saying import breaks_of, saying_of, timing_of
from emulator.rules.model import MAX_RULES
from emulator.rules.reading import RulesError, check_rules
from emulator.settings import Settings

_FIELDS = {
    *("match", "response", "latency", "streamingProfile", "recordedTimings", "replaySpeed"),
    *("chunkSize", "chaos", "disconnectAfterMs", "truncateAfterChunks"),
    "metadata",  # of a recording, which decides nothing
}
_NO_FAULT = {"kind": "status", "probability": 0}
_MAX_NAME = 48  # with room for what tells its rules apart


@dataclass
class Converted:
    """The rules that were made.

    Args:
        rules: The rules to join.
        unsaid: What rules cannot say, each with its place and why.
    """

    rules: list[dict[str, Any]] = field(default_factory=list)
    unsaid: list[str] = field(default_factory=list)


def convert(found: Iterable[Source | str]) -> Converted:
    """Return the rules of fixtures; a fixture whose match or answer rules cannot say has none."""
    converted = Converted()
    made: list[tuple[int | None, dict[str, Any]]] = []
    for each in found:
        if isinstance(each, str):
            converted.unsaid.append(each)
            continue
        of_fixture, unsaid = _of_fixture(each)
        made += of_fixture
        converted.unsaid += [f"{each.place(place)}: {why}" for place, why in unsaid]
    rules = [rule for _, rule in _in_sequence(made)]
    _isolate(rules)
    if len(rules) > MAX_RULES:
        converted.unsaid.append(f"{len(rules)} rules: a server takes {MAX_RULES} at most")
    converted.rules = rules
    return converted


def _of_fixture(
    source: Source,
) -> tuple[list[tuple[int | None, dict[str, Any]]], list[tuple[str, str]]]:
    """Return the rules of a fixture, with its place in a sequence, and what they do not say."""
    unsaid: list[tuple[str, str]] = []
    data = source.data

    def note(place: str, why: str) -> None:
        unsaid.append((place, why))

    try:
        conditions = conditions_of(data.get("match"))
        sequence = sequence_of(data["match"])
        said = saying_of(data.get("response"), note)
        for name in data:
            if name not in _FIELDS:
                note(name, "it is not known")
        main = {"match": conditions, **timing_of(data, note), **said}
        breaks = breaks_of(data, note)
        if sequence is not None:
            main["times"] = 1
            if breaks:
                note("match.sequenceIndex", "beside it nothing fails by chance or breaks off")
                breaks = []
        rules = [*_failing(breaks, conditions), main]
        if sequence is None and "model" in conditions:
            rules += [_dated(rule) for rule in rules]
        _name(rules, source)
        _check(rules)
    except UnsaidError as error:
        return [], [(error.field, error.why)]
    except (TypeError, AttributeError, ValueError) as error:
        return [], [("", f"expected other types of values: {error}")]
    return [(sequence, rule) for rule in rules], unsaid


def _failing(breaks: Sequence[Json], conditions: Json) -> list[dict[str, Any]]:
    rules = []
    for each in breaks:
        streams = {"stream": True} if each.get("stream") else {}
        said = {name: value for name, value in each.items() if name != "stream"}
        rules.append({"match": {**conditions, **streams}, **said})
    return rules


def _dated(rule: Json) -> dict[str, Any]:
    """Return a rule for the same model with a date: aimock takes both for one."""
    match = rule["match"]
    return {**rule, "match": {**match, "model": f"{match['model']}-[0-9]*"}}


def _name(rules: Sequence[dict[str, Any]], source: Source) -> None:
    stem = re.sub(r"[^A-Za-z0-9._:/ -]", "-", source.file.removesuffix(".json"))
    stem = re.sub(r"^[^A-Za-z0-9]+", "", stem[-_MAX_NAME:]) or "fixture"
    for number, rule in enumerate(rules):
        name = f"{stem}:{source.index}" + (f".{number}" if number else "")
        match = rule.pop("match")
        said = dict(rule)
        rule.clear()
        rule |= {"name": name, **({"match": match} if match else {}), **said}


def _check(rules: Sequence[Json]) -> None:
    """Check the rules of a fixture as a server does.

    Raises:
        UnsaidError: It is none that a server takes.
    """
    try:
        json.dumps(rules, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UnsaidError("", "a text holds half of a character") from None
    try:
        check_rules(list(rules), Settings(), {})
    except RulesError as error:
        place = re.sub(r"^rules\[\d+\]\.?", "", error.param)
        raise UnsaidError("", f"as a rule, {place}: {error.problem}") from None


def _in_sequence(
    made: Sequence[tuple[int | None, dict[str, Any]]],
) -> list[tuple[int | None, dict[str, Any]]]:
    """Return the rules with each sequence in its order, within the positions it occupies."""
    places: dict[str, list[int]] = {}
    for place, (sequence, rule) in enumerate(made):
        if sequence is not None:
            places.setdefault(json.dumps(rule.get("match", {}), sort_keys=True), []).append(place)
    ordered = list(made)
    for those in places.values():
        in_order = sorted((made[place] for place in those), key=lambda each: each[0] or 0)
        for place, each in zip(those, in_order, strict=True):
            ordered[place] = each
    return ordered


def _isolate(rules: Sequence[dict[str, Any]]) -> None:
    """Have each rule that answers say all that any says, so that rules after it decide nothing."""
    timing: dict[str, Any] = {}
    for rule in rules:
        timing |= {name: 0 for name in ("ttft_ms", "itl_ms") if name in rule}
        timing |= {n: "uniform:0" for n in ("ttft_jitter", "itl_jitter") if n in rule}
    has_vectors = any("embedding" in rule.get("answer", {}) for rule in rules)
    fails_later = False
    for rule in reversed(rules):
        fails = "fault" in rule
        if answer := rule.get("answer"):
            path = EMBEDDINGS_PATH if "embedding" in answer else TEXTS_PATH
            if has_vectors and not fails:
                rule["match"] = {"path": path, **rule.get("match", {})}
            for name, value in timing.items():
                rule.setdefault(name, value)
            if fails_later and not fails:
                rule["fault"] = dict(_NO_FAULT)
        fails_later = fails_later or fails
