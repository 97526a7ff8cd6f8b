"""The texts that there are to choose from."""

import random
from typing import Literal, Protocol, TypeAlias

from emulator.answers.corpus import Corpus
from emulator.answers.unicode_corpus import UnicodeCorpus
from tokenizer import MODEL_OF_ENCODING, encoding_name

TextKind: TypeAlias = Literal["english", "unicode"]


class Texts(Protocol):
    """Writes texts of a given number of tokens.

    ``rng`` is for those that no seed reproduces; ``is_ascii`` says that no character needs more.
    """

    rng: random.Random
    is_ascii: bool

    def write(self, length: int, rng: random.Random | None = None) -> list[str]:
        """Return a text of exactly `length` tokens, the same for the same state of `rng`."""


class Corpora:
    """All texts, ready to be written.

    ``rng`` is for texts that no seed has to reproduce.
    """

    def __init__(self) -> None:
        self.rng = random.Random()
        self._english = Corpus(self.rng)
        self._unicode = {
            encoding: UnicodeCorpus(model, self.rng)
            for encoding, model in MODEL_OF_ENCODING.items()
        }

    def of(self, kind: TextKind, model: str) -> Texts:
        """Return the texts of a kind, in the tokens of a model."""
        return self._english if kind == "english" else self._unicode[encoding_name(model)]
