"""JSON and events that are rendered once, with places for what differs."""

from collections.abc import Sequence
from json.encoder import encode_basestring as quoted

from emulator.answers.answer import Answer
from emulator.rendering.renderer import SLOT, Renderer


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
        escaped = quoted(text)[1:-1]
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
        entries = answer.likelihoods(answer.segments[-1])
        body += b'"logprobs":'
        for part in renderer.logprobs(answer, entries, 0):
            body += part.encode()
        body += after.encode()
    return body
