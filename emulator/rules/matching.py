"""Which rules a request matches: an index that leaves few of them, and their conditions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import compress
from typing import Any, NamedTuple, TypeAlias

import regex

from emulator.faults.fault import chance_of
from emulator.rules.globs import Budget, Glob, found
from emulator.rules.model import Match, Rule
from emulator.rules.subject import Subject

MAX_REMEMBERED = 1024
_MAX_REMEMBERED_LENGTH = 128
# Between two looks at the clock: as many as take well under 0.1 ms, or as have so much text.
_RULES_AT_ONCE = 64
_TEXT_AT_ONCE = 1 << 18
MAX_SHOWN = 64

Look: TypeAlias = Callable[[Subject], Any]
Test: TypeAlias = Callable[[Any, Budget], bool]


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a rule.

    Args:
        name: Its name in the rule.
        expected: What is expected, as a message says it.
        look: Returns what is looked at.
        test: Tells whether that is as expected.
    """

    name: str
    expected: str
    look: Look
    test: Test

    def holds(self, subject: Subject, budget: Budget) -> bool:
        """Tell whether it holds."""
        return self.test(self.look(subject), budget)

    def came(self, subject: Subject) -> str:
        """Return what came, as a message says it."""
        return _shown(self.look(subject))


class Nearest(NamedTuple):
    """A rule that a request does not match, and the first of its conditions that does not hold."""

    rule: str
    condition: str
    expected: str
    came: str

    @property
    def told(self) -> str:
        """The same as a part of a message."""
        return f"'{self.rule}' ({self.condition}: expected {self.expected}, but got {self.came})"


class _Candidate(NamedTuple):
    """A rule whose model, path and stream are as it wants them.

    ``literals`` have to be in the texts of `_INDEXED` before its conditions are looked at.
    """

    place: int
    literals: Mapping[str, str]
    conditions: Sequence[Condition]


_Found: TypeAlias = tuple[Sequence[_Candidate], Mapping[str, Sequence[str]]]

# The texts whose globs are looked at for all candidates in one go, by a literal part of each.
_INDEXED = ("text", "system", "tool_result")


