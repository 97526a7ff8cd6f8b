"""Texts for custom tools whose input has to follow a grammar."""

import random
import time

from emulator.answers.ask import OfferedCall
from emulator.contract.errors import APIError
from emulator.grammars import GrammarError, read_grammar
from tokenizer import split_tokens

MAX_TEXTS_S = 5  # CPU time of all texts of one request


class GrammarTexts:
    """Makes the texts of one request.

    Args:
        model: Decides the tokens.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._spent_s = 0.0

    def tokens(self, call: OfferedCall, rng: random.Random) -> list[str] | None:
        """Return a text for a call; None if any text will do.

        Raises:
            APIError: The grammar is not understood, allows no text, or takes too long.
        """
        if call.grammar is None:
            return None
        try:
            return self._make(call.grammar, rng)
        except GrammarError as error:
            raise APIError(
                f"Invalid grammar for '{call.param}': {error}.",
                param=call.param,
                code="invalid_grammar",
            ) from None

    def _make(self, source: tuple[str, str], rng: random.Random) -> list[str] | None:
        started_s = time.thread_time()
        grammar = read_grammar(*source)
        if grammar.takes_any_text:
            return None
        tokens = split_tokens(grammar.write(rng), self._model)
        self._spent_s += time.thread_time() - started_s
        if self._spent_s > MAX_TEXTS_S:
            raise GrammarError(f"all its texts take over {MAX_TEXTS_S} s")
        return tokens
