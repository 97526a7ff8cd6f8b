"""Embedding the inputs of a request, a few at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from emulator.embeddings.models import MAX_TOKENS_OF_ALL_INPUTS, MAX_TOKENS_OF_AN_INPUT
from emulator.embeddings.vectors import bags_of_words, base64_rows, json_rows
from emulator.embeddings.words import WordTable
from tokenizer import count_tokens, decode_tokens, encoding_name

Input: TypeAlias = str | Sequence[int]

# The most that is embedded in one step, so that no step holds the GIL for much over 1 ms.
_TEXTS_AT_ONCE = 32
_CHARACTERS_AT_ONCE = 1 << 15


class InputError(ValueError):
    """An input is invalid: that at ``index``, or all together; ``code`` is OpenAI's."""

    def __init__(self, message: str, code: str | None, index: int | None) -> None:
        super().__init__(message)
        self.code = code
        self.index = index


@dataclass(frozen=True, slots=True)
class Embedded:
    """The embeddings of a request as the items of a JSON array, in pieces, and their tokens."""

    pieces: Sequence[bytes | bytearray | memoryview]
    tokens: int


class Embedder:
    """Turns texts and token ids into vectors; not thread-safe."""

    def __init__(self) -> None:
        self._tables: dict[str, WordTable] = {}

    def embed(
        self, inputs: Sequence[Input], model: str, dimensions: int, *, as_base64: bool
    ) -> Iterator[tuple[bytes, int]]:
        """Yield the embeddings of some inputs at a time: a piece of JSON, and the inputs' tokens.

        Raises:
            InputError: There are too many tokens, or a token id is not in the model's encoding.
        """
        table = self._table(model)
        write = base64_rows if as_base64 else json_rows
        total = 0
        for first, texts in _batches(_texts(inputs, model)):
            words = table.look_up(texts)
            counts = [
                len(given) if isinstance(given, Sequence) and not isinstance(given, str) else count
                for given, count in zip(inputs[first:], words.tokens.tolist(), strict=False)
            ]
            for index, count in enumerate(counts, start=first):
                _check_length(count, index)
            total += sum(counts)
            if total > MAX_TOKENS_OF_ALL_INPUTS:
                raise _too_many(total)
            vectors = write(bags_of_words(words, model, dimensions))
            yield _piece(vectors, first), sum(counts)

    def _table(self, model: str) -> WordTable:
        name = encoding_name(model)
        if name not in self._tables:
            self._tables[name] = WordTable(partial(count_tokens, model=model))
        return self._tables[name]


def _piece(vectors: Sequence[bytes], first: int) -> bytes:
    """Return embeddings as JSON, preceded by a comma unless they are a request's first."""
    embeddings = b",".join(
        [
            b'{"object":"embedding","index":%d,"embedding":%b}' % item
            for item in enumerate(vectors, start=first)
        ]
    )
    return b"," + embeddings if first else embeddings


def _texts(inputs: Sequence[Input], model: str) -> Iterator[str]:
    """Yield the inputs as texts, of which none is much longer than allowed."""
    for index, given in enumerate(inputs):
        if not isinstance(given, str):
            _check_length(len(given), index)
            yield _decoded(given, model, index)
            continue
        # The tokens of shorter ones are counted later, by words.
        if len(given) > MAX_TOKENS_OF_AN_INPUT:
            _check_length(count_tokens(given, model), index)
        yield given


def _decoded(ids: Sequence[int], model: str, index: int) -> str:
    try:
        return decode_tokens(ids, model)
    except KeyError as error:
        raise InputError(
            f"Invalid 'input': expected token ids of {model}, but got {error}.",
            "invalid_value",
            index,
        ) from None


def _batches(texts: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield texts in small batches, each with the index of its first."""
    first, batch, characters = 0, list[str](), 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) == _TEXTS_AT_ONCE or characters > _CHARACTERS_AT_ONCE:
            yield first, batch
            first, batch, characters = first + len(batch), [], 0
    if batch:
        yield first, batch


def _check_length(tokens: int, index: int) -> None:
    if tokens > MAX_TOKENS_OF_AN_INPUT:
        raise InputError(
            f"This model's maximum context length is {MAX_TOKENS_OF_AN_INPUT} tokens, however you "
            f"requested {tokens} tokens ({tokens} in your prompt; 0 for the completion). Please "
            "reduce your prompt; or completion length.",
            None,
            index,
        )


def _too_many(tokens: int) -> InputError:
    return InputError(
        f"Requested at least {tokens} tokens, max {MAX_TOKENS_OF_ALL_INPUTS} tokens per request",
        "max_tokens_per_request",
        None,
    )
