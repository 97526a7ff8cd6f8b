"""The events of answers, rendered as their tokens are due."""

import math
import sys
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any, ClassVar

from emulator.answers.answer import Answer, Segment
from emulator.rendering.frames import TokenEvent, escaped
from emulator.rendering.renderer import NO_USAGE, CountUsage, Renderer
from emulator.rendering.token_ids import with_token_ids

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
    may_hold_back = False

    def __init__(self, renderer: Renderer, answer: Answer, tokens_per_event: int) -> None:
        segment = answer.segments[0]
        tokens, self.tokens_per_event = segment.tokens, tokens_per_event
        self._escapes = segment.is_json
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
        self._preamble = renderer.preamble(answer, segment)
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
            return self._preamble + self._joined(0, upto)
        if upto - first == 1 and not self._escapes:
            return f"{self._head}{self._texts[first]}{self._tail}"
        return self._joined(first, upto)

    def ahead(self, first: int) -> list[bytes]:
        """Return some events from `first` on, each ready to leave."""
        if not first:
            return [self.render(0, 1, None).encode()]
        head, tail = self._head, self._tail
        texts = self._texts[first : first + EVENTS_AHEAD]
        if self._escapes:
            return [f"{head}{escaped(text)}{tail}".encode() for text in texts]
        return [f"{head}{text}{tail}".encode() for text in texts]

    def _joined(self, first: int, upto: int) -> str:
        texts = self._texts[first:upto]
        if self._escapes:
            texts = list(map(escaped, texts))
        return f"{self._head}{self._between.join(texts)}{self._tail}"

    def departing(self, _: int, __: int) -> None:
        """Hold nothing back."""

    def end(self) -> str:
        """Return what comes after the last token."""
        return self._finish() if self.events else self._preamble + self._finish()


class MixedStream:
    """The events of any answers: choices, reasoning, tool calls, log probabilities, held text.

    ``shares`` are the parts of the answers that are rendered in one go, each in a thread unless
    ``is_quick``. A ``cursor`` goes through each answer.
    """

    cursor: "ClassVar[type[Cursor]]"

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
        self._held = [answer for answer in answers if answer.token_slots is not None]
        self.may_hold_back = bool(self._held)
        step_us = rendering_us(answers, tokens_per_event)
        self.is_quick = step_us <= STEP_US
        self.events_per_write = max(int(STEP_US / step_us), 1)
        self._cursors = [
            self.cursor(renderer, answer, tokens_per_event, slots, count_usage)
            for answer in answers
        ]
        many = max(int(len(answers) * STEP_US / step_us), 1)
        self.shares: Sequence[Any] = [
            self._cursors[i : i + many] for i in range(0, len(answers), many)
        ]

    def departing(self, first: int, upto: int) -> list[int] | None:
        """Return the indices of the events with a token, counted from `first`; None for all.

        Those of which every token is held back are empty, or hold no more than a choice's end.
        """
        if not self._held:
            return None
        size = self.tokens_per_event
        return [
            event - first
            for event in range(first, upto)
            if any(
                answer.departed_by((event + 1) * size) > answer.departed_by(event * size)
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

    def render(self, first: int, upto: int, share: Sequence["Cursor"]) -> str:
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
    if len(answers) == 1 and answers[0].is_steady and count_usage is None:
        return PlainStream(renderer, answers[0], tokens_per_event)
    return MixedStream(renderer, answers, tokens_per_event, count_usage)


class Cursor:
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
            events.append(self._counted(self._take_preamble()))
            events.append(self._counted(self._batch(slot)))
        if slot >= self._last_slot and not self._ended:
            self._ended = True
            for segment in self._segments:  # of no tokens
                self._segment = self._enter(segment)
            events.append(self._counted(self._take_preamble() + self._finish()))
        return "".join(events)

    def _finish(self) -> str:
        """Return the event that ends the choice."""
        return self._renderer.finish(self._answer)

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
        return token if self._answer.token_slots is None else self._answer.token_slots[token]

    def _enter(self, segment: Segment) -> Segment:
        rendered = self._renderer.token(self._answer, segment)
        self._event = TokenEvent(rendered, self._renderer.no_logprobs)
        self._enters += self._renderer.preamble(self._answer, segment)
        return segment

    def _take_preamble(self) -> str:
        """Return the events that come before a segment's first token, once."""
        preamble, self._enters = self._enters, ""
        return preamble

    def _batch(self, slot: int) -> str:
        """Return the event of the next tokens of the segment, as many as fit and may leave."""
        first, last = self._in_segment, self._in_segment
        most = min(first + self._batch_size, len(self._segment.tokens))
        while last < most and self._leaves(self._sent) <= slot:
            last += 1
            self._sent += 1
        self._in_segment = last
        segment, answer = self._segment, self._answer
        text = "".join(segment.tokens[first:last])
        event = self._event.render(text, self._logprobs(first, last, len(text)))
        if segment.ids is None:
            return event
        prompt_ids = answer.prompt_ids if self._sent == last - first else None
        return self._with_ids(event, segment.ids[first:last], prompt_ids)

    def _with_ids(self, event: str, ids: Sequence[Sequence[int]], prompt: str | None) -> str:
        """Return an event with the ids of its tokens, and those of the prompt."""
        return with_token_ids(event, ids, prompt)

    def _logprobs(self, first: int, last: int, characters: int) -> str | None:
        """Return the log probabilities of some tokens of the segment, if they are told."""
        answer, segment = self._answer, self._segment
        if answer.logprobs is None or segment.reasoning:
            return None
        offset = self._offset
        self._offset += characters
        entries = islice(answer.likelihoods(segment, first), last - first)
        return "".join(self._renderer.logprobs(answer, entries, offset))


MixedStream.cursor = Cursor
