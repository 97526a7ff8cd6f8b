"""What a fixture says: an answer or an error, its times, and how it breaks off."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from emulator.faults.codes import CODES
from emulator.faults.statuses import error_body
from emulator.rules.convert.files import Json, UnsaidError
from emulator.timing.plan import FinishReason

Note = Callable[[str, str], None]
"""Told of a field that is left out, and why."""

_KINDS = ("error", "embedding", "blocks", "toolCalls", "content")
_OVERRIDES = {"id": "id", "model": "model", "systemFingerprint": "system_fingerprint"}
_USAGE = {
    "prompt_tokens": "prompt_tokens",
    "completion_tokens": "completion_tokens",
    "total_tokens": "total_tokens",
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
}
_DETAILS = {
    "prompt_tokens_details": "cached_tokens",
    "input_tokens_details": "cached_tokens",
    "completion_tokens_details": "reasoning_tokens",
    "output_tokens_details": "reasoning_tokens",
}
_SAID = {*_KINDS, *_OVERRIDES, "reasoning", "usage", "finishReason", "status", "retryAfter"}
_CHAOS: Mapping[str, Json] = {
    "dropRate": {"status": 500},
    "malformedRate": {"kind": "malformed"},
    "rateLimitRate": {"status": 429, "retry_after_ms": 1000},
    "disconnectRate": {"kind": "reset"},
}


def saying_of(response: object, note: Note) -> dict[str, Any]:
    """Return what a rule says for a response: ``answer``, and ``fault`` for an error.

    Raises:
        UnsaidError: It is of a kind that rules have not.
    """
    if not isinstance(response, dict):
        raise UnsaidError("response", "expected an object")
    kind = next((each for each in _KINDS if response.get(each) is not None), None)
    if kind is None:
        named = next(iter(response), "")
        raise UnsaidError(f"response.{named}".rstrip("."), "rules have no such answer")
    for name, value in response.items():
        if name not in _SAID and value is not None and (name, value) != ("role", "assistant"):
            note(f"response.{name}", "rules cannot say it")
    if kind == "error":
        return _failing(response, note)
    return {"answer": _answer(kind, response, note)}


def _failing(response: Json, note: Note) -> dict[str, Any]:
    """Return a fault, and an answer that keeps rules after it from deciding one."""
    error = response["error"]
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        raise UnsaidError("response.error.message", "expected a text")
    status, code = response.get("status", 500), error.get("code")
    fault: dict[str, Any] = {"status": status} | ({"code": code} if code in CODES else {})
    if error["message"]:
        fault["message"] = error["message"]
    wait_s = response.get("retryAfter", 1 if status == 429 else None)
    if wait_s is not None and (code not in CODES or CODES[code].waits):
        fault["retry_after_ms"] = int(wait_s * 1000)
    told = error_body(status, model="", code=fault.get("code"))
    for name, by_default in (("type", "server_error"), ("param", None), ("code", None)):
        theirs, ours = error.get(name, by_default), getattr(told, name)
        if theirs != ours:
            note(f"response.error.{name}", f"expected {_shown(ours)}, but got {_shown(theirs)}")
    return {"fault": fault, "answer": {"text": error["message"], "template": False}}


def _shown(value: object) -> str:
    return "none" if value is None else f"'{value}'"


def _answer(kind: str, response: Json, note: Note) -> dict[str, Any]:
    if kind == "embedding":
        return {"embedding": response["embedding"]}
    answer = _parts(response) if kind == "blocks" else _content(response)
    answer |= {ours: response[n] for n, ours in _OVERRIDES.items() if response.get(n) is not None}
    reason = response.get("finishReason")
    if reason in get_args(FinishReason):
        answer["finish_reason"] = reason
    elif reason is not None:
        note("response.finishReason", "OpenAI has no such reason")
    if usage := _usage(response.get("usage"), note):
        answer["usage"] = usage
    return answer | ({"template": False} if _has_braces(answer) else {})


def _content(response: Json) -> dict[str, Any]:
    """Return what an answer of a text and calls holds, in this order."""
    answer: dict[str, Any] = {}
    if reasoning := response.get("reasoning"):
        answer["reasoning"] = reasoning
    if (content := response.get("content")) is not None:
        answer["text" if isinstance(content, str) else "json"] = _as_javascript(content)
    if calls := response.get("toolCalls"):
        made = enumerate(_listed(calls))
        answer["tool_calls"] = [_call(call, f"response.toolCalls[{i}]") for i, call in made]
    return answer


def _listed(values: object) -> Sequence[Any]:
    return values if isinstance(values, list) else ()


def _parts(response: Json) -> dict[str, Any]:
    """Return what an answer of blocks holds."""
    reasoning = response.get("reasoning")
    parts: list[dict[str, Any]] = [{"reasoning": reasoning}] if reasoning else []
    for index, block in enumerate(_listed(response["blocks"])):
        place = f"response.blocks[{index}]"
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            parts.append({"text": block.get("text", "")})
        elif kind == "toolCall":
            call = {name: value for name, value in block.items() if name != "type"}
            parts.append({"tool_call": _call(call, place)})
        else:
            raise UnsaidError(f"{place}.type", "expected text or toolCall")
    return {"parts": parts}


def _call(call: object, place: str) -> dict[str, Any]:
    """Return a call, which aimock makes whether or not its tool is offered."""
    if not isinstance(call, dict):
        raise UnsaidError(place, "expected an object")
    arguments = _as_javascript(call.get("arguments", {}))
    made = {"name": call.get("name"), "arguments": arguments, "offered": False}
    return made | ({"id": call["id"]} if call.get("id") is not None else {})


def _usage(usage: object, note: Note) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, value in usage.items() if isinstance(usage, dict) else ():
        if name in _USAGE:
            figures[_USAGE[name]] = value
        elif name in _DETAILS and isinstance(value, dict) and set(value) == {_DETAILS[name]}:
            figures |= value
        else:
            note(f"response.usage.{name}", "rules have no such figure")
    return figures


def _as_javascript(value: object) -> Any:  # noqa: ANN401 - JSON
    """Return JSON whose numbers are written as JavaScript writes them: 1.0 as 1."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_as_javascript(item) for item in value]
        case dict():
            return {name: _as_javascript(item) for name, item in value.items()}
        case _:
            return value


