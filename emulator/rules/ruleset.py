"""All rules of a server: plain data that travels, and what is compiled of it in each process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from emulator.answers.ask import Ask
from emulator.answers.script import Script, Told
from emulator.rules.deciding import (
    NOTHING,
    Abilities,
    Deciding,
    Decision,
    Undecided,
    answer_of,
    at_once,
    deciding,
    refuse_unmatched,
)
from emulator.rules.globs import Budget
from emulator.rules.matching import Matcher, Nearest
from emulator.rules.model import Rule
from emulator.rules.scripting import script_of, told_of
from emulator.rules.subject import Seen, Subject, scope_of_key, sha256_of

MAX_LIGHT_RULES = 200


@dataclass(frozen=True)
class Rules:
    """The rules, the first first; they never change.

    Args:
        rules: All rules, in their order.
        warnings: What may be no mistake, but looks like one.
        source: What a file that says the same would hold, with all names; it does not travel.
    """

    rules: Sequence[Rule] = ()
    warnings: Sequence[str] = ()
    source: Sequence[Mapping[str, Any]] = field(default=(), compare=False)

    def __getstate__(self) -> Mapping[str, Any]:
        """Return what travels to another process: no more than the data."""
        return {"rules": self.rules, "warnings": self.warnings, "source": ()}

    def prepare(self) -> None:
        """Compile what requests would otherwise wait for: up to 3 ms a rule."""
        _ = self.matcher

    @cached_property
    def matcher(self) -> Matcher:
        """The index that finds the rules that a request matches."""
        return Matcher(self.rules)

    @cached_property
    def are_heavy(self) -> bool:
        """Whether to match them may take a tenth of a millisecond even where texts are short."""
        return len(self.rules) > MAX_LIGHT_RULES or any(
            rule.match.text_regex is not None for rule in self.rules
        )

    @cached_property
    def counts(self) -> bool:
        """Whether the matches of one of them are counted."""
        return any(rule.counts for rule in self.rules)

    @cached_property
    def headers(self) -> frozenset[str]:
        """The headers that they name, in small letters."""
        return frozenset(name.lower() for rule in self.rules for name in rule.match.header or {})

    @cached_property
    def draws(self) -> bool:
        """Whether one of them is left to chance."""
        return any(rule.probability < 1 for rule in self.rules)

    @cached_property
    def looks_at_keys(self) -> bool:
        """Whether one of them looks at the API key."""
        return any(rule.match.api_key is not None for rule in self.rules)

    def see(self, path: str, header: Callable[[bytes], str | None], key: str, attempt: int) -> Seen:
        """Return what of a request's head they look at.

        Args:
            path: The path of the URL.
            header: Returns the value of a header, by its name in small letters.
            key: The API key.
            attempt: How many attempts came before.
        """
        values = {name: header(name.encode()) for name in self.headers}
        return Seen(
            path,
            {name: value for name, value in values.items() if value is not None},
            sha256_of(key) if self.looks_at_keys else "",
            scope_of_key(key),
            attempt,
        )

    def judge(
        self, subject: Subject, decided: frozenset[str], budget: Budget, *, strict: bool
    ) -> tuple[Decision, Undecided | None]:
        """Return the decision for a request, as far as it needs no count.

        Args:
            subject: The request.
            decided: The fields that are decided already.
            budget: The time that this may take.
            strict: Whether a request is refused that no rule with an answer decides.

        Returns:
            The decision, and what is known for another one, after a count, if that is needed.

        Raises:
            APIError: It is refused.
            OverBudgetError: It takes too long.
        """
        matched = self.matcher.match(subject, budget)
        if not matched and not strict:
            return NOTHING, None
        abilities = Abilities.of(subject.conversation)
        steps = deciding(self.rules, matched, decided, subject.ask, abilities)
        decision, left_out = at_once(steps)
        nearest: tuple[Nearest, ...] = ()
        if strict and not decision.has_answer:
            nearest = tuple(self.matcher.nearest(subject, budget))
            if not left_out:
                refuse_unmatched(decision, nearest)
        if not left_out:
            return decision, None
        undecided = Undecided(matched, decided, abilities, subject.scope, strict, nearest)
        return decision, undecided

    def script(
        self, decision: Decision, subject: Subject, budget: Budget
    ) -> tuple[Script | None, Told | None]:
        """Return the scripted text of an answer and its metadata.

        Raises:
            ScriptError: A template fails.
            OverBudgetError: It takes too long.
        """
        choice = decision.choice
        if choice is None:
            return None, None
        answer = answer_of(self.rules, choice)
        rule = self.rules[choice.rule].name
        return script_of(answer, rule, choice.number, subject, budget), told_of(answer)

    def steps(self, undecided: Undecided, ask: Ask) -> Deciding:
        """Return the steps of a decision that counts."""
        return deciding(self.rules, undecided.matched, undecided.decided, ask, undecided.abilities)
