"""JSON and server-sent events of chat and legacy completions."""

import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from answers import Answer, Call, Likelihood, Segment
from schemas import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    Completion,
    CompletionChoice,
    Delta,
    FinishReason,
    ResponseMessage,
    ToolCallDelta,
    Usage,
)

EVENT_END = "}\n\n"
DONE = "data: [DONE]\n\n"

_SLOT = "<slot>"
_NO_LOGPROBS = '"logprobs":null'


@dataclass(frozen=True, slots=True)
class Header:
    """What every chunk of one answer says of it."""

    id: str
    created: int
    model: str
    system_fingerprint: str


class Renderer(Protocol):
    """How one API writes an answer, whole and in parts."""

    def whole(self, answers: Sequence[Answer], usage: Usage) -> bytes | bytearray:
        """Return the whole answer as JSON."""

    def lead(self, answer: Answer, segment: Segment) -> str:
        """Return the events that leave together with a segment's first token."""

    def token(self, answer: Answer, segment: Segment) -> str:
        """Return the event of one token, with `_SLOT` for its text."""

    def logprobs(
        self, answer: Answer, entries: Iterable[Likelihood], offset: int, /
    ) -> Iterator[str]:
        """Yield the log probabilities of some tokens as JSON; `offset` counts characters."""

    def finish(self, answer: Answer) -> str:
        """Return the event that ends a choice."""

    def usage(self, usage: Usage) -> str:
        """Return the event that holds the usage."""


class TokenEvent:
    """The event of one token of a segment, made ready for text and log probabilities.

    Only these two differ between the events of a segment, so that the rest is rendered once.
    """

    def __init__(self, rendered: str) -> None:
        self.head, _, tail = rendered.rpartition(_SLOT)
        self.tail = tail
        self._middle, _, self._end = tail.partition(_NO_LOGPROBS)

    def render(self, text: str, logprobs: str | None = None) -> str:
        """Return the event with `text`, which need not be escaped, and `logprobs` as JSON."""
        escaped = json.dumps(text)[1:-1]
        if logprobs is None:
            return f"{self.head}{escaped}{self.tail}"
        return f'{self.head}{escaped}{self._middle}"logprobs":{logprobs}{self._end}'


class ChatRenderer:
    """Writes chat completions.

    Args:
        header: What every chunk says.
        include_usage: Whether every chunk has a usage, which is null in all but the last.
    """

    def __init__(self, header: Header, *, include_usage: bool) -> None:
        self._header = header
        self._omitted = None if include_usage else {"usage"}

    def whole(self, answers: Sequence[Answer], usage: Usage) -> bytes | bytearray:
        """Return the whole answer as JSON."""
        header = self._header
        completion = ChatCompletion(
            id=header.id,
            created=header.created,
            model=header.model,
            choices=[
                Choice(
                    index=answer.index,
                    message=_message(answer),
                    finish_reason=answer.finish_reason,
                )
                for answer in answers
            ],
            usage=usage,
            system_fingerprint=header.system_fingerprint,
        )
        return _with_logprobs(completion.model_dump_json(), self, answers)

    def lead(self, answer: Answer, segment: Segment) -> str:
        """Return the role in front of a choice's first token, and the name in front of a call."""
        delta: Delta = {}
        if segment is answer.segments[0]:
            content = None if segment.call else ""
            delta = {"role": "assistant", "content": content, "refusal": None}
        if segment.call:
            delta |= _call_delta(segment.call, named=True, arguments="")
        return self._event(answer.index, delta) if delta else ""

    def token(self, answer: Answer, segment: Segment) -> str:
        """Return the event of one token, with `_SLOT` for its text."""
        if segment.call:
            delta = _call_delta(segment.call, named=False, arguments=_SLOT)
        elif segment.reasoning:
            delta = Delta(reasoning_content=_SLOT)
        else:
            delta = Delta(content=_SLOT)
        return self._event(answer.index, delta)

    def logprobs(self, _: Answer, entries: Iterable[Likelihood], __: int) -> Iterator[str]:
        """Yield the log probabilities of some tokens as JSON."""
        yield '{"content":['
        comma = ""
        for token, logprob, top in entries:
            likely = ",".join([_likely(*other) + "}" for other in top])
            yield f'{comma}{_likely(token, logprob)},"top_logprobs":[{likely}]}}'
            comma = ","
        yield '],"refusal":null}'

    def finish(self, answer: Answer) -> str:
        """Return the event that ends a choice."""
        return self._event(answer.index, {}, answer.finish_reason)

    def usage(self, usage: Usage) -> str:
        """Return the event that holds the usage, and no choice."""
        return self._chunk([], usage)

    def _event(self, index: int, delta: Delta, finish_reason: FinishReason | None = None) -> str:
        return self._chunk([ChunkChoice(index=index, delta=delta, finish_reason=finish_reason)])

    def _chunk(self, choices: list[ChunkChoice], usage: Usage | None = None) -> str:
        header = self._header
        chunk = ChatCompletionChunk(
            id=header.id,
            created=header.created,
            model=header.model,
            system_fingerprint=header.system_fingerprint,
            choices=choices,
            usage=usage,
        )
        return f"data: {chunk.model_dump_json(exclude=self._omitted)}\n\n"


