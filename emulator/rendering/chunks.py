"""Streams of chunks that end with [DONE], as chats and legacy completions have them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from emulator.answers.answer import Answer
from emulator.contract.errors import ErrorBody, ErrorEnvelope
from emulator.contract.usage import Usage
from emulator.rendering.renderer import (
    EVENT_END,
    NO_LOGPROBS,
    AnswerStream,
    CountUsage,
    Header,
    Renderer,
)
from emulator.rendering.streams import stream_events

DONE = "data: [DONE]\n\n"


class ChunkRenderer(Renderer, ABC):
    """What the renderers of chunks share.

    Args:
        header: What every chunk says.
        include_usage: Whether every chunk has a usage, which is null in all but the last.
        prompt_ids: The token ids of each prompt as JSON, where they are told.
    """

    no_logprobs = NO_LOGPROBS

    def __init__(
        self,
        header: Header,
        *,
        include_usage: bool,
        prompt_ids: Sequence[str] | None = None,
    ) -> None:
        self._header = header
        self._prompt_ids = prompt_ids
        self._omitted = None if include_usage else {"usage"}

    def opening(self, answers: Sequence[Answer]) -> str:  # noqa: ARG002 - whatever they say
        """Return nothing: a chunk without a token would be taken for one."""
        return ""

    def stream(
        self, answers: Sequence[Answer], tokens_per_event: int, count_usage: CountUsage | None
    ) -> AnswerStream:
        """Return what renders the events as their tokens are due."""
        return stream_events(self, answers, tokens_per_event, count_usage)

    @abstractmethod
    def usage_chunk(self, usage: Usage) -> str:
        """Return the chunk without choices that tells the usage."""

    def end(self, finish: str, usage: Usage | None, report: str) -> str:
        """Return what follows the last token: `finish`, the usage and the report if asked for."""
        last = "" if usage is None else self.usage_chunk(usage)
        return _reported(finish, report) + _reported(last, report) + DONE

    def error(self, error: ErrorBody, report: str) -> str:
        """Return the event of a failure in mid-stream, after which there is no [DONE]."""
        return _reported(f"data: {ErrorEnvelope(error=error).model_dump_json()}\n\n", report)


def _reported(events: str, report: str) -> str:
    """Put the report into the last of some events, if there are both."""
    if not (events and report):
        return events
    return f'{events.removesuffix(EVENT_END)},"emulation":{report}{EVENT_END}'
