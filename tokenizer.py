"""Encodings, token counts, the text that is emitted, and the generator of timed tokens."""

import hashlib
import math
import os
import random
import re
import sys
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import tiktoken
from tiktoken.model import encoding_name_for_model

from clock import sleep_until

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

# Base and tile tokens of an image, by the start of the model's name; the first match counts.
_IMAGE_TOKENS = (
    ("gpt-4o-mini", 2833, 5667),
    ("o1", 75, 150),
    ("o3", 75, 150),
    ("gpt-5", 70, 140),
    ("", 85, 170),
)
_UNKNOWN_IMAGE_SIZE = (1024, 1024)

# Roles, names and tool call ids come again and again.
_MAX_CHARACTERS_CACHED = 16
# A list of a long text's tokens would be built under the interpreter lock; an array is not.
_MAX_CHARACTERS_IN_A_LIST = 4096


class FunctionDefinition(Protocol):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def description(self) -> str | None:
        """What it does."""

    @property
    def parameters(self) -> dict[str, Any] | None:
        """The JSON schema of its arguments."""


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


def split_tokens(text: str, model: str) -> list[str]:
    """Return the tokens of an ASCII text, each as a text of its own."""
    encoding = encoding_for(model)
    return [encoding.decode([token]) for token in encoding.encode_ordinary(text)]


def decode_tokens(tokens: Sequence[int], model: str) -> str:
    """Return the text of token ids.

    Raises:
        KeyError: The encoding of `model` does not have one of them.
    """
    return encoding_for(model).decode(list(tokens))


def count_prompt_tokens(model: str, texts: Iterable[str], messages: int, named: int) -> int:
    """Return the prompt tokens of a chat's text, by the rule of OpenAI's cookbook.

    Args:
        model: Decides the encoding and what a message costs.
        texts: Every string value of the messages, roles and names included.
        messages: How many messages there are.
        named: How many of them have a name.
    """
    per_message, per_name = (4, -1) if model == "gpt-3.5-turbo-0301" else (3, 1)
    tokens = sum(count_tokens(text, model) for text in texts)
    return 3 + messages * per_message + named * per_name + tokens


def count_function_tokens(model: str, functions: Iterable[FunctionDefinition]) -> int:
    """Return the prompt tokens of function definitions, by the rule of OpenAI's cookbook."""
    per_function = 7 if encoding_name(model) == "o200k_base" else 10
    tokens = [per_function + _count_definition(function, model) for function in functions]
    return sum(tokens) + 12 if tokens else 0


def _count_definition(function: FunctionDefinition, model: str) -> int:
    tokens = count_tokens(f"{function.name}:{_undotted(function.description)}", model)
    properties = (function.parameters or {}).get("properties")
    if not isinstance(properties, dict) or not properties:
        return tokens
    return tokens + 3 + sum(_count_property(*item, model) for item in properties.items())


def _count_property(name: str, schema: object, model: str) -> int:
    keywords = schema if isinstance(schema, dict) else {}
    line = f"{name}:{keywords.get('type', '')}:{_undotted(keywords.get('description'))}"
    tokens = 3 + count_tokens(line, model)
    if isinstance(items := keywords.get("enum"), list):
        tokens += sum(3 + count_tokens(str(item), model) for item in items) - 3
    return tokens


def _undotted(text: str | None) -> str:
    return str(text or "").removesuffix(".")


def count_image_tokens(
    model: str, width: int | None, height: int | None, detail: str | None
) -> int:
    """Return the prompt tokens of one image, by OpenAI's tile formula.

    At low detail only the base counts. At any other the image is shrunk into 2048 x 2048 pixels
    and then to a short side of 768, and each tile of 512 x 512 that it touches is counted too.
    An image of unknown size counts as 1024 x 1024.

    >>> count_image_tokens("gpt-4o", 2048, 4096, "high")
    1105
    """
    base, tile = next(
        (base, tile) for start, base, tile in _IMAGE_TOKENS if model.startswith(start)
    )
    if detail == "low":
        return base
    if not width or not height:
        width, height = _UNKNOWN_IMAGE_SIZE
    scale = min(Fraction(1), Fraction(2048, max(width, height)), Fraction(768, min(width, height)))
    return base + tile * math.ceil(width * scale / 512) * math.ceil(height * scale / 512)


# --------------------------------------------------------------------------------------
# Text
#
# Every word and mark below is one token in cl100k_base, o200k_base and p50k_base alike. All
# three encodings split text at word borders before they merge bytes, so that a text of n
# such words and marks is n tokens, wherever it ends.
# --------------------------------------------------------------------------------------

