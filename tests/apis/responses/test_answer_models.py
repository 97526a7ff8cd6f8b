"""Answers held against the models of the OpenAPI document, and against the official client's."""

from collections.abc import Iterator
from typing import Any

import pytest
from openai.types.responses import CompactedResponse as TheirCompacted
from openai.types.responses import Response as TheirResponse
from pydantic import BaseModel, TypeAdapter

from emulator.apis.responses.schema import answer
from tests.apis.responses.client import EVENTS, PATH, asked, stream
from tests.support.server import PLAIN
from tests.support.wire import headers

ITEM: TypeAdapter[Any] = TypeAdapter(
    answer.OutputMessage
    | answer.OutputFunctionCall
    | answer.OutputCustomCall
    | answer.OutputReasoning
    | answer.OutputCompaction
)
# What OpenAI sends though its client's types do not have it.
UNKNOWN_TO_THEM = {
    *("store", "presence_penalty", "frequency_penalty"),  # of a response
    "error",  # of the event error, beside the flat fields
    "status",  # of a custom tool's call
    "bytes",  # of a delta's log probabilities
    "name",  # of the end of a function's arguments: older versions of the client want it
}

FUNCTION: dict[str, Any] = {"type": "function", "name": "look", "parameters": {"type": "object"}}
SPACE = {"type": "namespace", "name": "crm", "description": "", "tools": [FUNCTION]}
LOGPROBS = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}

KINDS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "text": ({}, {}),
    "echoes": (
        {
            "instructions": "Be kind, json.",
            "metadata": {"a": "b"},
            "conversation": "conv_1",
            "prompt": {"id": "pmpt_1", "version": "1"},
            "prompt_cache_options": {"mode": "explicit"},
            "reasoning": {"effort": "low", "summary": "auto", "context": "all_turns"},
            "text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}},
            "tools": [FUNCTION, SPACE, {"type": "custom", "name": "x"}, {"type": "web_search"}],
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [FUNCTION]},
        },
        {},
    ),
    "logprobs": (LOGPROBS, {}),
    "cut": ({"max_output_tokens": 2}, {}),
    "calls": (
        {"tools": [FUNCTION, {"type": "custom", "name": "x"}, SPACE]},
        {"X-TOOL-CALLS": "3"},
    ),
    "reasoning": (
        {"reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"]},
        {"X-REASONING-LENGTH": "3"},
    ),
    "compaction": (
        {"input": [{"role": "user", "content": "x"}, {"type": "compaction_trigger"}]},
        {},
    ),
    "failed": ({}, {"X-FAULT-KIND": "failed"}),
}


def unknown(value: object) -> Iterator[str]:
    """Yield the names in a model of the client that its types do not have."""
    if isinstance(value, BaseModel):
        for name, inner in [*value, *(value.model_extra or {}).items()]:
            if name in (value.model_extra or {}):
                yield name
            yield from unknown(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from unknown(inner)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_answers(base_url: str, kind: str) -> None:
    """A whole answer has what our model and theirs say, and nothing else."""
    parameters, extra = KINDS[kind]
    said = PLAIN.post(base_url + PATH, json=asked(**parameters), headers=headers() | extra).json()
    answer.Response.model_validate(said, strict=True, extra="forbid")
    assert set(unknown(TheirResponse.model_validate(said))) <= UNKNOWN_TO_THEM


@pytest.mark.parametrize("kind", KINDS)
def test_events(base_url: str, kind: str) -> None:
    """Each event has what our models and theirs say, and nothing else."""
    parameters, extra = KINDS[kind]
    for event in stream(base_url, headers() | extra, **parameters):
        answer.ResponseEvent.model_validate(event, strict=True)
        if "response" in event:
            answer.Response.model_validate(event["response"], strict=True, extra="forbid")
        if "item" in event:
            ITEM.validate_python(event["item"], strict=True, extra="forbid")
        assert set(unknown(EVENTS.validate_python(event))) <= UNKNOWN_TO_THEM


@pytest.mark.parametrize("failing", ["error", "failed"])
def test_events_of_failures(base_url: str, failing: str) -> None:
    """What ends a stream that fails is of our models and theirs too."""
    extra = headers() | {"X-FAULT-KIND": failing, "X-FAULT-AFTER-TOKENS": "2"}
    for event in stream(base_url, extra):
        if "response" in event:
            answer.Response.model_validate(event["response"], strict=True, extra="forbid")
        assert set(unknown(EVENTS.validate_python(event))) <= UNKNOWN_TO_THEM


def test_what_compacting_leaves(base_url: str) -> None:
    """What is left of a conversation has what our model says, and the client reads it."""
    said = PLAIN.post(f"{base_url}{PATH}/compact", json=asked(), headers=headers()).json()
    answer.CompactedResponse.model_validate(said, strict=True, extra="forbid")
    assert TheirCompacted.construct(**said).object == "response.compaction"


def test_every_field_of_theirs_is_there(base_url: str) -> None:
    """No field of the client's response is missing."""
    said = PLAIN.post(base_url + PATH, json=asked(), headers=headers()).json()
    assert set(TheirResponse.model_fields) <= set(said)