class Matcher:
    """Finds the rules that requests match.

    Args:
        rules: The rules.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._static = [list(_static(rule.match)) for rule in rules]
        self._candidates = [_candidate(index, rule) for index, rule in enumerate(rules)]
        self._remembered = lru_cache(MAX_REMEMBERED)(self._find)

    @property
    def remembered(self) -> int:
        """For how many models, paths and ways to answer the candidates are remembered."""
        return self._remembered.cache_info().currsize

    def match(self, subject: Subject, budget: Budget) -> list[int]:
        """Return the indices of the rules that a request matches.

        Raises:
            OverBudgetError: It takes too long.
        """
        ask, path = subject.ask, subject.seen.path
        is_short = len(ask.model) + len(path) <= _MAX_REMEMBERED_LENGTH
        find = self._remembered if is_short else self._find
        candidates, literals = find(ask.model, path, ask.stream)
        for name, column in literals.items():
            is_whole = len(column) == len(candidates)  # else some are gone by now
            wanted = column if is_whole else [each.literals[name] for each in candidates]
            text = getattr(subject, name) or ""
            candidates = _with_literal(candidates, wanted, text, budget)
        matched = []
        for number, (place, _, conditions) in enumerate(candidates):
            if not number % _RULES_AT_ONCE and number:
                budget.left_s()
            for condition in conditions:
                if not condition.test(condition.look(subject), budget):
                    break
            else:
                matched.append(place)
        return matched

    def _find(self, model: str, path: str, stream: bool) -> "_Found":
        """Return the candidates for a request, and their literals in each text that has some."""
        budget = Budget(1)
        seen = {"model": model, "path": path, "stream": stream}
        candidates = [
            self._candidates[index]
            for index, conditions in enumerate(self._static)
            if all(c.test(seen[c.name], budget) for c in conditions)
        ]
        columns = {name: [each.literals[name] for each in candidates] for name in _INDEXED}
        return candidates, {name: column for name, column in columns.items() if any(column)}

    def nearest(self, subject: Subject, budget: Budget, most: int = 3) -> list[Nearest]:
        """Return the rules with an answer that a request comes nearest to, but does not match.

        Raises:
            OverBudgetError: It takes too long.
        """
        missed: list[tuple[int, int, int, Nearest]] = []
        for index, rule in enumerate(self._rules):
            if not rule.answers:
                continue
            budget.left_s()
            conditions = list(conditions_of(rule))
            failed = [each for each in conditions if not each.holds(subject, budget)]
            if failed:
                first = failed[0]
                near = Nearest(
                    rule.name, f"match.{first.name}", first.expected, first.came(subject)
                )
                missed.append((len(failed), -len(conditions), index, near))
        # The fewest that do not hold, then the most that do, then the first.
        return [near for *_, near in sorted(missed)[:most]]


def _with_literal(
    candidates: Sequence[_Candidate], literals: Sequence[str], text: str, budget: Budget
) -> Sequence[_Candidate]:
    """Return the candidates whose literal is in a text."""
    budget.plan(len(candidates) * len(text))
    at_once = max(_TEXT_AT_ONCE // (len(text) + 1), 1)
    if len(candidates) <= at_once:
        return list(compress(candidates, map(text.__contains__, literals)))
    kept: list[_Candidate] = []
    for at in range(0, len(candidates), at_once):
        budget.left_s()
        those = slice(at, at + at_once)
        kept += compress(candidates[those], map(text.__contains__, literals[those]))
    return kept


def _candidate(index: int, rule: Rule) -> _Candidate:
    globs = {name: Glob(getattr(rule.match, name) or "*") for name in _INDEXED}
    decided = {name for name in _INDEXED if globs[name].literal and not globs[name].needs_more}
    conditions = [each for each in _dynamic(rule) if each.name not in decided]
    return _Candidate(index, {name: glob.literal for name, glob in globs.items()}, conditions)


# --------------------------------------------------------------------------------------
# Conditions
# --------------------------------------------------------------------------------------


def conditions_of(rule: Rule) -> Iterator[Condition]:
    """Yield all conditions of a rule, in the order in which they are looked at."""
    yield from _static(rule.match)
    yield from _dynamic(rule)


def _static(match: Match) -> Iterator[Condition]:
    """Yield the conditions that hold alike for many requests."""
    if match.model is not None:
        yield _glob("model", match.model, lambda subject: subject.ask.model)
    if match.path is not None:
        yield _glob("path", match.path, lambda subject: subject.seen.path)
    if match.stream is not None:
        yield _equal("stream", match.stream, lambda subject: subject.ask.stream)


def _dynamic(rule: Rule) -> Iterator[Condition]:
    """Yield the conditions that are looked at for each request, the cheap ones first."""
    match = rule.match
    if rule.scope is not None:
        yield _equal("scope", rule.scope, lambda subject: subject.scope)
    for name, look in _VALUES.items():
        if (wanted := getattr(match, name)) is not None:
            yield _equal(name, wanted, look)
    for name, pattern in (match.header or {}).items():
        yield _glob(f"header.{name}", pattern, partial(_header, name.lower()))
    if match.tools is not None:
        yield Condition("tools", f"'{match.tools}'", _tools, partial(_any, Glob(match.tools)))
    for name, look in _TEXTS.items():
        if (pattern := getattr(match, name)) is not None:
            yield _glob(name, pattern, look)
    if match.text_regex is not None:
        expression = regex.compile(match.text_regex)
        yield Condition(
            "text_regex",
            f"'{match.text_regex[:MAX_SHOWN]}'",
            lambda subject: subject.raw_text,
            lambda text, budget: found(expression, text, budget),
        )
    if rule.probability < 1:
        yield Condition(
            "probability",
            f"a chance of {rule.probability:g}",
            partial(_chance, rule.name),
            lambda chance, _: bool(chance < rule.probability),
        )


_VALUES: Mapping[str, Look] = {
    "turn": lambda subject: subject.conversation.turn,
    "has_tool_result": lambda subject: subject.conversation.tool_result is not None,
}
_TEXTS: Mapping[str, Look] = {
    "user": lambda subject: subject.ask.user,
    "api_key": lambda subject: subject.seen.key,
    "text": lambda subject: subject.text,
    "system": lambda subject: subject.system,
    "tool_result": lambda subject: subject.tool_result,
}


def _glob(name: str, pattern: str, look: Look) -> Condition:
    matches = Glob(pattern).matches
    return Condition(
        name,
        f"'{pattern[:MAX_SHOWN]}'",
        look,
        lambda text, budget: text is not None and matches(text, budget),
    )


def _equal(name: str, wanted: object, look: Look) -> Condition:
    return Condition(name, _shown(wanted), look, lambda value, _: bool(value == wanted))


def _header(field: str, subject: Subject) -> str | None:
    return subject.seen.headers.get(field)


def _tools(subject: Subject) -> list[str]:
    return list(subject.tools)


def _any(glob: Glob, names: Sequence[str], budget: Budget) -> bool:
    return any(glob.matches(name, budget) for name in names)


def _chance(name: str, subject: Subject) -> float:
    return chance_of(f"rule {name}", subject.seen.attempt, subject.ask.seed).random()


def _shown(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case str():
            return (
                f"'{value[:MAX_SHOWN]}'" if len(value) <= MAX_SHOWN else f"'{value[:MAX_SHOWN]}...'"
            )
        case list():
            return ", ".join(f"'{item}'" for item in value[:8]) or "none"
        case float():
            return f"{value:.3g}"
        case _:
            return str(value)