def _message(answer: Answer) -> ResponseMessage:
    content = "".join(s.text for s in answer.segments if not s.call and not s.reasoning)
    calls = [segment for segment in answer.segments if segment.call]
    message: ResponseMessage = {
        "role": "assistant",
        "content": None if calls else content,
        "refusal": None,
        "annotations": [],
    }
    if answer.segments[0].reasoning:
        message["reasoning_content"] = answer.segments[0].text
    for segment in calls:
        if segment.call:
            call = _call_delta(segment.call, named=True, arguments=segment.text)
            if "function_call" in call:
                message["function_call"] = call["function_call"]
            for delta in call.get("tool_calls", ()):
                del delta["index"]
                message.setdefault("tool_calls", []).append(delta)
    return message


def _call_delta(call: Call, *, named: bool, arguments: str) -> Delta:
    """Return a call, or without its name a part of its arguments."""
    if call.kind == "function_call":
        return {"function_call": {**({"name": call.name} if named else {}), "arguments": arguments}}
    delta: ToolCallDelta = {"index": call.index}
    if named:
        delta |= {"id": call.id, "type": call.kind}
    if call.kind == "function":
        delta["function"] = {**({"name": call.name} if named else {}), "arguments": arguments}
    else:
        delta["custom"] = {**({"name": call.name} if named else {}), "input": arguments}
    return {"tool_calls": [delta]}


def _likely(token: str, logprob: float) -> str:
    """Return a TopLogprob as JSON, without its last brace."""
    start, end = _around_logprob(token)
    return f"{start}{logprob}{end}"


@lru_cache(4096)
def _around_logprob(token: str) -> tuple[str, str]:
    utf8 = ",".join(map(str, token.encode()))
    return f'{{"token":{json.dumps(token)},"logprob":', f',"bytes":[{utf8}]'


class CompletionRenderer:
    """Writes legacy completions.

    Args:
        header: What every chunk says.
        include_usage: Whether every chunk has a usage, which is null in all but the last.
        echoes: For each choice the prompt that comes before its text.
    """

    def __init__(self, header: Header, echoes: Sequence[str], *, include_usage: bool) -> None:
        self._header = header
        self._echoes = echoes
        self._omitted = None if include_usage else {"usage"}

    def whole(self, answers: Sequence[Answer], usage: Usage) -> bytes | bytearray:
        """Return the whole answer as JSON."""
        choices = [
            CompletionChoice(
                text=self._echoes[answer.index] + answer.segments[-1].text,
                index=answer.index,
                finish_reason=answer.finish_reason,
            )
            for answer in answers
        ]
        return _with_logprobs(self._completion(choices, usage).model_dump_json(), self, answers)

    def lead(self, answer: Answer, segment: Segment) -> str:  # noqa: ARG002
        """Return the prompt, if it is to be echoed."""
        echo = self._echoes[answer.index]
        return self._chunk([CompletionChoice(text=echo, index=answer.index)]) if echo else ""

    def token(self, answer: Answer, segment: Segment) -> str:  # noqa: ARG002
        """Return the event of one token, with `_SLOT` for its text."""
        return self._chunk([CompletionChoice(text=_SLOT, index=answer.index)])

    def logprobs(self, answer: Answer, entries: Iterable[Likelihood], offset: int) -> Iterator[str]:
        """Yield the log probabilities of some tokens as JSON; `offset` counts characters."""
        fields: dict[str, list[str]] = {
            name: [] for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        }
        offset += len(self._echoes[answer.index])
        for token, logprob, top in entries:
            likely = ",".join([f"{json.dumps(other)}:{value}" for other, value in top])
            row = (json.dumps(token), f"{logprob}", f"{{{likely}}}", f"{offset}")
            for values, value in zip(fields.values(), row, strict=True):
                values.append(value)
            offset += len(token)
        before = "{"
        for name, values in fields.items():
            yield f'{before}"{name}":[{",".join(values)}]'
            before = ","
        yield "}"

    def finish(self, answer: Answer) -> str:
        """Return the event that ends a choice."""
        end = CompletionChoice(text="", index=answer.index, finish_reason=answer.finish_reason)
        return self._chunk([end])

    def usage(self, usage: Usage) -> str:
        """Return the event that holds the usage, and no choice."""
        return self._chunk([], usage)

    def _chunk(self, choices: list[CompletionChoice], usage: Usage | None = None) -> str:
        chunk = self._completion(choices, usage)
        return f"data: {chunk.model_dump_json(exclude=self._omitted)}\n\n"

    def _completion(self, choices: list[CompletionChoice], usage: Usage | None) -> Completion:
        header = self._header
        return Completion(
            id=header.id,
            created=header.created,
            model=header.model,
            choices=choices,
            usage=usage,
            system_fingerprint=header.system_fingerprint,
        )


