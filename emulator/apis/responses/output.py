"""The output items of a response: each as JSON, whole and in the events of a stream."""

import json
from collections.abc import Sequence
from typing import Any, Protocol

from emulator.answers.answer import Answer, Call, Segment
from emulator.apis.responses.ids import item_id
from emulator.apis.responses.tools_as_chat import split_name
from emulator.rendering.renderer import SLOT

# In a rendered event, the place of its sequence number. JSON escapes it, so that no text holds it.
NUMBER = "\0"
NO_LOGPROBS = '"logprobs":[]'


def event(kind: str, **fields: object) -> str:
    """Return an event without its number."""
    return raw_event(kind, dumps(fields)[1:-1])


def raw_event(kind: str, fields: str) -> str:
    """Return an event without its number, whose other fields are JSON already."""
    return f'event: {kind}\ndata: {{"type":"{kind}","sequence_number":{NUMBER},{fields}}}\n\n'


def dumps(value: object) -> str:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":"))


class OutputItem(Protocol):
    """One item of the output; its ``segment`` is None where the client does not get its tokens."""

    segment: Segment | None

    def begin(self) -> str:
        """Return the events that leave with the first token."""

    def token(self) -> str:
        """Return the event of one token, with `SLOT` for its text."""

    def end(self, logprobs: str) -> str:
        """Return the events after the last token."""

    def json(self, logprobs: str) -> str:
        """Return the whole item, with the log probabilities of its tokens as JSON."""


class Place:
    """Where an item stands: its id and its index, and its events' first and last."""

    def __init__(self, item_id: str, index: int) -> None:
        self.id = item_id
        self.index = index

    def event(self, kind: str, **fields: object) -> str:
        """Return an event of the item."""
        return event(f"response.{kind}", item_id=self.id, output_index=self.index, **fields)

    def added(self, item: dict[str, Any]) -> str:
        """Return the event that announces the item."""
        return event("response.output_item.added", output_index=self.index, item=item)

    def done(self, item: str) -> str:
        """Return the event that holds the whole item."""
        fields = f'"output_index":{self.index},"item":{item}'
        return raw_event("response.output_item.done", fields)


class MessageOutput:
    """A text."""

    def __init__(self, place: Place, segment: Segment, status: str) -> None:
        self._place = place
        self._status = status
        self.segment: Segment | None = segment
        self._text: str | None = None

    def begin(self) -> str:
        """Return the events that leave with the first token."""
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
        place = self._place
        return place.added(self._item("in_progress")) + place.event(
            "content_part.added", content_index=0, part=part
        )

    def token(self) -> str:
        """Return the event of one token, with `SLOT` for its text."""
        return self._place.event("output_text.delta", content_index=0, delta=SLOT, logprobs=[])

    def end(self, logprobs: str) -> str:
        """Return the events after the last token."""
        place = self._place
        where = f'"item_id":"{place.id}","output_index":{place.index},"content_index":0'
        return (
            raw_event(
                "response.output_text.done",
                f'{where},"text":{self._escaped()},"logprobs":{logprobs}',
            )
            + raw_event("response.content_part.done", f'{where},"part":{self._part(logprobs)}')
            + place.done(self.json(logprobs))
        )

    def json(self, logprobs: str) -> str:
        """Return the whole item, with the log probabilities of its tokens as JSON."""
        empty = dumps(self._item(self._status))
        return empty.replace('"content":[]', f'"content":[{self._part(logprobs)}]', 1)

    def _item(self, status: str) -> dict[str, Any]:
        return {
            "id": self._place.id,
            "type": "message",
            "status": status,
            "content": [],
            "role": "assistant",
        }

    def _part(self, logprobs: str) -> str:
        return (
            f'{{"type":"output_text","annotations":[],"logprobs":{logprobs},'
            f'"text":{self._escaped()}}}'
        )

    def _escaped(self) -> str:
        """Return the text as JSON; a long one is escaped once."""
        if self._text is None:
            self._text = json.dumps(self.segment.text if self.segment else "")
        return self._text


