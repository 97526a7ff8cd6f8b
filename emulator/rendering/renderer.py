"""How one API writes answers: the contract between its renderer and the streams."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from emulator.answers.answer import Answer, Segment
from emulator.answers.logprobs import Likelihood
from emulator.contract.errors import ErrorBody
from emulator.contract.usage import Usage
from tokenizer import TokenStream

EVENT_END = "}\n\n"

SLOT = "<slot>"
NO_LOGPROBS = '"logprobs":null'
NO_USAGE = '"usage":null'


@dataclass(slots=True)
class Header:
    """What every chunk of one answer says of it."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    service_tier: str = "default"


CountUsage: TypeAlias = Callable[[int], str]


class AnswerStream(TokenStream, Protocol):
    """The events of one answer, and what comes after them."""

    def stop_before(self, token: int) -> None:
        """Hold back this token of every choice, and those after it, until `go_on`."""

    def go_on(self) -> None:
        """Hold nothing back any more."""

    def end(self) -> str:
        """Return what comes after the last token."""


class Renderer(Protocol):
    """How one API writes an answer, whole and in parts."""

    no_logprobs: str

    def whole(self, answers: Sequence[Answer], usage: Usage) -> bytes | bytearray:
        """Return the whole answer as JSON."""

    def opening(self, answers: Sequence[Answer]) -> str:
        """Return the events that leave as soon as a stream is accepted, before its first token."""

    def stream(
        self, answers: Sequence[Answer], tokens_per_event: int, count_usage: CountUsage | None
    ) -> AnswerStream:
        """Return what renders the events as their tokens are due.

        `count_usage` returns the usage after so many tokens of a choice, as JSON, for each event.
        """

    def preamble(self, answer: Answer, segment: Segment) -> str:
        """Return the events that leave together with a segment's first token."""

    def token(self, answer: Answer, segment: Segment) -> str:
        """Return the event of one token, with `SLOT` for its text."""

    def logprobs(
        self, answer: Answer, entries: Iterable[Likelihood], offset: int, /
    ) -> Iterator[str]:
        """Yield the log probabilities of some tokens as JSON; `offset` counts characters."""

    def finish(self, answer: Answer) -> str:
        """Return the event that ends a choice."""

    def end(self, finish: str, usage: Usage | None, report: str) -> str:
        """Return what follows the last token: `finish`, the usage and the report if asked for."""

    def error(self, error: ErrorBody, report: str) -> str:
        """Return what tells of a failure in mid-stream, with the report if asked for."""


@runtime_checkable
class FailedRenderer(Protocol):
    """A renderer of answers that report their own failure."""

    def failed(self, error: ErrorBody, report: str) -> str:
        """Return the answer as JSON, with the report if asked for."""

    def failed_event(self, error: ErrorBody, report: str) -> str:
        """Return the event that ends a stream with that answer."""
