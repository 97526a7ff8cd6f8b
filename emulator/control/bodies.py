"""The bodies of requests for control, and of its answers."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from emulator.control.changes.alterations import What
from emulator.control.changes.live_settings import LiveSettings

ScopeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]


class ControlRules(BaseModel):
    """All rules, in their order; each as in a file of rules, with a name and, maybe, `ttl_s`."""

    model_config = ConfigDict(extra="forbid")

    rules: list[Any]


class Reset(BaseModel):
    """What is to go back to how it is at the start."""

    model_config = ConfigDict(extra="forbid", strict=True)

    what: Annotated[list[What], Field(min_length=1, max_length=16)] | None = Field(
        None, description="all by default, or, with a scope, all that is kept by scope"
    )
    scope: ScopeName | None = Field(None, description="whose; everybody's by default")


class Workers(BaseModel):
    """The workers of this server."""

    count: int
    applied: str = Field(description="how many have this revision, as 2 of 2")
    pids: list[int]


class Store(BaseModel):
    """Where changes are kept."""

    url: str
    problem: str = Field(description="why it cannot be reached; empty while it can")


class Applied(BaseModel):
    """What every answer to a change has."""

    revision: int
    applied: str = Field(description="how many workers of this server have it, as 2 of 2")


class SettingsInForce(BaseModel):
    """The settings in force."""

    revision: int
    applied: str | None = Field(None, description="after a change")
    settings: LiveSettings = Field(description="those that can change, as PATCH takes them")  # type: ignore[valid-type]
    changed: dict[str, Any] = Field(description="what differs from the start's, as a merge patch")
    start: dict[str, Any] = Field(description="those that can change, as they were at the start")
    fixed: dict[str, Any] = Field(description="those that cannot change")


class RulesInForce(BaseModel):
    """The rules in force, in their order."""

    revision: int
    applied: str | None = Field(None, description="after a change")
    rules: list[dict[str, Any]]


class ScheduleInForce(BaseModel):
    """The schedule, if there is one."""

    revision: int
    applied: str | None = Field(None, description="after a change")
    schedule: dict[str, Any] | None = Field(description="as PUT takes it")
    began_s: float | None = Field(None, description="how long ago it began, in s")
    steps_done: int = 0
    next_s: float | None = Field(None, description="until something changes next, in s")


class ControlStatus(BaseModel):
    """How this server is."""

    version: str
    uptime_s: float
    revision: int
    workers: Workers
    store: Store
    problem: str = Field(description="why changes of other hosts do not hold here; mostly empty")
    settings: LiveSettings  # type: ignore[valid-type]
    fixed: dict[str, Any]
    changed: dict[str, Any]
    rules: list[dict[str, Any]]
    matched: dict[str, int] = Field(description="how often each of the first 200 rules matched")
    schedule: ScheduleInForce
    fast_path: dict[str, bool] = Field(description="by package: whether answers go past it")
