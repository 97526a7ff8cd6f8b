"""JSON and server-sent events of Messages, as vLLM 0.32 writes them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic_core import from_json, to_json

from emulator.answers.answer import Answer, Segment
from emulator.answers.logprobs import Likelihood
from emulator.contract.errors import ErrorBody
from emulator.contract.usage import Usage
from emulator.rendering.renderer import NO_LOGPROBS, SLOT, AnswerStream, CountUsage, Header
from emulator.rendering.streams import stream_events

Json = dict[str, Any]

STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use"}


class MessagesRenderer:
    """Writes one message.

    Args:
        header: Its id and its model.
    """

    no_logprobs = NO_LOGPROBS

    def __init__(self, header: Header) -> None:
        self._header = header
        self._prompt_tokens = 0
        self._block = -1
        self._stop_reason = "end_turn"

    def whole(self, answers: Sequence[Answer], usage: Usage) -> bytes | bytearray:
        """Return the whole answer as JSON."""
        [answer] = answers
        message = {
            **self._start(),
            "content": [_block(segment) for segment in answer.segments],
            "model": self._header.model,
            "stop_reason": STOP_REASONS.get(answer.finish_reason, "end_turn"),
            "usage": _usage(usage),
        }
        return to_json(message)

    def opening(self, answers: Sequence[Answer]) -> str:  # noqa: ARG002 - whatever they say
        """Return nothing: the first event comes with the first token."""
        return ""

    def stream(
        self, answers: Sequence[Answer], tokens_per_event: int, count_usage: CountUsage | None
    ) -> AnswerStream:
        """Return what renders the events as their tokens are due."""
        if count_usage is not None:
            self._prompt_tokens = from_json(count_usage(0))["prompt_tokens"]
        return stream_events(self, answers, tokens_per_event)

    def preamble(self, answer: Answer, segment: Segment) -> str:
        """Return the events that end a block and begin the next, or the message."""
        if segment is answer.segments[0]:
            usage = {"input_tokens": self._prompt_tokens, "output_tokens": 0}
            message = {
                **self._start(),
                "content": [],
                "model": self._header.model,
                "stop_reason": None,
                "stop_sequence": None,
                "usage": usage,
            }
            before = _event("message_start", message=message)
        else:
            before = self._block_event("content_block_stop")
        self._block += 1
        return before + self._block_event("content_block_start", content_block=_begun(segment))

    def token(self, _: Answer, segment: Segment) -> str:
        """Return the event of one token, with `SLOT` for its text."""
        if segment.call:
            delta = {"type": "input_json_delta", "partial_json": SLOT}
        elif segment.reasoning:
            delta = {"type": "thinking_delta", "thinking": SLOT}
        else:
            delta = {"type": "text_delta", "text": SLOT}
        return self._block_event("content_block_delta", delta=delta)

    def logprobs(self, _: Answer, entries: Iterable[Likelihood], __: int) -> Iterator[str]:  # noqa: ARG002
        """Yield nothing: messages tell none."""
        yield ""

    def finish(self, answer: Answer) -> str:
        """Return the event that ends the last block."""
        self._stop_reason = STOP_REASONS.get(answer.finish_reason, "end_turn")
        return self._block_event("content_block_stop")

    def end(self, finish: str, usage: Usage | None, report: str) -> str:
        """Return what follows the last token: `finish`, the usage and the report if asked for."""
        delta = {"stop_reason": self._stop_reason, "stop_sequence": None}
        told: Json = {} if usage is None else {"usage": _usage(usage)}
        if report:
            told["emulation"] = from_json(report)
        return finish + _event("message_delta", delta=delta, **told) + _event("message_stop")

    def error(self, error: ErrorBody, report: str) -> str:  # noqa: ARG002 - it has no place
        """Return the event of a failure in mid-stream."""
        return _event("error", error={"type": error.type, "message": error.message})

    def _start(self) -> Json:
        return {"id": self._header.id, "type": "message", "role": "assistant"}

    def _block_event(self, kind: str, **fields: object) -> str:
        return _event(kind, **fields, index=self._block)


def _event(kind: str, **fields: object) -> str:
    return f"event: {kind}\ndata: {to_json({'type': kind, **fields}).decode()}\n\n"


def _usage(usage: Usage) -> Json:
    return {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}


def _begun(segment: Segment) -> Json:
    """Return a block before its first token."""
    if segment.call:
        return {"type": "tool_use", "id": segment.call.id, "name": segment.call.name, "input": {}}
    if segment.reasoning:
        return {"type": "thinking", "thinking": ""}
    return {"type": "text", "text": ""}


def _block(segment: Segment) -> Json:
    """Return a whole block; a call that was cut has the part of its arguments that is JSON."""
    block = _begun(segment)
    if segment.call:
        return block | {
            "input": from_json(segment.text, allow_partial=True) if segment.text else {}
        }
    return block | {"thinking" if segment.reasoning else "text": segment.text}
