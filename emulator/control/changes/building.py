"""The state that a document of changes makes of the start's: the same for all workers and hosts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeAlias, TypeVar

from pydantic_core import from_json

from emulator.control.changes import rule_list
from emulator.control.changes.document import Changes
from emulator.control.changes.live_settings import changed_settings, in_force
from emulator.control.changes.rule_list import Entry
from emulator.control.changes.schedule import Planned
from emulator.limits.gate import Policy
from emulator.limits.resets import NO_RESETS, Resets
from emulator.rules.ruleset import Rules
from emulator.state import State

Text = TypeVar("Text")
Made = TypeVar("Made")
# Rules as text, and the length of answers and the most that it may be, which they are checked by.
_RulesText: TypeAlias = tuple[bytes, int, int]
_MADE_KEPT = 3


class _Memory(Generic[Text, Made]):
    """What was made of the last few texts: most changes leave most texts as they were."""

    def __init__(self, make: Callable[[Text], Made]) -> None:
        self._make = make
        self._made: list[tuple[Text, Made]] = []

    def __call__(self, text: Text) -> Made:
        for known, made in self._made:
            if known == text:
                return made
        made = self._make(text)
        self._made = [(text, made), *self._made][:_MADE_KEPT]
        return made


class Builder:
    """Makes states of changes.

    Args:
        start: What the changes lie over.
    """

    def __init__(self, start: State) -> None:
        self._start = start
        self._base = in_force(start)
        self._last_parts = _parts(start, NO_RESETS)
        self._last_policy = start.policy
        self._own_entries = rule_list.as_data(start.rules)
        self._entries = _Memory(rule_list.unpacked)
        self._planned = _Memory(Planned.unpacked)
        self._settings = _Memory(self._read_settings)
        self._rules = _Memory(self._read_rules)
        self._resets = _Memory(_read_resets)

    def build(self, changes: Changes) -> State:
        """Return the state that changes make.

        Raises:
            APIError: A setting or a rule is not good here.
        """
        state = self._settings(changes.settings)
        resets = self._resets(changes.resets)
        return replace(
            state,
            rules=self._rules_in(changes, state),
            policy=self._policy(state, resets.get("limits", NO_RESETS)),
            resets=resets,
            version=changes.revision,
        )

    def _rules_in(self, changes: Changes, state: State) -> Rules | None:
        settings, rules = state.settings, state.rules
        if changes.rules:
            rules = self._rules((changes.rules, settings.output_length, settings.max_output_length))
        if settings.unmatched == "refuse":
            return rules or Rules()
        return rules if rules is not None and rules.rules else None

    def _policy(self, state: State, resets: Resets) -> Policy | None:
        """Return the policy: the last one if all that makes it is as it was."""
        parts = _parts(state, resets)
        if parts != self._last_parts:
            self._last_parts = parts
            self._last_policy = state.files.policy(state.settings, resets)
        return self._last_policy

    def entries(self, changes: Changes) -> Sequence[Entry]:
        """Return the rules in force, as data."""
        if changes.rules:
            return self._entries(changes.rules)
        return self._own_entries

    def planned(self, changes: Changes) -> Planned | None:
        """Return the schedule, if there is one."""
        return self._planned(changes.schedule) if changes.schedule else None

    def _read_settings(self, text: bytes) -> State:
        return changed_settings(self._start, self._base, from_json(text))

    def _read_rules(self, text: _RulesText) -> Rules:
        rules, length, most = text
        lengths = {"output_length": length, "max_output_length": most}
        settings = self._start.settings.model_copy(update=lengths)
        return rule_list.read(self._entries(rules), settings, self._start.traces)


def _parts(state: State, resets: Resets) -> tuple[object, ...]:
    return state.files.limits, state.settings.rpm, state.settings.tpm, resets


def _read_resets(text: bytes) -> Mapping[str, Resets]:
    return {what: resets_of(scopes) for what, scopes in from_json(text).items()}


def resets_of(scopes: Mapping[str, int]) -> Resets:
    """Return the resets that a document tells: revisions by scope, of everybody without a name."""
    return Resets(
        scopes.get("", NO_RESETS.everybody),
        {scope: revision for scope, revision in scopes.items() if scope},
    )
