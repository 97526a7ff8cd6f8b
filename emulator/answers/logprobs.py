"""Plausible log probabilities of tokens: of an answer by chance or seed, or as a text implies."""

import hashlib
import math
import random
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol, TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from emulator.answers.corpus import COMMON_WORDS
from tokenizer import token_bytes, token_ids

Floats: TypeAlias = NDArray[np.float64]


def in_bytes(token: bytes) -> str:
    r"""Return the name of a token that splits a character, as OpenAI writes it.

    >>> in_bytes(b" \xf0\x9f")
    ' \\xf0\\x9f'
    """
    return token.decode("utf-8", "backslashreplace")


class Likelihood(NamedTuple):
    """A token, the logarithm of its probability, and the likeliest tokens with theirs.

    ``token`` is the characters that are complete with it. ``utf8`` are its bytes where these are no
    whole characters.
    """

    token: str
    logprob: float
    top: list[tuple[str, float]]
    utf8: bytes | None = None

    def named(self, prefix: str = "") -> tuple[str, list[tuple[str, float]]]:
        """Return the token as a text, and the likeliest ones, of which it may be one.

        A part of a character is told by its bytes, with `prefix` before them.
        """
        if self.utf8 is None:
            return self.token, self.top
        name, itself = prefix + in_bytes(self.utf8), (self.token, self.logprob)
        return name, [(name, o[1]) if o == itself else o for o in self.top]


class Likelihoods(Protocol):
    """Gives the log probabilities of a text token by token, each with ``top`` alternatives."""

    top: int

    def entry(self, token: str) -> Likelihood:
        """Return the entry of the text's next token."""


class Logprobs:
    """Plausible log probabilities of an answer's tokens, the same for the same seed.

    Each token's probability p is between 0.4 and 1, and alternative k, counted from 1, has
    (1 - p) / 2**k, so that the token comes first and all of them sum to less than 1.
    """

    def __init__(self, rng: random.Random, top: int) -> None:
        self._rng = rng
        self.top = top

    def entry(self, token: str) -> Likelihood:
        """Return the entry of the answer's next token."""
        rest = 0.6 * (1 - self._rng.random()) ** 2
        others = [word for word in self._rng.sample(COMMON_WORDS, self.top) if word != token]
        alternatives = [(other, math.log(rest / 2**k)) for k, other in enumerate(others, start=1)]
        itself = (token, math.log(1 - rest))
        return Likelihood(*itself, [itself, *alternatives][: self.top])


def bytes_of_parts(tokens: Sequence[str], model: str) -> list[bytes | None] | None:
    """Return the bytes of each token of a text that is no whole characters; None if all are."""
    if "".join(tokens).isascii():
        return None
    utf8 = [b"".join(token_bytes(ids, model)) for ids in token_ids(tokens, model)]
    return [None if b == t.encode() else b for b, t in zip(utf8, tokens, strict=True)]


# --------------------------------------------------------------------------------------
# As a text implies
# --------------------------------------------------------------------------------------

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio, odd
_GREEDY = 0.25  # the share of tokens that are the likeliest at their place
_LEAST_REST = 1e-6  # so that no log probability is 0
_LN_2 = math.log(2)
_AT_ONCE = 8192

_Figures: TypeAlias = tuple[float, int, list[float], list[int]]


class ScoredPrompts(NamedTuple):
    """Prompts with log probabilities.

    Args:
        ends: For each the state of a `TextLogprobs` after its last token.
        figures: How many log probabilities they have, in all choices.
        parts: All that is told of them, in the form of their API.
    """

    ends: Sequence[int]
    figures: int
    parts: Sequence[bytes | bytearray]


class TextLogprobs:
    """Plausible log probabilities of the tokens of a text, from its beginning on.

    They follow from the model's name and the bytes of the tokens up to their own, and from nothing
    else, so that they are the same in every process. A quarter of the tokens are the likeliest at
    their place, with a probability p between 0.4 and 1; that of the others is between e**-9.1 and
    1/3. Alternative k, counted from 1, has (1 - p) / 2**k; its word follows from the text before.

    Args:
        state: What stands for the text before, as `start` or the ``end`` of another has it.
        top: How many of the likeliest tokens an entry has, and its own if it is not one of them.
    """

    __slots__ = ("_figures", "_states", "top")

    def __init__(self, state: int, top: int) -> None:
        self._states = array("Q", [state])
        self._figures: Iterator[_Figures] | None = None
        self.top = top

    @staticmethod
    def start(model: str) -> int:
        """Return what stands for no text yet."""
        digest = hashlib.blake2b(model.encode("utf-8", "replace"), digest_size=8).digest()
        return int.from_bytes(digest, "big")

    @property
    def end(self) -> int:
        """What stands for all of the text."""
        return self._states[-1]

    def follow(self, tokens: Iterable[bytes]) -> None:
        """Take the text's tokens, as UTF-8; `entry` gives theirs."""
        self._states = array("Q", accumulate(map(crc32, tokens), _after, initial=self._states[0]))

    def entry(self, token: str) -> Likelihood:
        """Return the entry of the text's next token."""
        if self._figures is None:
            self._figures = _figures(self._states, self.top)
        logprob, place, others, numbers = next(self._figures)
        if not self.top:
            return Likelihood(token, logprob, [])
        words = [COMMON_WORDS[number] for number in numbers]
        if token in words:
            words.remove(token)
        likely = [*zip(words, others, strict=False)]
        likely.insert(place, (token, logprob))
        return Likelihood(token, logprob, likely[: max(self.top, place + 1)])


def _after(state: int, crc: int) -> int:
    """Return what stands for a text and one more token."""
    mixed = ((state ^ crc) * _GOLDEN + 1) & _MASK
    return mixed ^ mixed >> 32


def _figures(states: Sequence[int], top: int) -> Iterator[_Figures]:
    """Yield for each token its log probability, and what is told of the alternatives.

    That is how many are likelier, the log probability of each, and the numbers of their words, of
    which there is one more, as the token may be one of them.
    """
    number = np.arange(top + 1, dtype=np.uint64)
    most_words = np.uint64(len(COMMON_WORDS))
    most_steps = most_words // np.uint64(top + 1)  # so that no word comes twice
    for at in range(0, len(states) - 1, _AT_ONCE):
        mixed = np.array(states[at : at + _AT_ONCE + 1], np.uint64) * np.uint64(_GOLDEN)
        before, own = mixed[:-1, np.newaxis], mixed[1:, np.newaxis]
        chance = (own >> np.uint64(11)) * 2.0**-53
        probability = np.where(
            chance < _GREEDY,
            1 - np.maximum(0.6 * (1 - chance / _GREEDY) ** 2, _LEAST_REST),
            np.exp(-1.1 - 8 * (chance - _GREEDY) / (1 - _GREEDY)),
        )
        logprob = _shortened(np.log(probability))
        others = _shortened(np.log(1 - probability) - _LN_2 * np.arange(1, top + 1))
        start, step = before >> np.uint64(48), before >> np.uint64(32) & np.uint64(0xFFFF)
        words = (start + (step % most_steps + np.uint64(1)) * number) % most_words
        yield from zip(
            logprob[:, 0].tolist(),
            (others > logprob).sum(axis=1).tolist(),
            others.tolist(),
            words.tolist(),
            strict=True,
        )


def _shortened(logprobs: Floats) -> Floats:
    """Return log probabilities with 6 digits after the point, and none above itself."""
    return np.floor(logprobs * 1e6) / 1e6
