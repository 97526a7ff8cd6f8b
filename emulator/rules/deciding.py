"""From the rules that a request matches to what they decide of it."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from emulator.answers.ask import Ask
from emulator.contract.errors import APIError
from emulator.faults.asking import FaultRule
from emulator.faults.fault import kind_of
from emulator.rules.matching import Nearest
from emulator.rules.model import Rule, Scripted
from emulator.rules.subject import AnswerKind, Conversation


class Choice(NamedTuple):
    """The answer that a rule has for a request: the place of both, and which match this is."""

    rule: int
    answer: int
    number: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What rules decide of one request.

    Args:
        rules: The names of the rules that decided something.
        timing: The fields of timing and length.
        sources: By each of these fields, the name of its rule.
        fault: How the request fails, if it does.
        fault_rule: The rule that says so.
        choice: The answer, if a rule has one.
        exhausted: Rules that would have had an answer, but had no more.
    """

    rules: tuple[str, ...] = ()
    timing: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    fault: FaultRule | None = None
    fault_rule: str = ""
    choice: Choice | None = None
    exhausted: tuple[str, ...] = ()

    @property
    def has_answer(self) -> bool:
        """Whether a rule says what comes: an answer, or a failure."""
        return self.choice is not None or self.fault is not None


NOTHING = Decision()


class Abilities(NamedTuple):
    """What the answer to a request can hold.

    Args:
        kind: What it holds.
        may_call: Whether it may call tools.
        tools: The tools that are offered.
    """

    kind: AnswerKind = "texts"
    may_call: bool = False
    tools: frozenset[str] = frozenset()

    @classmethod
    def of(cls, conversation: Conversation) -> "Abilities":
        """Return what the answer in a conversation can hold."""
        tools = frozenset(conversation.tools)
        return cls(conversation.answers, conversation.may_call, tools)

    def can_say(self, answer: Scripted) -> bool:
        """Tell whether something of what a rule says can be said."""
        if not answer.has_content:
            return True
        if self.kind != "texts" or answer.embedding is not None:
            return self.kind == "vectors" and answer.embedding is not None
        calls = [*(answer.tool_calls or ())]
        calls += [part.tool_call for part in answer.parts or () if part.tool_call is not None]
        texts = answer.model_fields_set & {"text", "reasoning", "refusal", "json_value"}
        if texts or any(part.tool_call is None for part in answer.parts or ()):
            return True
        return self.may_call and any(not c.offered or c.name in self.tools for c in calls)


class Undecided(NamedTuple):
    """What is known of a request some of whose rules have to be counted first.

    Args:
        matched: The rules that it matches.
        decided: What needs no rule: fields that the client gave.
        abilities: What its answer can hold.
        scope: Its scope; empty if it has none.
        is_strict: Whether a rule has to have an answer.
        nearest: The rules that it comes nearest to, for the case that none has.
    """

    matched: Sequence[int]
    decided: frozenset[str]
    abilities: Abilities
    scope: str
    is_strict: bool
    nearest: Sequence[Nearest] = ()


Deciding = Generator[Rule, int | None, Decision]


def deciding(
    rules: Sequence[Rule],
    matched: Sequence[int],
    decided: frozenset[str],
    ask: Ask,
    abilities: Abilities,
) -> Deciding:
    """Yield each rule that has to be counted, once it has something to decide.

    Expects how often the rule was counted before this request; None leaves it out. Of several rules
    that match, the first that says something about a field decides it.

    Args:
        rules: All rules.
        matched: The indices of those that match.
        decided: The fields that are decided already.
        ask: What is asked.
        abilities: What the answer can hold.
    """
    draft = _Draft(decided, ask, abilities)
    for index in matched:
        rule = rules[index]
        if not draft.is_open_to(rule):
            continue
        before = (yield rule) if rule.counts else rule.after
        if before is not None:
            draft.take(rule, index, before - rule.after)
    return draft.decision()


