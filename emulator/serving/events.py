"""What all APIs share in writing answers: headers, token events, streams."""

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

from emulator.answers.answer import Answer, Segment
from emulator.answers.logprobs import Likelihood
from emulator.contract.errors import ErrorBody, ErrorEnvelope
from emulator.contract.usage import Usage
from tokenizer import TokenStream

EVENT_END = "}\n\n"
DONE = "data: [DONE]\n\n"

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

    def stream(
        self, answers: Sequence[Answer], tokens_per_event: int, count_usage: CountUsage | None
    ) -> AnswerStream:
        """Return what renders the events as their tokens are due.

        `count_usage` returns the usage after so many tokens of a choice, as JSON, for each event.
        """

    def lead(self, answer: Answer, segment: Segment) -> str:
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

    def error(self, error: ErrorBody) -> str:
        """Return the event of a failure in mid-stream."""


def end_of_chunks(finish: str, usage: str, report: str) -> str:
    """Return the end of a stream of chunks: its last events, with the report if any, and DONE."""
    return _reported(finish, report) + _reported(usage, report) + DONE


def error_chunk(error: ErrorBody) -> str:
    """Return the event of a failure in mid-stream, after which there is no DONE."""
    return f"data: {ErrorEnvelope(error=error).model_dump_json()}\n\n"


def _reported(events: str, report: str) -> str:
    """Put the report into the last of some events, if there are both."""
    if not (events and report):
        return events
    return f'{events.removesuffix(EVENT_END)},"emulation":{report}{EVENT_END}'


class TokenEvent:
    """The event of one token of a segment, made ready for text and log probabilities.

    Only these two differ between the events of a segment, so that the rest is rendered once.
    """

    def __init__(self, rendered: str, no_logprobs: str) -> None:
        self.head, _, tail = rendered.rpartition(SLOT)
        self.tail = tail
        self._middle, _, self._end = tail.partition(no_logprobs)

    def render(self, text: str, logprobs: str | None = None) -> str:
        """Return the event with `text`, which need not be escaped, and `logprobs` as JSON."""
        escaped = json.dumps(text)[1:-1]
        if logprobs is None:
            return f"{self.head}{escaped}{self.tail}"
        return f'{self.head}{escaped}{self._middle}"logprobs":{logprobs}{self._end}'


class Frame:
    """JSON that was rendered once, from the model that describes it, with places for what differs.

    Args:
        rendered: The JSON.
        places: What stands in it where a value is to go, in order.

    >>> Frame('{"id":"<id>","n":-1}', '<id>', '-1').filled("x", "3")
    '{"id":"x","n":3}'
    """

    def __init__(self, rendered: str, *places: str) -> None:
        self._parts: list[str] = []
        for place in places:
            part, _, rendered = rendered.partition(place)
            self._parts += (part, "")
        self._parts.append(rendered)

    def filled(self, *values: str) -> str:
        """Return the JSON with `values` in their places; each is JSON, or a part of a string."""
        parts = self._parts.copy()
        parts[1::2] = values
        return "".join(parts)


def with_logprobs(
    rendered: str, renderer: Renderer, answers: Sequence[Answer]
) -> bytes | bytearray:
    """Return a whole answer as UTF-8, with the log probabilities that it was rendered without.

    They are written token by token: while a model is dumped no other thread runs.
    """
    if answers[0].logprobs is None:
        return rendered.encode()
    start, *rest = rendered.split(renderer.no_logprobs)
    body = bytearray(start, "utf-8")
    for answer, after in zip(answers, rest, strict=True):
        entries = map(answer.logprobs.entry, answer.segments[-1].tokens) if answer.logprobs else ()
        body += b'"logprobs":'
        for part in renderer.logprobs(answer, entries, 0):
            body += part.encode()
        body += after.encode()
    return body


# --------------------------------------------------------------------------------------
# Streams
# --------------------------------------------------------------------------------------


# What one write holds at the most, and with it how long a stream with many due tokens keeps the
# others waiting: about 0.1 ms of plain text.
PLAIN_EVENTS_PER_WRITE = 256
# To render some in one go is cheaper than one at a time, and a stream keeps 5 KB more.
EVENTS_AHEAD = 16
# How long anything else may keep them waiting. What takes longer is rendered in a thread.
STEP_US = 1000

# About what a token takes to render, and on top of it its log probability and each likely token.
_TOKEN_US = 2
_LOGPROB_US = 4
_LIKELY_US = 1.5


