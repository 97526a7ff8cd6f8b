"""Making numbers within bounds and on the grid of multipleOf, exactly."""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

from .errors import Path, SchemaError, UnsatisfiableError
from .limits import MAX_NUMBER, TRIES
from .parts import Spot

Exact: TypeAlias = int | Fraction

LARGE = 2**31 - 1  # a larger bound is an integer's width rather than a meaningful limit
SMALL = 100  # the highest number without bounds
_LARGEST = int(MAX_NUMBER)
_MAX_WHOLE = 2**53  # up to which a double tells whole numbers apart


def number(
    spot: Spot,
    kind: str,
    rng: random.Random,
    spend: Callable[[Path, int], None],
    *,
    whole: bool = True,
) -> float:
    """Return an integer or a number that satisfies the bounds and steps of `spot`.

    Args:
        spot: The schemas to satisfy.
        kind: "integer" or "number".
        rng: Decides the choice.
        spend: Called with the number of steps; raises an error if they exceed the budget.
        whole: Whether a number without a step is whole where the bounds allow it.

    Raises:
        SchemaError: The least common multiple of the steps is beyond a double.
        UnsatisfiableError: No number is within the bounds.
    """
    bounds = Range.of(spot)
    step = _common_step(spot, kind)
    for grid in [step] if step else bounds.grids(whole=whole):
        first, last = bounds.multiples(grid)
        for turn in range(TRIES if first <= last else 0):
            spend(spot.path, 4 if turn else 0)
            value = _rounded(rng.randint(first, last) * grid)
            if bounds.holds(value) and not (step and _decimal(value) % step):
                return value
    raise UnsatisfiableError(f"no {kind} is within the bounds", spot.path)


def is_bounded(schema: Mapping[str, Any], value: float) -> bool:
    """Return whether `value` satisfies the bounds and the step of one schema."""
    return (
        ("minimum" not in schema or value >= schema["minimum"])
        and ("maximum" not in schema or value <= schema["maximum"])
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
        and ("multipleOf" not in schema or _decimal(value) % _decimal(schema["multipleOf"]) == 0)
    )


@dataclass(frozen=True, slots=True)
class Range:
    """An interval, whose open ends are not part of it."""

    low: Exact | None
    high: Exact | None
    is_low_open: bool
    is_high_open: bool

    @classmethod
    def of(cls, spot: Spot) -> "Range":
        """Return the range that all schemas of `spot` allow.

        Raises:
            UnsatisfiableError: There is none.
        """
        lows = _ends(spot, "minimum", "exclusiveMinimum")
        highs = ((-end, is_open) for end, is_open in _ends(spot, "maximum", "exclusiveMaximum"))
        low, is_low_open = max(lows, default=(None, False))
        negative, is_high_open = max(highs, default=(None, False))
        high = None if negative is None else -negative
        if low is not None and high is not None and low > high:
            message = f"minimum {float(low)} is above maximum {float(high)}"
            raise UnsatisfiableError(message, spot.path)
        return cls(low, high, is_low_open, is_high_open)

    def grids(self, *, whole: bool) -> Iterator[Exact]:
        """Yield steps for numbers without multipleOf, the most readable first."""
        if whole and max(map(abs, self.multiples(1))) <= _MAX_WHOLE:
            yield 1
        yield Fraction(1, 100)
        yield Fraction(1, 10**6)
        if self.low is not None and self.high is not None and self.low < self.high:
            yield (self.high - self.low) * Fraction(1, 8)
        else:
            end: Exact = self.low or self.high or 1
            yield max(end, -end) * Fraction(1, 8)

    def multiples(self, grid: Exact) -> tuple[int, int]:
        """Return the first and last likely multiple of `grid`; last < first if there is none."""
        low, high = self._likely(grid)
        first, last = -(-low // grid), high // grid
        first += self.is_low_open and first * grid == self.low
        last -= self.is_high_open and last * grid == self.high
        return first, last

    def _likely(self, grid: Exact) -> tuple[Exact, Exact]:
        """Return ends for likely numbers.

        A missing or very large end becomes 0 or 100 if that is in the range, else a number near the
        other end; further away if `grid` is coarse.
        """
        low = None if self.low is None or self.low <= -LARGE else self.low
        high = None if self.high is None or self.high >= LARGE else self.high
        if low is not None and high is not None:
            return low, high
        width = max(SMALL, 10 * grid)
        if high is not None:
            first, last = (0 if high > 0 else high - width), min(high, width)
        else:
            first = max(low or 0, 0)
            last = max(width, first + 10 * grid)
        lowest = -_LARGEST if self.low is None else self.low
        highest = _LARGEST if self.high is None else self.high
        return max(first, lowest), min(last, highest)

    def holds(self, value: float) -> bool:
        """Return whether `value`, which may have been rounded, lies in the range."""
        end = _end(value)
        is_above = self.low is None or end > self.low or (end == self.low and not self.is_low_open)
        is_below = (
            self.high is None or end < self.high or (end == self.high and not self.is_high_open)
        )
        return is_above and is_below


def _rounded(value: Exact) -> float:
    return int(value) if value.denominator == 1 else float(value)


def _ends(spot: Spot, closed: str, opened: str) -> Iterator[tuple[Exact, bool]]:
    for schema in spot.schemas:
        for keyword in (closed, opened):
            if keyword in schema:
                yield _end(schema[keyword]), keyword == opened


def _end(number: float) -> Exact:
    """Return a bound in a form that compares exactly."""
    return int(number) if number % 1 == 0 else Fraction(repr(number))


def _decimal(number: float) -> Exact:
    """Return a number as the decimal that was written, not as its binary approximation."""
    return number if isinstance(number, int) else Fraction(repr(number))


def _common_step(spot: Spot, kind: str) -> Exact | None:
    """Return the least common multiple of all multipleOf, and of 1 for integers."""
    common: Exact | None = 1 if kind == "integer" else None
    seen: set[float] = set()
    for schema, path in spot.having("multipleOf"):
        if schema["multipleOf"] not in seen:
            seen.add(schema["multipleOf"])
            step = _decimal(schema["multipleOf"])
            common = step if common is None else _common_multiple(common, step)
        if common is not None and common > MAX_NUMBER:
            raise SchemaError(
                f"the least common multiple of all multipleOf is above {MAX_NUMBER:.2g}, "
                "more than a double holds",
                (*path, "multipleOf"),
            )
    return common


def _common_multiple(one: Exact, other: Exact) -> Exact:
    return Fraction(
        math.lcm(one.numerator, other.numerator), math.gcd(one.denominator, other.denominator)
    )
