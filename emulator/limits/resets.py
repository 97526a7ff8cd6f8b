"""When counts were last set back: those of everybody, and those of single scopes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# The scope that was set back the longest ago gives way.
MAX_SCOPES = 10_000


@dataclass(frozen=True, slots=True)
class Resets:
    """The revisions at which counts were set back.

    A count is kept under a name that holds the revision of its last reset, so that all workers
    begin anew with the same snapshot, and a request under way counts where it began.

    Args:
        everybody: When the counts of all scopes were last set back; 0 for never.
        scopes: When those of single scopes were, later than that.
    """

    everybody: int = 0
    scopes: Mapping[str, int] = field(default_factory=dict)

    def of(self, scope: str) -> int:
        """Return when the counts of a scope, empty for none, were last set back."""
        if not self.scopes or not scope:
            return self.everybody
        return self.scopes.get(scope, self.everybody)

    def at(self, revision: int, scope: str = "") -> "Resets":
        """Return these with a reset of one scope, or of everybody."""
        if not scope:
            return Resets(revision)
        scopes = {name: at for name, at in self.scopes.items() if name != scope}
        while len(scopes) >= MAX_SCOPES:
            del scopes[next(iter(scopes))]
        return Resets(self.everybody, {**scopes, scope: revision})


NO_RESETS = Resets()
