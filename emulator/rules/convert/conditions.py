"""Which requests a fixture is for, as conditions of a rule."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from emulator.rules.convert.files import Json, UnsaidError
from emulator.rules.globs import folded

TEXTS_PATH = "/v1/[cr]*"  # chat completions, legacy completions, Responses
EMBEDDINGS_PATH = "/v1/embeddings"
_ENDPOINTS = {"chat": TEXTS_PATH, "embedding": EMBEDDINGS_PATH}


def escaped(text: str) -> str:
    """Return the glob that matches a text alone."""
    return re.sub(r"[*?\[]", lambda found: f"[{found[0]}]", text)


def _holding(text: str) -> str:
    """Return the glob of texts that a text is in; white space is folded in all of them."""
    inner = escaped(folded(text))
    return f"*{inner}*" if inner else "*"


def _text_of(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise UnsaidError(field, "expected a text")
    return value


def _of_system(value: object) -> Json:
    if isinstance(value, list):
        if not value:
            return {}
        if len(value) > 1:
            raise UnsaidError("match.systemMessage", "rules look for one text, not for several")
        value = value[0]
    text = _text_of(value, "match.systemMessage")
    return {"system": _holding(text) if text else "?*"}


def _of_endpoint(value: object) -> Json:
    if not isinstance(value, str) or value not in _ENDPOINTS:
        raise UnsaidError("match.endpoint", f"this emulator has no endpoint for {value!r}")
    return {"path": _ENDPOINTS[value]}


def _of_input(value: object) -> Json:
    text = _text_of(value, "match.inputText")
    return {"path": EMBEDDINGS_PATH, "text": _holding(text)}


def _unsaid(field: str, why: str) -> Callable[[object], Json]:
    def refuse(value: object) -> Json:  # noqa: ARG001 - whatever it is
        raise UnsaidError(f"match.{field}", why)

    return refuse


_CONDITIONS: Mapping[str, Callable[[Any], Json]] = {
    "userMessage": lambda text: {"text": _holding(_text_of(text, "match.userMessage"))},
    "systemMessage": _of_system,
    "inputText": _of_input,
    "toolCallId": _unsaid("toolCallId", "rules do not look at the ids of calls"),
    "toolResultContains": lambda text: {
        "tool_result": _holding(_text_of(text, "match.toolResultContains"))
    },
    "toolName": lambda name: {"tools": escaped(_text_of(name, "match.toolName"))},
    "model": lambda name: {"model": escaped(_text_of(name, "match.model"))},
    "responseFormat": _unsaid("responseFormat", "rules do not look at formats"),
    "sequenceIndex": lambda _: {},
    "turnIndex": lambda turn: {"turn": turn},
    "hasToolResult": lambda has: {"has_tool_result": has},
    "endpoint": _of_endpoint,
    "context": lambda name: {
        "header": {"x-aimock-context": escaped(_text_of(name, "match.context"))}
    },
}


def conditions_of(match: object) -> dict[str, Any]:
    """Return the conditions of a rule that is for the requests of a fixture.

    Raises:
        UnsaidError: Rules cannot tell these requests.
    """
    if not isinstance(match, dict):
        raise UnsaidError("match", "expected an object")
    conditions: dict[str, Any] = {}
    for name, value in match.items():
        if value is None:
            continue
        if name not in _CONDITIONS:
            raise UnsaidError(f"match.{name}", "it is not known")
        conditions |= _CONDITIONS[name](value)
    return {name: value for name, value in conditions.items() if value != "*"}


def sequence_of(match: Json) -> int | None:
    """Return which match of its conditions a fixture is for; None for all.

    Raises:
        UnsaidError: It is no number.
    """
    index = match.get("sequenceIndex")
    if index is None:
        return None
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise UnsaidError("match.sequenceIndex", "expected a whole number from 0 on")
    return index