class CallOutput:
    """A call of a function or of a custom tool."""

    def __init__(self, place: Place, segment: Segment, call: Call, status: str) -> None:
        self._place = place
        self._status = status
        self._call = call
        namespace, name = split_name(call.name)
        self._name = {"name": name} | ({"namespace": namespace} if namespace else {})
        self.segment: Segment | None = segment
        is_custom = call.kind == "custom"
        self._type = "custom_tool_call" if is_custom else "function_call"
        self._field = "input" if is_custom else "arguments"
        self._kind = "custom_tool_call_input" if is_custom else "function_call_arguments"

    def begin(self) -> str:
        """Return the events that leave with the first token."""
        return self._place.added(self._item("in_progress", ""))

    def token(self) -> str:
        """Return the event of one token, with `SLOT` for its text."""
        return self._place.event(f"{self._kind}.delta", delta=SLOT)

    def end(self, logprobs: str) -> str:
        """Return the events after the last token."""
        made = {self._field: self._text(), "name": self._name["name"]}
        return self._place.event(f"{self._kind}.done", **made) + self._place.done(
            self.json(logprobs)
        )

    def json(self, _: str) -> str:
        """Return the whole item; a call has no log probabilities."""
        return dumps(self._item(self._status, self._text()))

    def _text(self) -> str:
        return self.segment.text if self.segment else ""

    def _item(self, status: str, text: str) -> dict[str, Any]:
        return {
            "id": self._place.id,
            "type": self._type,
            "status": status,
            self._field: text,
            "call_id": self._call.id,
            **self._name,
        }


class ReasoningOutput:
    """A reasoning: hidden, but for its summary, or shown."""

    def __init__(
        self, place: Place, segment: Segment | None, summary: str, encrypted: str | None
    ) -> None:
        self._place = place
        self._summary = summary
        self._encrypted = encrypted
        self.segment = segment

    def begin(self) -> str:
        """Return the events that leave with the first token."""
        events = self._place.added(self._item(whole=False))
        if self._summary:
            events += self._summary_events()
        if self.segment is not None:
            part = {"type": "reasoning_text", "text": ""}
            events += self._place.event("content_part.added", content_index=0, part=part)
        return events

    def _summary_events(self) -> str:
        """Return the summary in its four events: nobody has to wait for its tokens."""
        text, kind = self._summary, "reasoning_summary"
        part = {"type": "summary_text", "text": ""}
        return "".join(
            self._place.event(f"{kind}_{name}", summary_index=0, **fields)
            for name, fields in (
                ("part.added", {"part": part}),
                ("text.delta", {"delta": text}),
                ("text.done", {"text": text}),
                ("part.done", {"part": part | {"text": text}}),
            )
        )

    def token(self) -> str:
        """Return the event of one token, with `SLOT` for its text."""
        return self._place.event("reasoning_text.delta", content_index=0, delta=SLOT)

    def end(self, logprobs: str) -> str:
        """Return the events after the last token."""
        events = ""
        if self.segment is not None:
            text = self.segment.text
            part = {"type": "reasoning_text", "text": text}
            events = self._place.event("reasoning_text.done", content_index=0, text=text)
            events += self._place.event("content_part.done", content_index=0, part=part)
        return events + self._place.done(self.json(logprobs))

    def json(self, _: str) -> str:
        """Return the whole item; a reasoning has no log probabilities."""
        return dumps(self._item(whole=True))

    def _item(self, *, whole: bool) -> dict[str, Any]:
        summary = [{"type": "summary_text", "text": self._summary}]
        item: dict[str, Any] = {"id": self._place.id, "type": "reasoning", "summary": []}
        if whole and self._summary:
            item["summary"] = summary
        if self.segment is not None:
            text = [{"type": "reasoning_text", "text": self.segment.text}]
            item["content"] = text if whole else []
        if self._encrypted is not None:
            item["encrypted_content"] = self._encrypted
        return item


def output_items(answer: Answer, digits: str, *, encrypted: bool) -> Sequence[OutputItem]:
    """Return the items of an answer; `digits` of the response's id make theirs.

    A limit that the reasoning used up leaves no message.
    """
    items: list[OutputItem] = []

    def place(prefix: str) -> Place:
        return Place(item_id(prefix, digits, len(items)), len(items))

    first = answer.segments[0]
    if answer.reasoning_tokens:
        secret = f"gAAAAA{digits}" if encrypted else None
        shown = first if first.reasoning else None
        items.append(ReasoningOutput(place("rs_"), shown, answer.summary, secret))
    was_cut = answer.finish_reason == "length"
    for segment in answer.segments:
        status = "incomplete" if was_cut and segment is answer.segments[-1] else "completed"
        if segment.call:
            prefix = "ctc_" if segment.call.kind == "custom" else "fc_"
            items.append(CallOutput(place(prefix), segment, segment.call, status))
        elif not segment.reasoning and (segment.tokens or not (items and was_cut)):
            items.append(MessageOutput(place("msg_"), segment, status))
    return items