def rendering_us(answers: Sequence[Answer], tokens: int) -> float:
    """Return about how long it takes to render so many tokens of each answer, in microseconds."""
    logprobs = answers[0].logprobs
    each = _TOKEN_US if logprobs is None else _TOKEN_US + _LOGPROB_US + _LIKELY_US * logprobs.top
    return len(answers) * tokens * each


class PlainStream:
    """The events of one answer of plain text: all that is due is joined in one step."""

    events_per_write = PLAIN_EVENTS_PER_WRITE
    shares: Sequence[Any] = (None,)
    is_quick = True
    holds = False

    def __init__(self, renderer: Renderer, answer: Answer, tokens_per_event: int) -> None:
        segment = answer.segments[0]
        tokens, self.tokens_per_event = segment.tokens, tokens_per_event
        self._tokens = tokens
        self._texts = self._all_texts = (
            tokens
            if tokens_per_event == 1
            else [
                "".join(tokens[i : i + tokens_per_event])
                for i in range(0, len(tokens), tokens_per_event)
            ]
        )
        self.events = len(self._texts)
        event = TokenEvent(renderer.token(answer, segment), renderer.no_logprobs)
        self._lead = renderer.lead(answer, segment)
        self._finish = partial(renderer.finish, answer)
        self._head, self._tail, self._between = event.head, event.tail, event.tail + event.head

    def stop_before(self, token: int) -> None:
        """Hold back a token, and those after it, until `go_on`."""
        event, part = divmod(token, self.tokens_per_event)
        if part and event < len(self._texts):
            start = event * self.tokens_per_event
            self._texts = [*self._texts[:event], "".join(self._tokens[start:token])]

    def go_on(self) -> None:
        """Hold nothing back any more."""
        self._texts = self._all_texts

    def render(self, first: int, upto: int, _: object) -> str:
        """Return the events from `first` to before `upto`."""
        if not first:
            return self._lead + self._joined(0, upto)
        if upto - first == 1:
            return f"{self._head}{self._texts[first]}{self._tail}"
        return self._joined(first, upto)

    def ahead(self, first: int) -> list[bytes]:
        """Return some events from `first` on, each ready to leave."""
        if not first:
            return [self.render(0, 1, None).encode()]
        head, tail = self._head, self._tail
        texts = self._texts[first : first + EVENTS_AHEAD]
        return [f"{head}{text}{tail}".encode() for text in texts]

    def _joined(self, first: int, upto: int) -> str:
        return f"{self._head}{self._between.join(self._texts[first:upto])}{self._tail}"

    def leaving(self, _: int, __: int) -> None:
        """Hold nothing back."""

    def end(self) -> str:
        """Return what comes after the last token."""
        return self._finish() if self.events else self._lead + self._finish()


