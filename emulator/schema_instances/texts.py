"""Making strings: lengths, patterns and formats."""

import random
from collections.abc import Iterator
from functools import partial

from .checking import Checker
from .document import Document
from .errors import Path, SchemaError, UnsatisfiableError
from .formats import FORMATS, HINTS, UNICODE_WORDS, WORDS, words
from .limits import CHARACTERS_A_STEP, MAX_TEXT, TRIES
from .parts import Spot
from .style import Style


class TextMaker:
    """Makes strings, by trying candidates until one satisfies all schemas."""

    def __init__(
        self, document: Document, checker: Checker, rng: random.Random, style: Style
    ) -> None:
        self._is_ascii = style.is_ascii
        self._words = WORDS if style.is_ascii else UNICODE_WORDS
        self._document = document
        self._spend = document.budget.spend
        self._checker = checker
        self._rng = rng

    def make(self, spot: Spot) -> str:
        """Return a string that satisfies `spot`.

        Raises:
            SchemaError: It is longer than ``MAX_TEXT``, or exceeds the budget.
            UnsatisfiableError: None was found.
        """
        low, high = spot.counts("minLength", "maxLength")
        if low > MAX_TEXT:
            raise SchemaError(f"minLength {low} is above the limit of {MAX_TEXT}", spot.path)
        rules = spot.having("pattern", "format")
        for text in self._candidates(spot, low, high):
            self._spend(spot.path, len(text) // CHARACTERS_A_STEP)
            if low <= len(text) <= high and all(
                all(self._checker.text_rules(schema, text, path)) for schema, path in rules
            ):
                return text
        raise UnsatisfiableError("no text was found that satisfies it", spot.path)

    def _candidates(self, spot: Spot, low: int, high: int) -> Iterator[str]:
        for schema, _ in spot.having("format"):
            if schema["format"] in FORMATS:
                yield FORMATS[schema["format"]].write(self._rng)
        if self._is_ascii and (hints := _hints(spot)):
            yield self._rng.choice(hints)
        yield words(low, high, self._rng, self._words)
        for schema, path in spot.having("pattern"):
            yield from self._pattern_texts(schema["pattern"], low, high, (*path, "pattern"))

    def _pattern_texts(self, pattern: str, low: int, high: int, path: Path) -> Iterator[str]:
        parsed = self._document.pattern(pattern, path)
        if parsed.shortest > min(high, MAX_TEXT):
            raise UnsatisfiableError("the pattern's texts are too long", path)
        spend = partial(self._spend, path)
        for turn in range(2 * TRIES):
            goal = max(low, min(high, parsed.shortest + 3 * (1 + turn // 8)))
            slack = max(0, goal - parsed.shortest)
            made = parsed.write(self._rng, slack, eager=turn % 2 == 0, spend=spend)
            yield made
            if len(made) < low:
                yield made + words(low - len(made), low - len(made), self._rng)


def _hints(spot: Spot) -> tuple[str, ...]:
    """Return values that the property's name suggests."""
    path = spot.parts[-1][1] if spot.parts else ()
    return HINTS.get(str(path[-1])[:20].lower(), ()) if path else ()
