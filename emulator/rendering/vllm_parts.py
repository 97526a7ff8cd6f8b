"""What vLLM's chats and legacy completions have alike: usage, ends, and errors in mid-stream."""

import json
from collections.abc import Sequence
from itertools import chain
from typing import Any

from pydantic_core import to_json

from emulator.answers.answer import Answer
from emulator.contract.errors import ErrorBody
from emulator.contract.usage import Usage
from emulator.dialects.vllm_words import error_body
from emulator.rendering.chunks import ChunkRenderer
from emulator.rendering.ending_streams import ending_stream
from emulator.rendering.renderer import EVENT_END, AnswerStream, CountUsage, Header

NO_PROMPT_LOGPROBS = '"prompt_logprobs":null'
FINGERPRINT = "vllm-0.32.0-af86afd1"
Json = dict[str, Any]

_OPEN = '"finish_reason":null'


def whole_usage(usage: Usage, *, details: bool) -> Json:
    """Return the usage of a whole answer, with `details` of the prompt."""
    cached = usage.prompt_tokens_details.cached_tokens
    thoughts = usage.completion_tokens_details.reasoning_tokens
    told = {"cached_tokens": cached, "created_cache_tokens": 0, "multimodal_tokens": None}
    return {
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.total_tokens,
        "completion_tokens": usage.completion_tokens,
        "prompt_tokens_details": told if details else None,
        "completion_tokens_details": {"reasoning_tokens": thoughts} if thoughts else None,
    }


def last_usage(usage: Usage, *, details: bool) -> Json:
    """Return the usage at the end of a stream, which leaves out what is null."""
    return {
        name: {key: each for key, each in value.items() if each is not None}
        if isinstance(value, dict)
        else value
        for name, value in whole_usage(usage, details=details).items()
        if value is not None
    }


def running_usage(usage: Usage) -> Json:
    """Return the usage so far."""
    told = whole_usage(usage, details=False)
    return {name: value for name, value in told.items() if name != "prompt_tokens_details"}


def all_ids(answer: Answer) -> list[int] | None:
    """Return the ids of all tokens of an answer, if they are told."""
    if all(segment.ids is None for segment in answer.segments):
        return None
    ids = (segment.ids or () for segment in answer.segments)
    return list(chain.from_iterable(chain.from_iterable(ids)))


class VLLMRenderer(ChunkRenderer):
    """What vLLM's renderers of chunks share.

    Args:
        header: What every chunk says.
        include_usage: Whether a stream ends with its usage.
        details: Whether the usage tells how many tokens of the prompt were cached.
        prompt_ids: The token ids of each prompt as JSON, where they are told.
        parts: The log probabilities of prompts, a line of JSON each, cut anywhere.
    """

    _continuous = False

    def __init__(
        self,
        header: Header,
        *,
        include_usage: bool,
        details: bool,
        prompt_ids: Sequence[str] | None = None,
        parts: Sequence[bytes | bytearray] = (),
    ) -> None:
        super().__init__(header, include_usage=include_usage, prompt_ids=prompt_ids)
        self._details = details
        self._prompt_logprobs = b"".join(parts).decode().splitlines()

    def roles(self, answers: Sequence[Answer]) -> str:  # noqa: ARG002
        """Return what begins a stream, with its first token."""
        return ""

    def stream(
        self, answers: Sequence[Answer], tokens_per_event: int, count_usage: CountUsage | None
    ) -> AnswerStream:
        """Return what renders the events as their tokens are due."""
        counted = None
        if count_usage is not None:
            self._continuous = True
            counts = count_usage

            def counted(tokens: int) -> str:
                usage = Usage.model_validate_json(counts(tokens))
                return to_json(running_usage(usage)).decode()

        return ending_stream(self, answers, tokens_per_event, counted)

    def ended(self, event: str, answer: Answer) -> str:
        """Return the event of a choice's last token with the reason of its end."""
        reason = f'"finish_reason":"{answer.finish_reason}"'
        if '"stop_reason":null' in event:
            event = event.replace('"stop_reason":null', _stop_reason(answer), 1)
        else:
            reason += f",{_stop_reason(answer)}"
        return self._signed(event.replace(_OPEN, reason, 1))

    def usage_chunk(self, usage: Usage) -> str:
        """Return the chunk without choices that tells the usage."""
        chunk = {**self._start(), "choices": [], "usage": last_usage(usage, details=self._details)}
        return self._event({**chunk, "system_fingerprint": FINGERPRINT})

    def end(self, finish: str, usage: Usage | None, report: str) -> str:
        """Return the events after the last token; a report alone is a chunk of its own."""
        if report and not finish and usage is None:
            finish = self._event({**self._start(), "choices": []})
        return super().end(finish, usage, report)

    def error(self, error: ErrorBody, report: str) -> str:  # noqa: ARG002 - it has no place
        """Return the event of a failure in mid-stream."""
        return f"data: {to_json(error_body(error, 500)).decode()}\n\n"

    def _signed(self, event: str) -> str:
        """Return the last event of a choice, which tells the fingerprint if no usage follows."""
        if self._includes_usage:
            return event
        return f'{event.removesuffix(EVENT_END)},"system_fingerprint":"{FINGERPRINT}"{EVENT_END}'

    @property
    def _includes_usage(self) -> bool:
        return self._omitted is None

    def _start(self) -> Json:
        """Return what each chunk begins with."""
        header = self._header
        return {
            "id": header.id,
            "object": self.object,
            "created": header.created,
            "model": header.model,
        }

    def _chunk(self, choice: Json, **more: Any) -> str:  # noqa: ANN401 - any JSON
        """Return a chunk of one choice; `_counted` writes the usage so far over its null."""
        usage = {"usage": None} if self._continuous else {}
        return self._event({**self._start(), "choices": [choice], **usage, **more})

    def _event(self, chunk: Json) -> str:
        return f"data: {to_json(chunk).decode()}\n\n"

    object: str


def _stop_reason(answer: Answer) -> str:
    return f'"stop_reason":{json.dumps(answer.stop_reason)}'
