"""Globs and regular expressions over texts of any length, in bounded time whatever they are."""

import fnmatch
from collections.abc import Iterator
from math import inf
from time import monotonic

import regex

_FOLDED_AT_ONCE = 1 << 16
_SPACES = regex.compile(r"\s+")


class OverBudgetError(Exception):
    """Rules take longer for a request than they may where it is read."""


class Budget:
    """A time limit that starts now.

    Args:
        seconds: How long the work may take, in seconds.
        most_work: How many characters of all texts may be searched, where it is known beforehand.
    """

    __slots__ = ("_end_s", "_most_work")

    def __init__(self, seconds: float, most_work: float = inf) -> None:
        self._end_s = monotonic() + seconds
        self._most_work = most_work

    def plan(self, work: int) -> None:
        """Note how many characters are to be searched.

        Raises:
            OverBudgetError: They are too many.
        """
        if work > self._most_work:
            raise OverBudgetError

    def left_s(self) -> float:
        """Return how much is left.

        Raises:
            OverBudgetError: Nothing is.
        """
        left_s = self._end_s - monotonic()
        if left_s <= 0:
            raise OverBudgetError
        return left_s


class Glob:
    """A glob of ``*``, ``?`` and ``[ab]``; large and small letters differ.

    One of letters and stars alone takes time in proportion to the text. ``literal`` is a part that
    every text has that matches; where ``needs_more`` is false, that part alone decides.
    """

    __slots__ = ("_expression", "_first", "_last", "_parts", "literal", "needs_more", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        parts = pattern.split("*")
        self._first, self._last, self._parts = parts[0], parts[-1], parts[1:-1]
        self._expression: regex.Pattern[str] | None = None
        if set(pattern) & set("?["):
            # Its groups are atomic: no time is exponential, and `regex` ends what takes too long.
            self._expression = regex.compile(fnmatch.translate(pattern))
            self.literal = max(_literals(pattern), key=len, default="")
            self.needs_more = True
        else:
            self.literal = max(parts, key=len)
            is_around = len(parts) > 1 and not parts[0] and not parts[-1]
            self.needs_more = not is_around or sum(map(bool, parts)) > 1

    def matches(self, text: str, budget: Budget) -> bool:
        """Tell whether it matches all of a text.

        Raises:
            OverBudgetError: It takes too long.
        """
        if self._expression is not None:
            return found(self._expression, text, budget, whole=True)
        if "*" not in self.pattern:
            return text == self.pattern
        at, end = len(self._first), len(text) - len(self._last)
        if at > end or not text.startswith(self._first) or not text.endswith(self._last):
            return False
        for part in self._parts:
            at = text.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True


def _literals(pattern: str) -> Iterator[str]:
    """Yield the parts of a glob that every text has that matches."""
    return (part for part in regex.split(r"\*|\?|\[!?\]?[^\]]*\]", pattern) if "[" not in part)


def found(
    expression: regex.Pattern[str], text: str, budget: Budget, *, whole: bool = False
) -> bool:
    """Tell whether a regular expression is found in a text, or matches all of it.

    Raises:
        OverBudgetError: It takes too long.
    """
    search = expression.fullmatch if whole else expression.search
    try:
        return search(text, timeout=budget.left_s()) is not None
    except TimeoutError:
        raise OverBudgetError from None


def folded(text: str) -> str:
    r"""Return a text with one space for each run of white space, and none around it.

    >>> folded(" a\n\n  b ")
    'a b'
    """
    if len(text) <= _FOLDED_AT_ONCE:
        return " ".join(text.split())
    parts: list[str] = []
    for at in range(0, len(text), _FOLDED_AT_ONCE):  # so that few matches are kept at once
        part = _SPACES.sub(" ", text[at : at + _FOLDED_AT_ONCE])
        is_doubled = parts and parts[-1].endswith(" ") and part.startswith(" ")
        parts.append(part[1:] if is_doubled else part)
    return "".join(parts).strip()