def _with_logprobs(
    rendered: str, renderer: Renderer, answers: Sequence[Answer]
) -> bytes | bytearray:
    """Return a whole answer as UTF-8, with the log probabilities that it was rendered without.

    They are written token by token: while a model is dumped no other thread runs.
    """
    if answers[0].logprobs is None:
        return rendered.encode()
    start, *rest = rendered.split(_NO_LOGPROBS)
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
    shares: Sequence[Sequence[Any]] = ((),)
    is_quick = True
    leaving = None

    def __init__(self, renderer: Renderer, answer: Answer, batch_size: int) -> None:
        segment = answer.segments[0]
        tokens = segment.tokens
        self.events: Sequence[Any] = (
            tokens
            if batch_size == 1
            else ["".join(tokens[i : i + batch_size]) for i in range(0, len(tokens), batch_size)]
        )
        event = TokenEvent(renderer.token(answer, segment))
        self._lead = renderer.lead(answer, segment)
        self._end = renderer.finish(answer)
        self._head, self._tail, self._between = event.head, event.tail, event.tail + event.head

    def render(self, events: Sequence[Any], _: Sequence[Any]) -> str:
        """Return the next events of the stream."""
        lead, self._lead = self._lead, ""
        return f"{lead}{self._head}{self._between.join(events)}{self._tail}"

    def end(self) -> str:
        """Return what comes after the last token."""
        return self._lead + self._end


class MixedStream:
    """The events of any answers: choices, reasoning, tool calls, log probabilities, held text.

    ``shares`` are the parts of the answers that are rendered in one go, each in a thread unless
    ``is_quick``.
    """

    def __init__(self, renderer: Renderer, answers: Sequence[Answer], batch_size: int) -> None:
        slots = max(answer.slots for answer in answers)
        self.events: Sequence[Any] = range(batch_size - 1, slots + batch_size - 1, batch_size)
        self._held = [answer for answer in answers if answer.leaves is not None]
        self._batch_size = batch_size
        step_us = rendering_us(answers, batch_size)
        self.is_quick = step_us <= STEP_US
        self.events_per_write = max(int(STEP_US / step_us), 1)
        self._cursors = [_Cursor(renderer, answer, batch_size, slots) for answer in answers]
        many = max(int(len(answers) * STEP_US / step_us), 1)
        self.shares = [self._cursors[i : i + many] for i in range(0, len(answers), many)]

    def leaving(self, events: Sequence[Any]) -> list[int] | None:
        """Return which of the events hold a token, counted from 0; None for all.

        Those of which every token is held back are empty, or hold no more than a choice's end.
        """
        if not self._held:
            return None
        return [
            place
            for place, slot in enumerate(events)
            if any(
                answer.left_after(slot + 1) > answer.left_after(slot + 1 - self._batch_size)
                for answer in self._held
            )
        ]

    def render(self, events: Sequence[Any], share: Sequence["_Cursor"]) -> str:
        """Return the next events of a share, in the order in which they are due."""
        return "".join(cursor.advance(slot) for slot in events for cursor in share)

    def end(self) -> str:
        """Return what comes after the last token."""
        return "".join(cursor.advance(sys.maxsize) for cursor in self._cursors)


class _Cursor:
    """How far one answer of a mixed stream has come."""

    def __init__(
        self, renderer: Renderer, answer: Answer, batch_size: int, slots_of_all: int
    ) -> None:
        self._renderer = renderer
        self._answer = answer
        self._batch_size = batch_size
        # The choices that end with the stream end it together, after its last token.
        ends_before = answer.slots < slots_of_all
        self._last_slot = answer.slots - 1 if ends_before else sys.maxsize
        self._segments = iter(answer.segments)
        self._event = TokenEvent("")
        self._enters = ""
        self._segment = self._enter(next(self._segments))
        self._in_segment = 0
        self._sent = 0
        self._total = sum(len(segment.tokens) for segment in answer.segments)
        self._offset = 0
        self._ended = False

    def advance(self, slot: int) -> str:
        """Return the events up to `slot`, and the end of the choice if it is due."""
        events: list[str] = []
        while self._leaves(self._sent) <= slot:
            while self._in_segment == len(self._segment.tokens):
                self._segment = self._enter(next(self._segments))
                self._in_segment = 0
            events.append(self._take_lead())
            events.append(self._batch(slot))
        if slot >= self._last_slot and not self._ended:
            self._ended = True
            events += [self._take_lead(), self._renderer.finish(self._answer)]
        return "".join(events)

    def _leaves(self, token: int) -> float:
        if token >= self._total:
            return math.inf
        return token if self._answer.leaves is None else self._answer.leaves[token]

    def _enter(self, segment: Segment) -> Segment:
        self._event = TokenEvent(self._renderer.token(self._answer, segment))
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
