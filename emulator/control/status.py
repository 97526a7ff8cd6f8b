"""How this server is: what is in force, and who has it."""

import time
from collections.abc import Callable
from typing import Protocol

from pydantic_core import from_json

from emulator.control.bodies import (
    Applied,
    ControlStatus,
    RulesInForce,
    ScheduleInForce,
    SettingsInForce,
    Store,
    Workers,
)
from emulator.control.changes import alterations, rule_list
from emulator.control.changes.document import Changes
from emulator.control.changes.live_settings import LiveSettings, fixed, in_force
from emulator.control.truth import Truth


class SharedStore(Protocol):
    """What several servers share."""

    shown_url: str
    problem: str


class StatusReader:
    """Tells what is in force.

    Args:
        truth: Knows it.
        version: The emulator's.
        fast_path: Tells by package whether answers go past it.
        store: What several servers share, if they do.
        matched: Tells how often each rule has matched.
    """

    def __init__(
        self,
        truth: Truth,
        version: str,
        fast_path: Callable[[], dict[str, bool]],
        store: SharedStore | None = None,
        matched: Callable[[], dict[str, int]] = dict,
    ) -> None:
        self._truth = truth
        self._version = version
        self._fast_path = fast_path
        self._store = store
        self._matched = matched
        self._started_s = time.monotonic()

    def settings(self, changes: Changes) -> SettingsInForce:
        """Return the settings that some changes make."""
        state = self._truth.builder.build(changes)
        return SettingsInForce(
            revision=state.version,
            settings=LiveSettings.model_validate(in_force(state), strict=False),
            changed=from_json(changes.settings),
            start=in_force(self._truth.live.start),
            fixed=fixed(state),
        )

    def rules(self, changes: Changes, name: str | None = None) -> RulesInForce:
        """Return all rules that some changes make, or the one of a name.

        Raises:
            APIError: There is none of this name.
        """
        entries = self._truth.builder.entries(changes)
        if name is not None:
            entries = [entries[rule_list.index_of(entries, name)]]
        return RulesInForce(revision=changes.revision, rules=rule_list.shown(entries, time.time()))

    def schedule(self, changes: Changes) -> ScheduleInForce:
        """Return the schedule that some changes make."""
        revision, builder = changes.revision, self._truth.builder
        plan, now = builder.planned(changes), time.time()
        if plan is None:
            return ScheduleInForce(revision=revision, schedule=None)
        due_at = alterations.next_due(changes, builder, now)
        return ScheduleInForce(
            revision=revision,
            schedule=plan.spec,
            began_s=round(now - plan.began_at, 3),
            steps_done=changes.progress,
            next_s=None if due_at is None else round(due_at - now, 3),
        )

    def applied(self, changes: Changes) -> Applied:
        """Return the revision of some changes."""
        return Applied(revision=changes.revision, applied="")

    def read(self, changes: Changes, workers: Workers) -> ControlStatus:
        """Return all that some changes make, and how this server is."""
        settings, store = self.settings(changes), self._store
        return ControlStatus(
            version=self._version,
            uptime_s=round(time.monotonic() - self._started_s, 3),
            revision=settings.revision,
            workers=workers,
            store=Store(url="memory", problem="")
            if store is None
            else Store(url=store.shown_url, problem=store.problem),
            problem=self._truth.problem,
            settings=settings.settings,
            fixed=settings.fixed,
            changed=settings.changed,
            rules=self.rules(changes).rules,
            matched=self._matched(),
            schedule=self.schedule(changes),
            fast_path=self._fast_path(),
        )