def _has_braces(value: object) -> bool:
    """Tell whether a text is one that rules would take for a template."""
    match value:
        case str():
            return any(opening in value for opening in ("{{", "{%", "{#"))
        case list():
            return any(map(_has_braces, value))
        case dict():
            return any(map(_has_braces, value.values()))
        case _:
            return False


def timing_of(data: Json, note: Note) -> dict[str, Any]:
    """Return the times of a fixture; what is between its chunks there is between tokens here."""
    timing: dict[str, Any] = {}
    if (latency := data.get("latency")) is not None:
        timing |= {"ttft_ms": latency, "itl_ms": latency}
    profile = data.get("streamingProfile") or {}
    if profile.get("ttft") is not None:
        timing["ttft_ms"] = profile["ttft"]
    if profile.get("tps"):
        timing["itl_ms"] = round(1000 / profile["tps"], 3)
    if profile.get("jitter"):
        timing |= dict.fromkeys(("ttft_jitter", "itl_jitter"), f"uniform:{profile['jitter']}")
    if (recorded := data.get("recordedTimings")) is not None:
        speed = data.get("replaySpeed") or 1
        gaps = recorded.get("interChunkDelaysMs") or [0]
        timing["ttft_ms"] = round(recorded.get("ttftMs", 0) / speed, 3)
        timing["itl_ms"] = round(sum(gaps) / len(gaps) / speed, 3)
    if data.get("chunkSize") is not None:
        note("chunkSize", "texts leave token by token")
    return timing


def breaks_of(data: Json, note: Note) -> list[Mapping[str, Any]]:
    """Return rules, without their conditions, by which some answers of a fixture fail."""
    rules: list[Mapping[str, Any]] = []
    chaos = data.get("chaos") or {}
    for name, rate in chaos.items():
        if name in _CHAOS:
            rules += [{"probability": rate, "fault": dict(_CHAOS[name])}] if rate else []
        else:
            note(f"chaos.{name}", "rules cannot say it")
    if (after_ms := data.get("disconnectAfterMs")) is not None:
        rules.append({"stream": True, "fault": {"kind": "reset", "after_ms": after_ms}})
    if (chunks := data.get("truncateAfterChunks")) is not None:
        note("truncateAfterChunks", "it is so many tokens here")
        rules.append({"stream": True, "fault": {"kind": "reset", "after_tokens": chunks}})
    return rules