class MixedStream:
    """The events of any answers: choices, reasoning, tool calls, log probabilities, held text.

    ``shares`` are the parts of the answers that are rendered in one go, each in a thread unless
    ``is_quick``.
    """

    def __init__(
        self,
        renderer: Renderer,
        answers: Sequence[Answer],
        tokens_per_event: int,
        count_usage: CountUsage | None,
    ) -> None:
        slots = max(answer.slots for answer in answers)
        self.tokens_per_event = tokens_per_event
        self.events = -(-slots // tokens_per_event)
        self._held = [answer for answer in answers if answer.leaves is not None]
        self.holds = bool(self._held)
        step_us = rendering_us(answers, tokens_per_event)
        self.is_quick = step_us <= STEP_US
        self.events_per_write = max(int(STEP_US / step_us), 1)
        self._cursors = [
            _Cursor(renderer, answer, tokens_per_event, slots, count_usage) for answer in answers
        ]
        many = max(int(len(answers) * STEP_US / step_us), 1)
        self.shares: Sequence[Any] = [
            self._cursors[i : i + many] for i in range(0, len(answers), many)
        ]

    def leaving(self, first: int, upto: int) -> list[int] | None:
        """Return which of these events hold a token, counted from `first`; None for all.

        Those of which every token is held back are empty, or hold no more than a choice's end.
        """
        if not self._held:
            return None
        size = self.tokens_per_event
        return [
            event - first
            for event in range(first, upto)
            if any(
                answer.left_after((event + 1) * size) > answer.left_after(event * size)
                for answer in self._held
            )
        ]

    def stop_before(self, token: int) -> None:
        """Hold back this token of every answer, and those after it, until `go_on`."""
        for cursor in self._cursors:
            cursor.stop_before(token)

    def go_on(self) -> None:
        """Hold nothing back any more."""
        for cursor in self._cursors:
            cursor.go_on()

    def render(self, first: int, upto: int, share: Sequence["_Cursor"]) -> str:
        """Return a share of the events from `first` to before `upto`, in the order of due times."""
        size = self.tokens_per_event
        slots = range((first + 1) * size - 1, (upto + 1) * size - 1, size)
        return "".join(cursor.advance(slot) for slot in slots for cursor in share)

    def ahead(self, _: int) -> Sequence[bytes]:
        """Render nothing ahead: cursors go forward when it is time."""
        return ()

    def end(self) -> str:
        """Return what comes after the last token."""
        return "".join(cursor.advance(sys.maxsize) for cursor in self._cursors)


def stream_events(
    renderer: Renderer,
    answers: Sequence[Answer],
    tokens_per_event: int,
    count_usage: CountUsage | None = None,
) -> PlainStream | MixedStream:
    """Return what renders the events of some answers."""
    if len(answers) == 1 and answers[0].is_plain and count_usage is None:
        return PlainStream(renderer, answers[0], tokens_per_event)
    return MixedStream(renderer, answers, tokens_per_event, count_usage)


class _Cursor:
    """How far one answer of a mixed stream has come."""

    def __init__(
        self,
        renderer: Renderer,
        answer: Answer,
        batch_size: int,
        slots_of_all: int,
        count_usage: CountUsage | None,
    ) -> None:
        self._renderer = renderer
        self._count_usage = count_usage
        self._answer = answer
        self._batch_size = batch_size
        # The choices that end with the stream end it together, after its last token.
        ends_before = answer.slots < slots_of_all
        self._last_slot = answer.slots - 1 if ends_before else sys.maxsize
        self._segments = iter(answer.segments)
        self._event = TokenEvent("", renderer.no_logprobs)
        self._enters = ""
        self._segment = self._enter(next(self._segments))
        self._in_segment = 0
        self._sent = 0
        self._total = answer.events
        self._ends = (self._total, self._last_slot)
        self._offset = 0
        self._ended = False

    def advance(self, slot: int) -> str:
        """Return the events up to `slot`, and the end of the choice if it is due."""
        events: list[str] = []
        while self._leaves(self._sent) <= slot:
            while self._in_segment == len(self._segment.tokens):
                self._segment = self._enter(next(self._segments))
                self._in_segment = 0
            events.append(self._counted(self._take_lead()))
            events.append(self._counted(self._batch(slot)))
        if slot >= self._last_slot and not self._ended:
            self._ended = True
            finish = self._take_lead() + self._renderer.finish(self._answer)
            events.append(self._counted(finish))
        return "".join(events)

    def _counted(self, events: str) -> str:
        """Return events with the usage so far, where the client wants it with each."""
        if self._count_usage is None:
            return events
        # It stands in no text, where the quotation marks are escaped.
        return events.replace(NO_USAGE, f'"usage":{self._count_usage(self._sent)}')

    def stop_before(self, token: int) -> None:
        """Hold back a token and all that comes after it."""
        if token < self._total:
            self._total, self._last_slot = token, sys.maxsize

    def go_on(self) -> None:
        """Hold nothing back any more."""
        self._total, self._last_slot = self._ends

    def _leaves(self, token: int) -> float:
        if token >= self._total:
            return math.inf
        return token if self._answer.leaves is None else self._answer.leaves[token]

    def _enter(self, segment: Segment) -> Segment:
        rendered = self._renderer.token(self._answer, segment)
        self._event = TokenEvent(rendered, self._renderer.no_logprobs)
        self._enters += self._renderer.lead(self._answer, segment)
        return segment

    def _take_lead(self) -> str:
        """Return the events that come before a segment's first token, once."""
        lead, self._enters = self._enters, ""
        return lead

    def _batch(self, slot: int) -> str:
        """Return the event of the next tokens of the segment, as many as fit and may leave."""
        first, last = self._in_segment, self._in_segment
        most = min(first + self._batch_size, len(self._segment.tokens))
        while last < most and self._leaves(self._sent) <= slot:
            last += 1
            self._sent += 1
        self._in_segment = last
        tokens = self._segment.tokens[first:last]
        return self._event.render("".join(tokens), self._logprobs(self._segment, tokens))

    def _logprobs(self, segment: Segment, tokens: Sequence[str]) -> str | None:
        source = self._answer.logprobs
        if source is None or segment.reasoning:
            return None
        offset = self._offset
        self._offset += sum(map(len, tokens))
        entries = map(source.entry, tokens)
        return "".join(self._renderer.logprobs(self._answer, entries, offset))
