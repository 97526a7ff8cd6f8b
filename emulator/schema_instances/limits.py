"""The bounds of what one schema may cost, and the budget that keeps them."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import Path, SchemaError, UnsatisfiableError

MAX_STEPS = 20_000  # of making and checking one instance, seen to take 5 to 25 us each
MAX_INSTANCE_S = 0.3  # of CPU, should steps take longer than they were seen to
MAX_VALUES = 5_000  # made for one instance
MAX_LEVELS = 80  # keeps well inside Python's recursion limit
MAX_MERGED = 1_000  # schemas that hold together for one value, or alternatives in one list
MAX_TEXT = 65_536  # characters of one string
MAX_NUMBER = sys.float_info.max
MAX_MATCHING_S = 0.05  # spent on matching patterns, for a whole instance

MAX_PATTERN = 5_000  # characters of a pattern, and its items once repeats are written out
MAX_PATTERN_GROUPS = 50
MAX_PATTERN_KEPT = 100  # characters of a pattern that is kept compiled for later requests
MAX_PATTERN_LITERAL = 200  # regex takes the cube of it to prepare, past any timeout

MAX_STRICT_SCHEMAS = 10_000  # looked at for strict mode
MAX_TEXT_LEVELS = 100  # of a schema that stands in a text

# Where optional properties are filled and lists are longer than they must be.
RICH_DEPTH = 5
RICH_VALUES = 200
TRIES = 32

CHARACTERS_A_STEP = 32  # keeps an instance below 640 KB
_STEPS_A_LOOK = 500  # at the clock


class Budget:
    """What is left of the steps, values and time that one instance may take."""

    def __init__(self) -> None:
        self._steps = 0
        self._next_look = _STEPS_A_LOOK
        self._started_s = time.thread_time()
        self._values = 0
        self._matching_s = MAX_MATCHING_S

    def spend(self, path: Path, steps: int = 1) -> None:
        """Count `steps`, taken at `path`.

        Raises:
            SchemaError: They are more than ``MAX_STEPS`` in all, or took over ``MAX_INSTANCE_S``.
        """
        self._steps += steps
        if self._steps > self._next_look:
            self._look(path)

    def _look(self, path: Path) -> None:
        if self._steps > MAX_STEPS:
            raise SchemaError(f"it takes more than the limit of {MAX_STEPS} steps", path)
        # As with matching, the clock only says when to give up.
        if time.thread_time() - self._started_s > MAX_INSTANCE_S:
            raise SchemaError(f"it takes more than the limit of {MAX_INSTANCE_S} s", path)
        self._next_look = min(self._steps + _STEPS_A_LOOK, MAX_STEPS)

    def spend_value(self, path: Path) -> None:
        """Count a value that is about to be made.

        Raises:
            SchemaError: They are more than ``MAX_VALUES``.
        """
        self._values += 1
        if self._values > MAX_VALUES:
            raise SchemaError(f"it takes more than the limit of {MAX_VALUES} values", path)

    @contextmanager
    def matching(self, path: Path) -> Iterator[float]:
        """Give the seconds that matching a pattern may take, and take off what it took.

        The clock only says when to give up, so that instances stay reproducible.

        Raises:
            SchemaError: It took, or earlier matching had taken, more than ``MAX_MATCHING_S``.
        """
        slow = SchemaError(f"matching patterns takes over {MAX_MATCHING_S} s", path)
        if self._matching_s <= 0:
            raise slow
        started_s = time.thread_time()
        try:
            yield self._matching_s
        except TimeoutError:
            raise slow from None
        finally:
            self._matching_s -= time.thread_time() - started_s

    def is_rich(self, depth: int) -> bool:
        """Return whether a value at `depth` still gets what is optional."""
        return depth == 0 or (depth < RICH_DEPTH and self._values < RICH_VALUES)


def deepen(level: int, path: Path) -> int:
    """Return the level below `level`.

    Raises:
        UnsatisfiableError: That is too deep; another alternative may end sooner.
    """
    if level >= MAX_LEVELS:
        raise UnsatisfiableError(
            f"it is nested deeper than {MAX_LEVELS} levels, or without end", path
        )
    return level + 1
