"""The words and the token counts of texts, by a table of the words seen before."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]

# The most words in the table, and characters of them, before it is cleared.
MAX_WORDS = 1 << 16
MAX_CHARACTERS = 1 << 21

# Chinese, Japanese and Korean have no spaces: each character counts as a word.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")

# Words that are in every text get less weight.
_COMMON_TEXT = """
    a about all also an and any are as at be been but by can could did do does for from had has have
    he her his how i if in into is it its just me more most my no not of on one only or other our
    out she should so some such than that the their them then there these they this to up was we
    were what when where which who will with would you your
"""
_COMMON = frozenset(_COMMON_TEXT.split())
_COMMON_WEIGHT, _WEIGHT = 1, 4


@dataclass(frozen=True, slots=True)
class Words:
    """The words of several texts.

    ``hashes`` and ``weights`` are by word; ``counts`` (of words) and ``tokens`` are by text.
    """

    hashes: NDArray[np.uint64]
    weights: Integers
    counts: Integers
    tokens: Integers


class WordTable:
    """Caches the words and the token counts of pieces between spaces; not thread-safe.

    All encodings split a text at each single space before they merge bytes, so that the tokens of
    a text are those of its pieces with their spaces.

    Args:
        count: Returns the number of tokens of a text.
    """

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count
        self._forget()

    def _forget(self) -> None:
        self._pieces = _Pieces(self._add)
        self._characters = 0
        self._filled = 0
        self._tokens = np.zeros(MAX_WORDS, np.int64)
        self._starts = np.zeros(MAX_WORDS, np.int64)
        self._lengths = np.zeros(MAX_WORDS, np.int64)
        self._hashes = np.zeros(MAX_WORDS, np.uint64)
        self._weights = np.zeros(MAX_WORDS, np.int64)

    def look_up(self, texts: Sequence[str]) -> Words:
        """Return the words of texts."""
        if len(self._pieces) > MAX_WORDS or self._characters > MAX_CHARACTERS:
            self._forget()
        # A text of white space counts as a word, so that no text is without one.
        split = [text.split() or [text] for text in texts]
        sizes = np.array(list(map(len, split)), np.int64)
        numbers = map(self._pieces.__getitem__, chain.from_iterable(split))
        ids = np.fromiter(numbers, np.int64, int(sizes.sum()))
        starts = np.cumsum(sizes) - sizes
        spaced = np.add.reduceat(self._tokens[ids], starts) - self._tokens[ids[starts]]
        tokens = [
            rest + self._count(pieces[0]) if " ".join(pieces) == text else self._count(text)
            for text, pieces, rest in zip(texts, split, spaced.tolist(), strict=True)
        ]
        lengths = self._lengths[ids]
        words = _ranges(self._starts[ids], lengths)
        return Words(
            self._hashes[words],
            self._weights[words],
            np.add.reduceat(lengths, starts),
            np.array(tokens, np.int64),
        )

    def _add(self, piece: str) -> int:
        """Add a piece; return its number."""
        number, first = len(self._pieces), self._filled
        words = _WORD.findall(piece.lower()) or [piece]
        self._make_room(number + 1, first + len(words))
        self._tokens[number] = self._count(f" {piece}")
        self._starts[number], self._lengths[number] = first, len(words)
        for index, word in enumerate(words, start=first):
            self._hashes[index] = crc32(word.encode("utf-8", "surrogatepass"))
            self._weights[index] = _COMMON_WEIGHT if word in _COMMON else _WEIGHT
        self._filled += len(words)
        self._characters += len(piece)
        return number

    def _make_room(self, pieces: int, words: int) -> None:
        """Grow the tables if they are too short for so many pieces and words."""
        if pieces > len(self._tokens):
            self._tokens = np.resize(self._tokens, 2 * pieces)
            self._starts = np.resize(self._starts, 2 * pieces)
            self._lengths = np.resize(self._lengths, 2 * pieces)
        if words > len(self._hashes):
            self._hashes = np.resize(self._hashes, 2 * words)
            self._weights = np.resize(self._weights, 2 * words)


class _Pieces(dict[str, int]):
    """The numbers of the pieces; a missing one is added."""

    def __init__(self, learn: Callable[[str], int]) -> None:
        super().__init__()
        self._learn = learn

    def __missing__(self, piece: str) -> int:
        number = self[piece] = self._learn(piece)
        return number


def _ranges(starts: Integers, lengths: Integers) -> Integers:
    """Return the concatenation of the ranges that begin at `starts`.

    >>> _ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    ends = np.cumsum(lengths)
    numbers: Integers = np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)
    return numbers