class _Draft:
    """A decision in the making.

    Args:
        decided: The fields that are decided already.
        ask: What is asked.
        abilities: What the answer can hold.
    """

    def __init__(self, decided: frozenset[str], ask: Ask, abilities: Abilities) -> None:
        self._decided = {*decided}
        self._ask = ask
        self._abilities = abilities
        self._names: list[str] = []
        self._timing: dict[str, Any] = {}
        self._sources: dict[str, str] = {}
        self._fault: tuple[FaultRule, str] | None = None
        self._choice: Choice | None = None
        self._exhausted: list[str] = []

    def is_open_to(self, rule: Rule) -> bool:
        """Tell whether a rule has something to decide that is not decided yet."""
        return self._may_answer(rule) or self._may_fail(rule) or bool(self._fields(rule))

    def take(self, rule: Rule, index: int, number: int) -> None:
        """Let a rule decide.

        Args:
            rule: The rule.
            index: Its place.
            number: Which of its matches this is, from 0 on; below 0 it is not yet for any.
        """
        if number < 0:
            return
        number, place_of_many = divmod(number, rule.every)
        if place_of_many != rule.every - 1:
            return
        is_over = rule.times is not None and number >= rule.times
        place = None
        if self._may_answer(rule):
            place = None if is_over else _place(rule, number)
            if place is None:
                self._exhausted.append(rule.name)
            elif not self._abilities.can_say(rule.answers[place]):
                place = None
        if is_over:
            return
        fields, fault = self._fields(rule), rule.fault if self._may_fail(rule) else None
        if not fields and fault is None and place is None:
            return
        self._names.append(rule.name)
        self._timing |= {name: rule.timing[name] for name in fields}
        self._sources |= dict.fromkeys(fields, rule.name)
        self._decided.update(fields)
        if fault is not None:
            self._fault = fault, rule.name
        if place is not None:
            self._choice = Choice(index, place, number + 1)

    def decision(self) -> Decision:
        """Return what is decided."""
        fault, fault_rule = self._fault or (None, "")
        return Decision(
            tuple(self._names),
            self._timing,
            self._sources,
            fault,
            fault_rule,
            self._choice,
            tuple(self._exhausted),
        )

    def _fields(self, rule: Rule) -> list[str]:
        return [name for name in rule.timing if name not in self._decided]

    def _may_fail(self, rule: Rule) -> bool:
        """Tell whether a rule says how to fail; it passes answers that cannot fail so."""
        if rule.fault is None or self._fault is not None or "fault" in self._decided:
            return False
        ask = self._ask
        return kind_of(rule.fault).fits(stream=ask.stream, says_failed=ask.says_failed)

    def _may_answer(self, rule: Rule) -> bool:
        return self._choice is None and any(map(self._abilities.can_say, rule.answers))


def _place(rule: Rule, number: int) -> int | None:
    """Return which of a rule's answers is the one of a match; None if there are no more."""
    count = len(rule.answers)
    if number < count:
        return number
    match rule.at_end:
        case "repeat":
            return number % count
        case "last":
            return count - 1
        case _:
            return None


def at_once(steps: Deciding) -> tuple[Decision, bool]:
    """Return what is decided without a count, and whether a rule was left out for want of one."""
    left_out = False
    try:
        next(steps)
        while True:
            left_out = True
            steps.send(None)
    except StopIteration as end:
        decision: Decision = end.value
        return decision, left_out


def refuse_unmatched(decision: Decision, nearest: Sequence[Nearest]) -> None:
    """Refuse a request for which no rule has an answer.

    Raises:
        APIError: None has.
    """
    if decision.has_answer:
        return
    told = f" The nearest: {'; '.join(near.told for near in nearest)}." if nearest else ""
    if decision.exhausted:
        names = ", ".join(f"'{name}'" for name in decision.exhausted)
        raise APIError(
            f"This request matches rules that have no more answers: {names}.{told}",
            code="rule_exhausted",
        )
    raise APIError(
        f"No rule with an answer matches this request.{told or ' There are no such rules.'}",
        code="no_rule_matched",
    )


def answer_of(rules: Sequence[Rule], choice: Choice) -> Scripted:
    """Return the answer that was decided on."""
    return rules[choice.rule].answers[choice.answer]
