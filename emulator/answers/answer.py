"""One choice: its tokens, where each of them goes, and in which slot it leaves."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

from emulator.answers.ask import CallKind
from emulator.answers.logprobs import Likelihood, Likelihoods
from emulator.timing.plan import FinishReason


@dataclass(slots=True)
class Call:
    """A tool call; ``index`` counts the calls of one answer, ``function_call`` is deprecated."""

    index: int
    id: str
    kind: CallKind
    name: str


@dataclass(slots=True)
class Segment:
    """A run of tokens that all go to one field: content, reasoning, or a call's arguments.

    ``is_json`` says that the tokens need escapes in an event, which plain text does not. ``utf8``
    has the bytes of each token that is no whole characters, where log probabilities tell them;
    ``ids`` the ids behind each token, one or more, where they are told.
    """

    tokens: Sequence[str]
    call: Call | None = None
    reasoning: bool = False
    is_json: bool = False
    refusal: bool = False
    utf8: Sequence[bytes | None] | None = None
    ids: Sequence[Sequence[int]] | None = None

    @property
    def text(self) -> str:
        """The tokens as one text."""
        return "".join(self.tokens)

    def told_bytes(self) -> Iterator[bytes]:
        """Yield the bytes of each token."""
        for token, utf8 in zip(self.tokens, self.utf8 or repeat(None), strict=False):
            yield token.encode() if utf8 is None else utf8


@dataclass(slots=True)
class Answer:
    """One choice.

    ``slots`` is the number of tokens that it takes on the clock. ``token_slots[k]`` is the slot in
    which its token ``k`` leaves; None means token ``k`` leaves in slot ``k``. ``reasoning_tokens``
    came before it, shown or hidden, and ``summary`` sums them up. ``prompt_ids``, as JSON, are
    told with its first token, where they are told of each choice. ``stop_reason`` is the stop
    sequence, or the token id, that ended it.
    """

    index: int
    segments: list[Segment]
    finish_reason: FinishReason
    slots: int
    token_slots: Sequence[int] | None = None
    logprobs: Likelihoods | None = None
    reasoning_tokens: int = 0
    summary: str = ""
    prompt_ids: str | None = None
    stop_reason: str | int | None = None

    @property
    def tokens(self) -> int:
        """How many tokens the client gets, reasoning aside."""
        if len(self.segments) == 1:
            only = self.segments[0]
            return 0 if only.reasoning else len(only.tokens)
        return sum(len(segment.tokens) for segment in self.segments if not segment.reasoning)

    @property
    def events(self) -> int:
        """How many tokens leave, reasoning that is shown included."""
        return sum(len(segment.tokens) for segment in self.segments)

    def slot_of(self, token: int) -> int:
        """Return the slot in which a token leaves."""
        return token if self.token_slots is None else self.token_slots[token]

    def departed_by(self, slots: int) -> int:
        """Return how many tokens leave in the first `slots` slots."""
        return (
            min(slots, self.slots)
            if self.token_slots is None
            else bisect_left(self.token_slots, slots)
        )

    def likelihoods(self, segment: Segment, first: int = 0) -> Iterator[Likelihood]:
        """Yield the log probabilities of a segment's tokens from `first` on, which come next."""
        if self.logprobs is None:
            return
        for place in range(first, len(segment.tokens)):
            entry = self.logprobs.entry(segment.tokens[place])
            utf8 = segment.utf8[place] if segment.utf8 else None
            yield entry if utf8 is None else entry._replace(utf8=utf8)

    @property
    def is_steady(self) -> bool:
        """Whether it is one text whose tokens leave one in each slot."""
        segment = self.segments[0]
        return (
            len(self.segments) == 1
            and segment.call is None
            and not segment.reasoning
            and segment.ids is None
            and self.token_slots is None
            and self.logprobs is None
        )

    @property
    def is_plain(self) -> bool:
        """Whether it is steady, and plain text that needs no escapes."""
        return not self.segments[0].is_json and self.is_steady
