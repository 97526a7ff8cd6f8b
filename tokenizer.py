"""Encodings, token counts, and the generator of timed tokens."""

import hashlib
import os
from asyncio import CancelledError, to_thread
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache, partial
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, TypeAlias

import tiktoken
from tiktoken.model import encoding_name_for_model

from emulator.timing.clock import Sleeps, running_clock
from emulator.timing.pace import NOTES_KEPT, Pace
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


def encode(text: str, model: str) -> list[int]:
    """Return the token ids of `text`, as many as `count_tokens` counts."""
    if len(text) <= _MAX_CHARACTERS_IN_A_LIST:
        return encoding_for(model).encode_ordinary(text)
    try:
        ids = encoding_for(model).encode_to_numpy(text, disallowed_special=())
    except ValueError:
        half = len(text) // 2
        return encode(text[:half], model) + encode(text[half:], model)
    return list(ids.tolist())


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


# --------------------------------------------------------------------------------------
# Timed tokens
# --------------------------------------------------------------------------------------


class TokenStream(Protocol):
    """The events of one answer, which hold its tokens and are made as they are due.

    ``shares`` are the parts of a write that are rendered in one go, each in a thread unless
    ``is_quick``; ``events_per_write`` bounds how many events are rendered together. ``holds`` says
    that text may be held back, so that an event may be empty.
    """

    events: int
    tokens_per_event: int
    events_per_write: int
    is_quick: bool
    holds: bool
    shares: Sequence[Any]

    def render(self, first: int, upto: int, share: Any) -> str:  # noqa: ANN401 - the stream's own
        """Return a share of the events from `first` to before `upto`."""

    def ahead(self, first: int) -> Sequence[bytes]:
        """Return some events from `first` on, each ready to leave; none if they are not yet.

        They leave before any other is rendered. The stream has one share, which is quick.
        """

    def leaving(self, first: int, upto: int) -> Sequence[int] | None:
        """Return which of these events hold a token, counted from `first`; None for all."""


Write: TypeAlias = Callable[[bytes], bool]
"""Sends a block at once and returns True, or returns False as the client is behind."""

# Wait until an instant, send a block, render in a thread; there is nothing more to do.
_Step: TypeAlias = float | bytes | Callable[[], str] | None


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
        write: Write | None = None,
    ) -> AsyncGenerator[bytes]:
        """Yield the events that are due, as bytes that leave together, and note their pace.

        It sleeps until ``start_s + schedule.due_s(token)``, on ``time.monotonic()``: due times are
        absolute, so that a late token does not delay those after it. An event is due with the first
        of its tokens; all that are due leave at once, up to ``stream.events_per_write``. The
        iteration ends when the last token is due. The first `sent` events have left already.

        With a ``clock`` of its own the stream sleeps by that. An engine's waits for the token whose
        due time was asked for last and not known, and thus infinite.

        What ``write`` takes is not yielded. As long as it takes all and the stream is in time, the
        running clock takes the steps and this task sleeps on, which halves the cost of a token.
        """
        running = running_clock()
        sleeps, is_own = (running, False) if clock is None else (clock, True)
        with closing(
            _Steps(stream, schedule, start_s, pace, sent, None if is_own else write).take()
        ) as steps:
            step = next(steps)
            while step is not None:
                if isinstance(step, bytes):
                    yield step
                elif not isinstance(step, float):
                    step = steps.send(await to_thread(step))
                    continue
                elif step <= monotonic():
                    await sleeps.turn()
                else:
                    waiter = sleeps.wait(step) if is_own else running.drive(step, steps.send)
                    try:
                        step = await waiter
                    except CancelledError:
                        sleeps.forget(waiter)
                        raise
                    if not is_own:
                        continue
                step = steps.send(monotonic())
        if stream.tokens_per_event > 1 or not stream.events:
            await sleeps.sleep_until(start_s + schedule.total_s)


@dataclass(slots=True)
class _Steps:
    """What lets out the tokens of one stream, step by step; others do the waiting."""

    _stream: TokenStream
    _schedule: Schedule
    _start_s: float
    _pace: Pace
    _sent: int
    _write: Write | None
    _due_s: float = field(init=False)
    _now_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._due_s = self._event_due_s(self._sent)

    def take(self) -> Generator[_Step, Any, None]:
        """Yield what is to be done; expect the time when it is done, or what was rendered."""
        stream, pace, write = self._stream, self._pace, self._write
        try:
            while self._sent < stream.events:
                is_behind = self._due_s <= self._now_s
                if write and not is_behind and (ready := stream.ahead(self._sent)):
                    yield from self._let_out(ready, write)
                else:
                    yield from self._render()
                pace.settle(NOTES_KEPT)
        finally:
            pace.settle()
        yield None

    def _event_due_s(self, event: int) -> float:
        """Return the instant of an event, of one past the end that of no time."""
        if event >= self._stream.events:
            return inf
        return self._start_s + self._schedule.due_s(event * self._stream.tokens_per_event)

    def _due_upto(self, first: int, now_s: float) -> int:
        """Return before which event all that are due by now end that may leave together."""
        due = self._schedule.due_count(now_s - self._start_s)
        events = -(-due // self._stream.tokens_per_event)
        return min(max(events, first + 1), first + self._stream.events_per_write)

    def _let_out(self, ready: Sequence[bytes], write: Write) -> Generator[_Step, float, None]:
        """Let out events that have been rendered, each when it is due."""
        pace, due_s, now_s = self._pace, self._due_s, 0.0
        note, base = pace.note, self._sent
        sent, upto = base, base + len(ready)
        after_s = [self._event_due_s(event + 1) for event in range(base, upto)]
        while sent < upto:
            now_s = yield due_s
            block, due_s = ready[sent - base], after_s[sent - base]
            if due_s > now_s:
                note(now_s)
                sent += 1
            else:
                first, sent = sent, self._due_upto(sent, now_s)
                block, due_s = b"".join(ready[first - base : sent - base]), self._event_due_s(sent)
                if sent > upto:
                    block += self._stream.render(upto, sent, self._stream.shares[0]).encode()
                pace.mark(now_s, sent - first)
            if not write(block):
                pace.block(now_s, (yield block))
        self._sent, self._due_s, self._now_s = sent, due_s, now_s

    def _render(self) -> Generator[_Step, Any, None]:
        """Render all that is due, as soon as something is, and let it out."""
        stream, pace, write, first = self._stream, self._pace, self._write, self._sent
        now_s = yield self._due_s
        sent = first + 1
        due_s = self._event_due_s(sent)
        if due_s <= now_s:
            sent = self._due_upto(first, now_s)
            due_s = self._event_due_s(sent)
        for share in stream.shares:
            if stream.is_quick:
                text = stream.render(first, sent, share)
            else:
                text = yield partial(stream.render, first, sent, share)
            handed_s = monotonic()
            if share is stream.shares[-1]:
                if stream.holds or sent - first > 1:
                    pace.mark(handed_s, sent - first, stream.leaving(first, sent))
                else:
                    pace.note(handed_s)
            if text:
                block = text.encode()
                if not (write and write(block)):
                    pace.block(handed_s, (yield block))
        self._sent, self._due_s, self._now_s = sent, due_s, now_s
