"""The limits on the cost of a schema, and the budget that enforces them."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import Path, SchemaError, UnsatisfiableError

MAX_STEPS = 20_000  # of making and checking one instance
MAX_INSTANCE_S = 0.3  # of CPU, if steps take long
MAX_VALUES = 5_000  # made for one instance
MAX_LEVELS = 80  # well below Python's recursion limit
MAX_MERGED = 1_000  # schemas for one value, or alternatives in one list
MAX_TEXT = 65_536  # characters of one string
MAX_NUMBER = sys.float_info.max
MAX_MATCHING_S = 0.05  # spent on matching patterns, for a whole instance

MAX_PATTERN = 5_000  # characters of a pattern, and its items with repeats expanded
MAX_PATTERN_GROUPS = 50
MAX_PATTERN_KEPT = 100  # characters of a pattern that is cached
MAX_PATTERN_LITERAL = 200  # regex takes cubic time to prepare it, without a timeout

MAX_STRICT_SCHEMAS = 10_000  # checked for strict mode
MAX_TEXT_LEVELS = 100  # of a schema in a text

# Within these, optional properties are filled, and lists are longer than necessary.
RICH_DEPTH = 5
RICH_VALUES = 200
TRIES = 32

CHARACTERS_A_STEP = 32  # keeps an instance below 640 KB
_STEPS_A_LOOK = 500  # between two looks at the clock


class Budget:
    """The steps, values and time that are left for one instance."""

    def __init__(self) -> None:
        self._steps = 0
        self._next_look = _STEPS_A_LOOK
        self._started_s = time.thread_time()
        self._values = 0
        self._matching_s = MAX_MATCHING_S

    def spend(self, path: Path, steps: int = 1) -> None:
        """Count `steps`, taken at `path`.

        Raises:
            SchemaError: They exceed ``MAX_STEPS`` in total, or ``MAX_INSTANCE_S``.
        """
        self._steps += steps
        if self._steps > self._next_look:
            self._look(path)

    def _look(self, path: Path) -> None:
        if self._steps > MAX_STEPS:
            raise SchemaError(f"it takes more than the limit of {MAX_STEPS} steps", path)
        # The clock decides nothing else, so that instances stay reproducible.
        if time.thread_time() - self._started_s > MAX_INSTANCE_S:
            raise SchemaError(f"it takes more than the limit of {MAX_INSTANCE_S} s", path)
        self._next_look = min(self._steps + _STEPS_A_LOOK, MAX_STEPS)

    def spend_value(self, path: Path) -> None:
        """Count a value before it is made.

        Raises:
            SchemaError: There are more than ``MAX_VALUES``.
        """
        self._values += 1
        if self._values > MAX_VALUES:
            raise SchemaError(f"it takes more than the limit of {MAX_VALUES} values", path)

    @contextmanager
    def matching(self, path: Path) -> Iterator[float]:
        """Yield the seconds that are left for matching patterns, and count those of the body.

        Raises:
            SchemaError: All matching together takes more than ``MAX_MATCHING_S``.
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
        """Return whether a value at `depth` gets optional parts."""
        return depth == 0 or (depth < RICH_DEPTH and self._values < RICH_VALUES)


def deepen(level: int, path: Path) -> int:
    """Return the level below `level`.

    Raises:
        UnsatisfiableError: It is too deep; another alternative may be flatter.
    """
    if level >= MAX_LEVELS:
        raise UnsatisfiableError(
            f"it is nested deeper than {MAX_LEVELS} levels, or without end", path
        )
    return level + 1
