"""Streams whose finish reason comes with the last token, where that is what ends an answer."""

from collections.abc import Sequence
from itertools import chain
from typing import ClassVar, Protocol

from emulator.answers.answer import Answer
from emulator.rendering.frames import TokenEvent
from emulator.rendering.renderer import NO_USAGE, CountUsage, Renderer
from emulator.rendering.streams import Cursor, MixedStream, PlainStream
from emulator.rendering.token_ids import ids_json

NO_IDS = '"token_ids":null'
NO_PROMPT_IDS = '"prompt_token_ids":null'


class EndingRenderer(Renderer, Protocol):
    """A renderer that can end a choice with the event of a token."""

    def roles(self, answers: Sequence[Answer]) -> str:
        """Return what begins a stream, with its first token."""

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
        return _EndingPlainStream(renderer, answers[0], tokens_per_event)
    return _EndingMixedStream(renderer, answers, tokens_per_event, count_usage)


class _EndingPlainStream(PlainStream):
    """One plain text, which its last token may end.

    ``events`` may be lowered for a while by what cuts the stream; the last one is always the same.
    """

    def __init__(self, renderer: EndingRenderer, answer: Answer, tokens_per_event: int) -> None:
        super().__init__(renderer, answer, tokens_per_event)
        self._preamble = renderer.roles([answer]) + self._preamble
        token = renderer.token(answer, answer.segments[0])
        self._last_tail = TokenEvent(renderer.ended(token, answer), renderer.no_logprobs).tail
        self._last = self.events if ends_with_token(answer) else None
        self._is_whole = True
        self._has_ended = False

    def stop_before(self, token: int) -> None:
        """Hold back a token, and those after it, until `go_on`."""
        super().stop_before(token)
        self._is_whole = token >= len(self._tokens)

    def go_on(self) -> None:
        """Hold nothing back any more."""
        super().go_on()
        self._is_whole = True

    def render(self, first: int, upto: int, _: object) -> str:
        """Return the events from `first` to before `upto`."""
        events = super().render(first, upto, None)
        return self._ended(events) if upto == self._last and self._is_whole else events

    def ahead(self, first: int) -> list[bytes]:
        """Return some events from `first` on, each ready to leave."""
        events = super().ahead(first)
        if first and first + len(events) == self._last and self._is_whole:
            events[-1] = self._ended(events[-1].decode()).encode()
        return events

    def _ended(self, events: str) -> str:
        self._has_ended = True
        return events.removesuffix(self._tail) + self._last_tail

    def end(self) -> str:
        """Return the events after the last token, if its own event did not tell the end."""
        return "" if self._has_ended else super().end()


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

    def __init__(
        self,
        renderer: EndingRenderer,
        answers: Sequence[Answer],
        tokens_per_event: int,
        count_usage: CountUsage | None,
    ) -> None:
        super().__init__(renderer, answers, tokens_per_event, count_usage)
        self._roles = renderer.roles(answers)
        if count_usage is not None:
            self._roles = self._roles.replace(NO_USAGE, f'"usage":{count_usage(0)}')

    def render(self, first: int, upto: int, share: Sequence[Cursor]) -> str:
        """Return a share of the events, behind the roles of all choices at first."""
        return self._take_roles() + super().render(first, upto, share)

    def end(self) -> str:
        """Return what comes after the last token."""
        return self._take_roles() + super().end()

    def _take_roles(self) -> str:
        roles, self._roles = self._roles, ""
        return roles
