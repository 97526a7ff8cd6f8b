"""What requests are answered by: settings, models, rules, limits and the engine.

A request takes a snapshot when it comes, and keeps it until it ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from emulator.engine.config import EngineConfig, load_engine
from emulator.limits.gate import Policy
from emulator.rules.reading import read_rules
from emulator.rules.ruleset import Rules
from emulator.settings import Settings
from emulator.timing.jitter import Floats, load_traces


@dataclass(frozen=True, slots=True)
class State:
    """One snapshot; it never changes.

    Args:
        settings: The operator's settings.
        traces: The gaps that X-ITL-JITTER may name, in ms.
        rules: How requests are answered where they do not say it; None if nothing says so.
        policy: Keys and limits; None if nothing is locked or limited.
        engine: The engine that makes the times; None for times by header.
        version: The number of changes since the start.
    """

    settings: Settings
    traces: Mapping[str, Floats] = field(default_factory=dict)
    rules: Rules | None = None
    policy: Policy | None = None
    engine: EngineConfig | None = None
    version: int = 0


def read_state(settings: Settings) -> State:
    """Read all files that the settings name.

    Raises:
        ConfigError: One of them cannot be used; the message names the setting, the file and why.
    """
    traces = settings.read("traces", load_traces) or {}
    none = Rules() if settings.unmatched == "refuse" else None
    return State(
        settings,
        traces,
        settings.read("rules", lambda path: read_rules(path, settings, traces)) or none,
        Policy.read(settings),
        settings.read("engine", load_engine),
    )


class LiveState:
    """The state that counts for the next request.

    ``current`` is the snapshot to take.
    """

    def __init__(self, state: State) -> None:
        self.current = state

    def change(self, **fields: Any) -> State:  # noqa: ANN401 - the fields of State
        """Put another state in place of the current one, and return it."""
        self.current = replace(self.current, version=self.current.version + 1, **fields)
        return self.current
