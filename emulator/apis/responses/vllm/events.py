"""JSON and server-sent events of the Responses API, as vLLM 0.32 writes them."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from emulator.answers.answer import Answer, Segment
from emulator.apis.responses.events import ResponsesRenderer
from emulator.apis.responses.output import NUMBER, dumps, raw_event
from emulator.contract.usage import Usage

Json = dict[str, Any]

_NUMBERED = f'"sequence_number":{NUMBER}'
_NUMBER = -1  # stands for `NUMBER` where JSON is read
# What vLLM tells of a response as OpenAI does, of what the request says.
_KEPT = (
    *("id", "created_at", "incomplete_details", "instructions", "model", "object", "output"),
    *("parallel_tool_calls", "temperature", "tools", "top_p", "background", "max_output_tokens"),
    *("max_tool_calls", "previous_response_id", "prompt", "status", "truncation", "user"),
    *("presence_penalty", "frequency_penalty"),
)


class VLLMResponsesRenderer(ResponsesRenderer):
    """Writes one response as vLLM does."""

    def whole(self, answers: Sequence[Answer], usage: Usage) -> bytes | bytearray:
        """Return the whole answer as JSON."""
        return bytes(super().whole(answers, usage))

    def preamble(self, answer: Answer, segment: Segment) -> str:
        """Return the events that leave together with a segment's first token."""
        return _each(super().preamble(answer, segment), _item_told)

    def finish(self, answer: Answer) -> str:
        """Return the events that end the items."""
        return _each(super().finish(answer), _item_told)

    def end(self, finish: str, usage: Usage | None, report: str) -> str:
        """Return what follows the last token: a response that was cut is completed too."""
        if usage is None:
            raise ValueError("a response ends with its usage")
        fields = f'"response":{self._ended(usage, report)}'
        return self.number(finish + raw_event("response.completed", fields))

    def _response(self, *parts: str, **more: str) -> str:
        return dumps(_response_told(json.loads(super()._response(*parts, **more))))


def _each(events: str, told: Callable[[Json], Json]) -> str:
    """Return some events, each with what `told` makes of it."""
    blocks = []
    for block in events.split("\n\n")[:-1]:
        head, _, data = block.partition("\ndata: ")
        fields = told(json.loads(data.replace(_NUMBERED, f'"sequence_number":{_NUMBER}')))
        written = dumps(fields).replace(f'"sequence_number":{_NUMBER}', _NUMBERED, 1)
        blocks.append(f"{head}\ndata: {written}\n\n")
    return "".join(blocks)


def _item_told(event: Json) -> Json:
    """Return an event of an item as vLLM tells it."""
    if "item" in event:
        event["item"] = _output_told(event["item"])
    elif event["type"] == "response.content_part.done":
        event["part"] = _part_told(event["part"])
    return event


def _output_told(item: Json) -> Json:
    if item["type"] != "message":
        return item
    content = [_part_told(part) for part in item["content"]]
    status = item["status"]
    # That of an item that was cut is told by the response alone.
    status = "completed" if status == "incomplete" else status
    return {**item, "content": content, "status": status, "phase": None}


def _part_told(part: Json) -> Json:
    return {**part, "logprobs": part.get("logprobs") or None}


def _response_told(told: Json) -> Json:
    """Return a response as vLLM tells it, of which a request that says nothing leaves more null."""
    usage, text = told["usage"], told["text"]
    if usage is not None:
        usage = {
            **usage,
            "input_tokens_details": {
                **_plain(usage["input_tokens_details"], "cached_tokens"),
                "cache_write_tokens": 0,
                "input_tokens_per_turn": [],
                "cached_tokens_per_turn": [],
            },
            "output_tokens_details": {
                **_plain(usage["output_tokens_details"], "reasoning_tokens"),
                "tool_output_tokens": 0,
                "output_tokens_per_turn": [],
                "tool_output_tokens_per_turn": [],
            },
        }
    is_text = text["format"] == {"type": "text"}
    thoughts = told["reasoning"]
    return {
        **{name: told[name] for name in _KEPT},
        "output": [_output_told(item) for item in told["output"]],
        "metadata": told["metadata"] or None,
        "tool_choice": told["tool_choice"] if told["tools"] else "none",
        "reasoning": thoughts if any(thoughts.values()) else None,
        "service_tier": "auto",
        "tools": [_tool_told(tool) for tool in told["tools"]],
        "text": None if is_text else _text_told(text),
        "top_logprobs": told["top_logprobs"] or None,
        "usage": usage,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "input_messages": None,
        "output_messages": None,
    }


def _tool_told(tool: Json) -> Json:
    """Return a tool with all that vLLM's type of a function has."""
    if tool.get("type") != "function":
        return tool
    names = ("allowed_callers", "async", "defer_loading", "description", "output_schema")
    return dict.fromkeys(names) | tool


def _text_told(text: Json) -> Json:
    """Return a format, of which the emulator tells the default of the verbosity."""
    verbosity = text["verbosity"]
    return {
        "format": {"description": None} | text["format"],
        "verbosity": None if verbosity == "medium" else verbosity,
    }


def _plain(details: Json, name: str) -> Json:
    return {name: details[name]}
