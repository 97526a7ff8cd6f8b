"""What requests are answered by: settings, models, rules, limits and the engine.

A request takes a snapshot when it comes, and keeps it until it ends.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from emulator.dialects.dialect import Dialect
from emulator.dialects.table import dialect_of
from emulator.engine.config import EngineConfig, load_engine
from emulator.engine.routing import check_policy
from emulator.limits.gate import NO_FILES, LimitFiles, Policy
from emulator.limits.resets import NO_RESETS, Resets
from emulator.rules.reading import read_rules
from emulator.rules.ruleset import Rules
from emulator.settings import Settings
from emulator.shared_memory.document import SharedDocument
from emulator.timing.jitter import Floats, Jitter, load_traces


@dataclass(frozen=True, slots=True)
class State:
    """One snapshot; it never changes.

    Args:
        settings: The operator's settings.
        traces: The gaps that X-ITL-JITTER may name, in ms.
        rules: How requests are answered where they do not say it; None if nothing says so.
        files: What the files of keys and limits hold.
        policy: Keys and limits; None if nothing is locked or limited.
        engine: The engine that makes the times; None for times by header.
        resets: When counts were last set back, by what is counted.
        version: The revision, which is the number of changes since the start.

    ``dialect`` is what the settings choose.
    """

    settings: Settings
    traces: Mapping[str, Floats] = field(default_factory=dict)
    rules: Rules | None = None
    files: LimitFiles = NO_FILES
    policy: Policy | None = None
    engine: EngineConfig | None = None
    resets: Mapping[str, Resets] = field(default_factory=dict)
    version: int = 0
    dialect: Dialect = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Choose the dialect."""
        object.__setattr__(self, "dialect", dialect_of(self.settings, self.engine))

    def counted_since(self, scope: str = "") -> int:
        """Return the revision since which the matches of rules count for a scope."""
        return self.resets.get("counts", NO_RESETS).of(scope)

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out, on the way to a helper, what only workers count."""
        parts = self.settings, self.traces, self.rules
        return State, (*parts, NO_FILES, None, self.engine, {}, self.version)


def read_state(settings: Settings) -> State:
    """Read all files that the settings name.

    Raises:
        ConfigError: One of them cannot be used; the message names the setting, the file and why.
    """
    traces = settings.read("traces", load_traces) or {}
    for name in ("ttft_jitter", "itl_jitter"):
        settings.read(name, lambda text: Jitter.parse(text, traces))
    files = LimitFiles.read(settings)
    none = Rules() if settings.unmatched == "refuse" else None
    engine = settings.read("engine", load_engine)
    if engine is not None:
        settings.read("routing", lambda policy: check_policy(policy, engine))
    return State(
        settings,
        traces,
        settings.read("rules", lambda path: read_rules(path, settings, traces)) or none,
        files,
        files.policy(settings),
        engine,
    )


def _see_nothing() -> None:
    """Follow no document."""


class LiveState:
    """The state that counts for the next request.

    Where it follows a document that processes share, each look at it compares one integer with
    ``seen``, the number of the writing that made the state.

    Args:
        start: What counts before any change, and what changes lie over.
    """

    def __init__(self, start: State) -> None:
        self.start = start
        self._current = start
        self._number: Sequence[int] | memoryview = (0,)
        self.seen = 0
        self._look: Callable[[], None] = _see_nothing

    @property
    def current(self) -> State:
        """The snapshot to take."""
        if self._number[0] != self.seen:
            self._look()
        return self._current

    def follow(self, document: SharedDocument, read: Callable[[bytes], State]) -> None:
        """Take the state from what a document says from now on.

        Args:
            document: Is written by any process.
            read: Makes the state of it; fails never.
        """

        def look() -> None:
            self.seen, content = document.read()
            self._current = read(content)

        self._number, self._look = document.number, look
