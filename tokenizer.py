"""Encodings, token counts, and the generator of timed tokens."""

import codecs
import hashlib
import os
from asyncio import to_thread
from collections.abc import AsyncGenerator, Sequence
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import Any, Literal, Protocol

import tiktoken
from tiktoken.model import encoding_name_for_model

from emulator.timing.clock import Sleeps, running_clock
from emulator.timing.pace import Pace
from emulator.timing.plan import Schedule

# --------------------------------------------------------------------------------------
# Encodings
# --------------------------------------------------------------------------------------

BUNDLED_VOCABULARIES = Path(__file__).parent / "tiktoken_cache"

# The file that tiktoken looks for (the sha1 of its address) and the sha256 of its content.
VOCABULARIES = {
    "cl100k_base": (
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
    "o200k_base": (
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "p50k_base": (
        "ec7223a39ce59f226a68acc30dc1af2788490e15",
        "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069",
    ),
}
DEFAULT_ENCODING = "o200k_base"
# A model of each encoding.
MODEL_OF_ENCODING = {
    "cl100k_base": "gpt-4",
    "o200k_base": "gpt-4o",
    "p50k_base": "text-davinci-003",
}


class VocabularyError(Exception):
    """A vocabulary file is missing or damaged."""


def locate_vocabularies() -> Path:
    """Point tiktoken at the vocabularies of this repository, unless the operator set a folder.

    Raises:
        VocabularyError: A file is missing or damaged. tiktoken itself would delete it and try to
            download it again; nothing is ever downloaded here.
    """
    folder = Path(os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(BUNDLED_VOCABULARIES)))
    for encoding, (file_name, sha256) in VOCABULARIES.items():
        file = folder / file_name
        remedy = (
            "Restore it with 'git checkout -- tiktoken_cache', or set TIKTOKEN_CACHE_DIR "
            "to a folder that holds it, or unset TIKTOKEN_CACHE_DIR to use the bundled one."
        )
        if not file.is_file():
            raise VocabularyError(f"The vocabulary of {encoding} is missing: {file}. {remedy}")
        if hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
            raise VocabularyError(
                f"The vocabulary of {encoding} is damaged: the sha256 of {file} is not {sha256}. "
                f"{remedy}"
            )
    return folder


def load_encodings() -> None:
    """Load every encoding, so that no request has to wait for one (about 1 s)."""
    locate_vocabularies()
    for name in VOCABULARIES:
        tiktoken.get_encoding(name)


@lru_cache(maxsize=1024)
def encoding_name(model: str) -> str:
    """Return the encoding of `model`: tiktoken's choice, else ``o200k_base``.

    >>> encoding_name("gpt-4"), encoding_name("my-model")
    ('cl100k_base', 'o200k_base')
    """
    try:
        name = encoding_name_for_model(model)
    except KeyError:
        return DEFAULT_ENCODING
    return name if name in VOCABULARIES else DEFAULT_ENCODING


@lru_cache(maxsize=1024)
def encoding_for(model: str) -> tiktoken.Encoding:
    """Return the encoding that counts the tokens of `model`."""
    return tiktoken.get_encoding(encoding_name(model))


# --------------------------------------------------------------------------------------
# Token counts
# --------------------------------------------------------------------------------------

# Roles, names and tool call ids come again and again.
_MAX_CHARACTERS_CACHED = 16
# A list of a long text's tokens would be built under the interpreter lock; an array is not.
_MAX_CHARACTERS_IN_A_LIST = 4096


def count_tokens(text: str, model: str) -> int:
    """Return the number of tokens of `text`; special tokens in it count as ordinary text.

    The interpreter lock is free while tiktoken works, so a thread may count a long text. A run of
    a million spaces or so, which tiktoken cannot split, is counted in halves, each on its own.
    """
    if len(text) <= _MAX_CHARACTERS_CACHED:
        return _count_cached(text, model)
    if len(text) <= _MAX_CHARACTERS_IN_A_LIST:
        return len(encoding_for(model).encode_ordinary(text))
    try:
        return int(encoding_for(model).encode_to_numpy(text, disallowed_special=()).size)
    except ValueError:
        half = len(text) // 2
        return count_tokens(text[:half], model) + count_tokens(text[half:], model)


@lru_cache(maxsize=4096)
def _count_cached(text: str, model: str) -> int:
    return len(encoding_for(model).encode_ordinary(text))


def encode(text: str, model: str, *, specials: bool = False) -> list[int]:
    """Return the token ids of `text`, as many as `count_tokens` counts.

    With `specials`, special tokens in it, such as ``<|endoftext|>``, are one token each.
    """
    if len(text) <= _MAX_CHARACTERS_IN_A_LIST and not specials:
        return encoding_for(model).encode_ordinary(text)
    allowed: Literal["all"] | set[str] = "all" if specials else set()
    try:
        ids = encoding_for(model).encode_to_numpy(
            text, allowed_special=allowed, disallowed_special=()
        )
    except ValueError:
        half = len(text) // 2
        parts = (text[:half], text[half:])
        return [token for part in parts for token in encode(part, model, specials=specials)]
    return list(ids.tolist())


def split_tokens(text: str, model: str) -> list[str]:
    """Return the tokens of a text, each as the characters that are complete with it.

    There are as many as `count_tokens` counts, and joined they are the text. A character whose
    bytes span tokens comes with the last of them, so that those before it may be empty. A lone
    surrogate, which no UTF-8 holds, becomes U+FFFD, as tiktoken counts it.
    """
    return complete_characters(encoding_for(model).decode_tokens_bytes(encode(text, model)))


def complete_characters(parts: Sequence[bytes]) -> list[str]:
    r"""Return for each part of some UTF-8 the characters that are complete with it.

    >>> complete_characters([b"a\xe2", b"\x82", b"\xacb"])
    ['a', '', '€b']
    """
    decode = codecs.getincrementaldecoder("utf-8")().decode
    return [decode(part) for part in parts]


def token_ids(tokens: Sequence[str], model: str) -> list[list[int]]:
    """Return the ids behind each token of a text, as `split_tokens` gave them: one each.

    A text that ends within a token is split in another way, and its last token may have more.
    """
    ids = encode("".join(tokens), model)
    if len(ids) == len(tokens):
        return [[token] for token in ids]
    return [encode(token, model) for token in tokens]


def decode_tokens(tokens: Sequence[int], model: str) -> str:
    """Return the text of token ids.

    Raises:
        KeyError: The encoding of `model` does not have one of them.
    """
    return encoding_for(model).decode(list(tokens))


def token_bytes(tokens: Sequence[int], model: str) -> list[bytes]:
    """Return the bytes of each token, which may be a part of a character.

    Raises:
        KeyError: The encoding of `model` does not have one of them.
    """
    return encoding_for(model).decode_tokens_bytes(list(tokens))


# --------------------------------------------------------------------------------------
# Timed tokens
# --------------------------------------------------------------------------------------


class TokenStream(Protocol):
    """The events of one answer, which hold its tokens and are rendered as they come due.

    ``shares`` are the parts of a write that are rendered in one go, each in a thread unless
    ``is_quick``; ``events_per_write`` bounds how many events are rendered together.
    ``may_hold_back`` says that text may be held back, so that an event may be empty.
    """

    events: int
    tokens_per_event: int
    events_per_write: int
    is_quick: bool
    may_hold_back: bool
    shares: Sequence[Any]

    def render(self, first: int, upto: int, share: Any) -> str:  # noqa: ANN401 - the stream's own
        """Return a share of the events from `first` to before `upto`."""

    def ahead(self, first: int) -> Sequence[bytes]:
        """Return some events from `first` on, rendered before they are due; none if none can be.

        They leave before any other is rendered. The stream has one share, which is quick.
        """

    def departing(self, first: int, upto: int) -> Sequence[int] | None:
        """Return which of these events hold a token, counted from `first`; None for all."""


class TokenGenerator:
    """Stands where a model would: it gives out the tokens of an answer when they are due."""

    def __init__(self) -> None:
        load_encodings()

    async def generate(
        self,
        stream: TokenStream,
        schedule: Schedule,
        start_s: float,
        pace: Pace,
        clock: Sleeps | None = None,
        sent: int = 0,
    ) -> AsyncGenerator[bytes]:
        """Yield the tokens of an answer: the first after the TTFT, each other an ITL later.

        Due times are absolute, ``start_s + schedule.due_s(token)`` on ``time.monotonic()``, so that
        a late token does not delay those after it. Each block holds the events that are due.

        `serving/pump.py` does the same for many streams at a third of the cost.

        Args:
            stream: Renders the events.
            schedule: Says when each token is due.
            start_s: The start.
            pace: Is told when each event left.
            clock: Is slept by; the event loop's clock by default, else an engine.
            sent: How many events have left already.
        """
        clock = running_clock() if clock is None else clock  # an engine is empty at first
        while sent < stream.events:
            await clock.sleep_until(start_s + schedule.due_s(sent * stream.tokens_per_event))
            upto = due_upto(stream, schedule, sent, monotonic() - start_s)
            for share in stream.shares:
                block = await _rendered(stream, sent, upto, share)
                handed_s = monotonic()
                if share is stream.shares[-1]:
                    pace.mark(handed_s, upto - sent, stream.departing(sent, upto))
                yield block
                pace.block(handed_s, monotonic())
            sent = upto
        await clock.sleep_until(start_s + schedule.total_s)


def due_upto(stream: TokenStream, schedule: Schedule, first: int, elapsed_s: float) -> int:
    """Return before which event those end that are due, the event `first` at least among them."""
    events = -(-schedule.due_count(elapsed_s) // stream.tokens_per_event)
    return min(max(events, first + 1), first + stream.events_per_write)


async def _rendered(
    stream: TokenStream,
    first: int,
    upto: int,
    share: Any,  # noqa: ANN401 - the stream's own
) -> bytes:
    if stream.is_quick:
        return stream.render(first, upto, share).encode()
    return (await to_thread(stream.render, first, upto, share)).encode()
