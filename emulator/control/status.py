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
    """

    def __init__(
        self,
        truth: Truth,
        version: str,
        fast_path: Callable[[], dict[str, bool]],
        store: SharedStore | None = None,
    ) -> None:
        self._truth = truth
        self._version = version
        self._fast_path = fast_path
        self._store = store
        self._started_s = time.monotonic()

    @property
    def revision(self) -> int:
        """The number of changes since the start."""
        return self._truth.live.current.version

    def settings(self) -> SettingsInForce:
        """Return the settings."""
        state = self._truth.live.current
        return SettingsInForce(
            revision=state.version,
            settings=LiveSettings.model_validate(in_force(state), strict=False),
            changed=from_json(self._truth.changes.settings),
            fixed=fixed(state),
        )

    def rules(self, name: str | None = None) -> RulesInForce:
        """Return all rules, or the one of a name.

        Raises:
            APIError: There is none of this name.
        """
        revision, entries = self.revision, self._truth.builder.entries(self._truth.changes)
        if name is not None:
            entries = [entries[rule_list.index_of(entries, name)]]
        return RulesInForce(revision=revision, rules=rule_list.shown(entries, time.time()))

    def schedule(self) -> ScheduleInForce:
        """Return the schedule."""
        revision, changes, builder = self.revision, self._truth.changes, self._truth.builder
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

    def applied(self) -> Applied:
        """Return the revision."""
        return Applied(revision=self.revision, applied="")

    async def read(self, workers: Workers) -> ControlStatus:
        """Return all of it."""
        settings, store = self.settings(), self._store
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
            rules=self.rules().rules,
            schedule=self.schedule(),
            fast_path=self._fast_path(),
        )
