"""Streams whose finish reason comes with the last token, where that is what ends an answer."""

from collections.abc import Sequence
from itertools import chain
from typing import ClassVar, Protocol

from emulator.answers.answer import Answer
from emulator.rendering.frames import TokenEvent
from emulator.rendering.renderer import CountUsage, Renderer
from emulator.rendering.streams import Cursor, MixedStream, PlainStream
from emulator.rendering.token_ids import ids_json

NO_IDS = '"token_ids":null'
NO_PROMPT_IDS = '"prompt_token_ids":null'


class EndingRenderer(Renderer, Protocol):
    """A renderer that can end a choice with the event of a token."""

    def ended(self, event: str, answer: Answer) -> str:
        """Return the event of a choice's last token with the reason of its end."""


def ends_with_token(answer: Answer) -> bool:
    """Tell whether the last token ends an answer: by a limit, or as it completes a stop sequence.

    An answer that ends by itself has one token more, of no text.
    """
    if answer.finish_reason != "length" and answer.stop_reason is None:
        return False
    last = answer.events - 1
    return last >= 0 and answer.slot_of(last) == answer.slots - 1


def ending_stream(
    renderer: EndingRenderer,
    answers: Sequence[Answer],
    tokens_per_event: int,
    count_usage: CountUsage | None,
) -> PlainStream | MixedStream:
    """Return what renders the events of some answers."""
    if len(answers) == 1 and answers[0].is_steady and count_usage is None:
        if ends_with_token(answers[0]):
            return _EndingPlainStream(renderer, answers[0], tokens_per_event)
        return PlainStream(renderer, answers[0], tokens_per_event)
    return _EndingMixedStream(renderer, answers, tokens_per_event, count_usage)


class _EndingPlainStream(PlainStream):
    """One plain text that its last token ends."""

    def __init__(self, renderer: EndingRenderer, answer: Answer, tokens_per_event: int) -> None:
        super().__init__(renderer, answer, tokens_per_event)
        token = renderer.token(answer, answer.segments[0])
        last = TokenEvent(renderer.ended(token, answer), renderer.no_logprobs)
        self._last_tail = last.tail

    def render(self, first: int, upto: int, _: object) -> str:
        """Return the events from `first` to before `upto`."""
        events = super().render(first, upto, None)
        return events if upto < self.events else self._ended(events)

    def ahead(self, first: int) -> list[bytes]:
        """Return some events from `first` on, each ready to leave."""
        events = super().ahead(first)
        if first and first + len(events) >= self.events:
            events[-1] = self._ended(events[-1].decode()).encode()
        return events

    def _ended(self, events: str) -> str:
        return events.removesuffix(self._tail) + self._last_tail

    def end(self) -> str:
        """Return nothing: the last token has told the end."""
        return ""


class _EndingCursor(Cursor):
    """How far one answer of a mixed stream has come, whose last token may end it."""

    _renderer: EndingRenderer

    def _batch(self, slot: int) -> str:
        event = super()._batch(slot)
        answer = self._answer
        if self._sent == answer.events and ends_with_token(answer):
            return self._renderer.ended(event, answer)
        return event

    def _finish(self) -> str:
        return "" if ends_with_token(self._answer) else super()._finish()

    def _with_ids(self, event: str, ids: Sequence[Sequence[int]], prompt: str | None) -> str:
        event = event.replace(NO_IDS, f'"token_ids":{ids_json(chain.from_iterable(ids))}', 1)
        if prompt is None:
            return event
        return event.replace(NO_PROMPT_IDS, f'"prompt_token_ids":{prompt}', 1)


class _EndingMixedStream(MixedStream):
    """Any answers, of which each may end with its last token."""

    cursor: ClassVar = _EndingCursor