_SENTENCES = """
The {adjective} {person} {verb} the {thing} near the {place}.
In the {time}, the {person} {verb} a {adjective} {thing}.
Every {place} has a {adjective} {thing} and a {adjective} {person}.
When the {person} {verb} the {thing}, the {place} was {adjective}.
Most people think that the {adjective} {thing} is still in the {place}.
It is {adjective} to find a {adjective} {thing} in the {place}.
After the {time}, the {person} walked to the {place} with a {thing}.
The {person} said that the {thing} was {adjective}, but the {person} did not agree.
There was a {adjective} {thing} behind the {place}, and the {person} {verb} it.
Once a {adjective} {person} lived in the {place}, and later {verb} the {thing}.
Before the {time}, no {person} in the {place} {verb} the {adjective} {thing}.
She {verb} the {thing} because the {person} was {adjective}.
He looked at the {thing}, then {verb} the {adjective} {thing}.
They waited in the {place} until the {person} {verb} the {thing}.
We often talked about the {person} who {verb} a {adjective} {thing}.
Near the {place} there was a {thing} so {adjective} that the {person} {verb} it again.
"""
_WORDS = {
    "adjective": """
        black blue brave bright broken careful clean clever cold common complete curious deep
        distant early empty fair famous final formal fresh friendly full gentle golden green happy
        hard heavy hidden huge large light local long lost low main modern narrow natural new nice
        perfect plain private public quick quiet rare real red rich round safe secret serious sharp
        short silent silver simple small smooth soft solid special steady strange strong sudden
        sweet tall thick thin tiny useful vast warm weak white wide wild wise wooden young
    """,
    "person": """
        baker brother builder captain child clerk coach customer dancer designer doctor driver
        editor farmer father friend guard guest hunter judge king lawyer leader manager merchant
        mother musician neighbor nurse officer painter pilot player poet prince princess queen
        reader reporter sailor scholar scientist singer sister soldier stranger student teacher
        traveler uncle visitor worker writer
    """,
    "thing": """
        apple bag basket bell bird boat book bottle bowl box bread bridge cake camera candle car
        chair clock coat coin computer cup dog door fence fish flower gate hat horse key knife
        ladder lamp letter machine map message mirror paper phone picture plan plate poem question
        radio report ring rope secret ship song statue stone story table tool train tree wall wheel
        window
    """,
    "place": """
        beach camp castle church city coast cottage desert factory farm field forest garden hall
        harbor hospital hotel house island kitchen lake library market mountain museum office
        palace park port school shop square station street temple theater tower town valley village
    """,
    "verb": """
        bought brought carried chose cleaned closed covered described discovered dropped enjoyed
        examined explained filled finished followed found gave held hid kept knew left liked lost
        loved measured moved needed noticed offered opened ordered passed picked placed planned
        prepared protected pulled pushed raised reached received recorded remembered repaired
        returned saved sent shared showed sold stole studied told took touched used wanted washed
        watched
    """,
    "time": "afternoon autumn evening morning night spring summer winter",
}
COMMON_WORDS = list(dict.fromkeys(f" {word}" for text in _WORDS.values() for word in text.split()))
_CORPUS_SENTENCES = 8192
_CORPUS_SEED = 2022


class Corpus:
    """Readable English whose every word and mark is one token, the same in every process.

    ``tokens`` holds the whole text and ``starts`` where its sentences begin; each sentence's first
    token has a leading space, which the first token of an answer loses.
    """

    def __init__(self) -> None:
        rng = random.Random(_CORPUS_SEED)
        words = {slot: text.split() for slot, text in _WORDS.items()}
        patterns = _SENTENCES.strip().splitlines()
        self.tokens: list[str] = []
        self.starts: list[int] = []
        for _ in range(_CORPUS_SENTENCES):
            self.starts.append(len(self.tokens))
            slots = re.sub(r"{(\w+)}", lambda m: rng.choice(words[m[1]]), rng.choice(patterns))
            self.tokens += re.findall(r" \w+|[.,]", f" {slots}")

    def passage(self, length: int, rng: random.Random) -> list[str]:
        """Return a text of exactly `length` tokens that begins with a sentence of rng's choice.

        The second sentence is chosen apart from the first: more texts than pairs of sentences.
        """
        first, then = rng.choice(range(len(self.starts) - 1)), rng.choice(self.starts)
        opening = self.tokens[self.starts[first] : self.starts[first + 1]]
        opening[0] = opening[0].lstrip()
        rest = length - len(opening)
        if rest <= 0:
            return opening[:length]
        following = self.tokens[then : then + rest]
        while len(following) < rest:
            following += self.tokens[: rest - len(following)]
        return opening + following


# --------------------------------------------------------------------------------------
# Timed tokens
# --------------------------------------------------------------------------------------

T = TypeVar("T")


class Schedule(Protocol):
    """When each token is due, in seconds after the start."""

    def due_s(self, index: int) -> float:
        """Return when token `index` is due."""

    def due_count(self, elapsed_s: float) -> int:
        """Return how many tokens are due at `elapsed_s`."""

    @property
    def total_s(self) -> float:
        """When the last token is due."""


class TokenGenerator:
    """Stands where a model would: it writes a text and gives out its tokens in time."""

    def __init__(self) -> None:
        load_encodings()
        self._corpus = Corpus()
        self.rng = random.Random()

    def write(self, length: int, rng: random.Random | None = None) -> list[str]:
        """Return a text as its tokens, exactly `length` of them in every encoding.

        Each text is a new one, but the same state of `rng` gives the same text.
        """
        return self._corpus.passage(length, rng or self.rng)

    async def generate(
        self,
        events: Sequence[T],
        schedule: Schedule,
        start_s: float,
        *,
        tokens_per_event: int = 1,
        most: int = sys.maxsize,
    ) -> AsyncGenerator[Sequence[T]]:
        """Yield events when they are due: all that are due, and at once, up to `most`.

        An event is due with the first of its tokens. The iteration ends when the last token is.

        Args:
            events: One for each token, or for each batch of tokens.
            schedule: When each token is due.
            start_s: The start on ``time.monotonic()``, in seconds.
            tokens_per_event: The size of a batch.
            most: How many events are yielded together at the most.
        """
        sent = 0
        while sent < len(events):
            await sleep_until(start_s + schedule.due_s(sent * tokens_per_event))
            due = -(-schedule.due_count(time.monotonic() - start_s) // tokens_per_event)
            upto = min(max(due, sent + 1), sent + most)
            yield events[sent:upto]
            sent = upto
        if tokens_per_event > 1 or not events:
            await sleep_until(start_s + schedule.total_s)
