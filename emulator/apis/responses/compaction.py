"""Conversations that are compacted: what asks for it, and what is left of them."""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from emulator.answers.answer import Answer, Segment
from emulator.apis.responses.ids import item_id
from emulator.apis.responses.output import OutputItem, Place, dumps
from emulator.apis.responses.schema.input import (
    CompactionTrigger,
    InputFileItem,
    InputMessage,
    InputText,
)
from emulator.apis.responses.schema.request import CompactRequest, InputTokensRequest

_SEAL = "gAAAAA"  # what OpenAI's begins with


def asks_to_compact(request: InputTokensRequest) -> bool:
    """Tell whether the last item of the input asks to compact what comes before it."""
    items = request.input
    return isinstance(items, list) and isinstance(items[-1], CompactionTrigger)


def sealed(summary: str) -> str:
    """Return a summary as the content of a compaction item.

    It looks encrypted and is not, so that any worker can count it when it comes back.
    """
    return _SEAL + base64.urlsafe_b64encode(summary.encode()).decode()


def opened(content: str) -> str:
    """Return the summary in the content of a compaction item; what is not ours is returned as is.

    >>> opened(sealed("It rained."))
    'It rained.'
    """
    if not content.startswith(_SEAL):
        return content
    try:
        summary = base64.b64decode(content.removeprefix(_SEAL), altchars=b"-_", validate=True)
        return summary.decode()
    except ValueError:  # neither base64 nor text
        return content


class CompactionOutput:
    """What is left of a conversation; nothing of its text is in the events of its tokens.

    Args:
        place: Where it stands.
        summary: What is left.
        segment: Has the tokens, each without its text.
    """

    def __init__(self, place: Place, summary: str, segment: Segment) -> None:
        self._place = place
        self._summary = summary
        self.segment: Segment | None = segment

    def begin(self) -> str:
        """Return the events that leave with the first token."""
        return self._place.added(self._item(""))

    def token(self) -> str:
        """Return the event of one token."""
        return self._place.event("compaction.compacting")

    def end(self, logprobs: str) -> str:
        """Return the events after the last token."""
        return self._place.done(self.json(logprobs))

    def json(self, _: str) -> str:
        """Return the whole item."""
        return dumps(self._item(sealed(self._summary)))

    def _item(self, content: str) -> dict[str, Any]:
        return {"id": self._place.id, "type": "compaction", "encrypted_content": content}


def compacted(answer: Answer, digits: str) -> tuple[Answer, OutputItem]:
    """Return the one item of an answer that compacts, and the answer without its text."""
    summary = answer.segments[-1]
    silent = Segment([""] * len(summary.tokens))
    item = CompactionOutput(Place(item_id("cmp_", digits, 0), 0), summary.text, silent)
    return replace(answer, segments=[silent]), item


def user_messages(request: CompactRequest) -> list[str]:
    """Return the content of each message of the user as JSON: its texts, and files by id or URL."""
    if isinstance(request.input, str):
        return [_texts([request.input])]
    return [
        _texts([item.content]) if isinstance(item.content, str) else _parts(item)
        for item in request.input or ()
        if isinstance(item, InputMessage) and item.role == "user"
    ]


def _texts(texts: list[str]) -> str:
    return json.dumps([{"type": "input_text", "text": text} for text in texts])


def _parts(message: InputMessage) -> str:
    return json.dumps(list(_kept(message)))


def _kept(message: InputMessage) -> Iterator[Mapping[str, object]]:
    for part in message.content:
        if isinstance(part, InputText):
            yield {"type": "input_text", "text": part.text}
        elif isinstance(part, InputFileItem):
            kept = {"file_id": part.file_id, "file_url": part.file_url, "filename": part.filename}
            yield {"type": "input_file"} | {k: v for k, v in kept.items() if v is not None}
