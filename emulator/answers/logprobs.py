"""Plausible log probabilities of an answer's tokens."""

import math
import random
from typing import NamedTuple

from emulator.answers.corpus import COMMON_WORDS


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
        r"""Return the token as a text, and the likeliest ones, itself the first.

        A part of a character is told by its bytes: ``\xf0\x9f``, with `prefix` before it.
        """
        if self.utf8 is None:
            return self.token, self.top
        name = prefix + self.utf8.decode("utf-8", "backslashreplace")
        return name, [(name, value) for _, value in self.top[:1]] + self.top[1:]


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
