"""Token ids as vLLM tells them: of a choice's tokens, and of the prompt, which are JSON already."""

from collections.abc import Iterable, Sequence
from itertools import chain

from emulator.answers.answer import Answer
from emulator.rendering.renderer import EVENT_END

# What the choices of answers and events end with. It stands in no text, where the quotation marks
# are escaped.
_BEFORE = '"finish_reason":'


def ids_json(ids: Iterable[int]) -> str:
    """Return token ids as JSON."""
    return f"[{','.join(map(str, ids))}]"


def with_token_ids(event: str, ids: Iterable[Sequence[int]], prompt: str | None) -> str:
    """Return the event of some tokens of a choice with their ids, and those of the prompt."""
    return event.replace(_BEFORE, _told(ids, prompt) + _BEFORE, 1)


def with_all_token_ids(body: bytes | bytearray, answers: Sequence[Answer]) -> bytes:
    """Return a whole answer with the ids of each choice's tokens."""
    start, *rest = body.decode().split(_BEFORE)
    parts = [start]
    for answer, after in zip(answers, rest, strict=True):
        ids = chain.from_iterable(segment.ids or () for segment in answer.segments)
        parts += (_told(ids, answer.prompt_ids), _BEFORE, after)
    return "".join(parts).encode()


def with_prompt_ids(event: str, ids: str) -> str:
    """Return an event with the prompt's ids."""
    return f'{event.removesuffix(EVENT_END)},"prompt_token_ids":{ids}{EVENT_END}'


def _told(ids: Iterable[Sequence[int]], prompt: str | None) -> str:
    told = "" if prompt is None else f'"prompt_token_ids":{prompt},'
    return f'{told}"token_ids":{ids_json(chain.from_iterable(ids))},'
