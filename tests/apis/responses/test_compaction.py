"""Conversations that are compacted, by the last item of an input and by an endpoint of its own."""

import time
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import CompactedResponse, ResponseOutputItem
from pydantic import TypeAdapter

from emulator.apis.responses.compaction import opened, sealed
from tests.apis.responses.client import EVENTS, PATH, asked, kinds, respond, stream
from tests.support.sdk import refused
from tests.support.server import PLAIN, Server
from tests.support.wire import headers, token_count

ITEM: TypeAdapter[ResponseOutputItem] = TypeAdapter(ResponseOutputItem)
USER = {"role": "user", "content": "Hello, json!"}
TRIGGER = {"type": "compaction_trigger"}
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}}


def tokens(client: openai.OpenAI, **parameters: object) -> int:
    """Return how many tokens an input has."""
    count: Any = client.responses.input_tokens.count
    return int(count(**asked(**parameters)).input_tokens)


ASKS: dict[str, dict[str, object]] = {
    "plain": {},
    "tools": {"tools": [TOOL], "tool_choice": "required"},
    "format": {"text": {"format": {"type": "json_object"}}, "instructions": "Be kind."},
    "summary": {"reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"]},
    "logprobs": {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
}


@pytest.mark.parametrize("kind", ASKS)
def test_exactly_one_item(client: openai.OpenAI, base_url: str, kind: str) -> None:
    """Whatever else is asked for, the output is one compaction item of the planned tokens."""
    asking = headers(output_length=7) | {"X-REASONING-LENGTH": "4", "X-TOOL-CALLS": "2"}
    answer = respond(client, asking, input=[USER, TRIGGER], **ASKS[kind])
    [item] = answer.output
    assert item.type == "compaction"
    assert ITEM.validate_python(item.model_dump())
    assert token_count(opened(item.encrypted_content), "o200k_base") == 7
    assert answer.usage is not None
    assert answer.usage.output_tokens == 11
    [streamed] = stream(base_url, asking, input=[USER, TRIGGER], **ASKS[kind])[-1]["response"][
        "output"
    ]
    assert streamed["type"] == "compaction"


@pytest.mark.parametrize(("size", "events"), [(1, 5), (2, 3)])
def test_stream_tells_its_pace_and_no_text(base_url: str, size: int, events: int) -> None:
    """A stream has an event for each token, or batch of them, that holds nothing of the summary."""
    came = stream(base_url, {**headers(), "X-SSE-BATCH-SIZE": str(size)}, input=[USER, TRIGGER])
    for event in came:
        EVENTS.validate_python(event)
    assert kinds(came) == [
        "created",
        "in_progress",
        "output_item.added",
        "compaction.compacting",
        "output_item.done",
        "completed",
    ]
    pace = [e for e in came if e["type"] == "response.compaction.compacting"]
    assert len(pace) == events
    assert all(set(e) == {"type", "sequence_number", "item_id", "output_index"} for e in pace)


def test_shown_reasoning_is_no_item(other_server: Server) -> None:
    """On a server that shows reasoning there is one item too, and no text of it in the stream."""
    came = stream(other_server.url, input=[USER, TRIGGER], reasoning={"effort": "low"})
    assert [item["type"] for item in came[-1]["response"]["output"]] == ["compaction"]
    assert came[-1]["response"]["usage"]["output_tokens_details"]["reasoning_tokens"] == 64


def test_a_limit_cuts_it(client: openai.OpenAI) -> None:
    """With fewer tokens than planned the response is incomplete, and its item is there."""
    answer = respond(client, input=[USER, TRIGGER], max_output_tokens=3)
    [item] = answer.output
    assert item.type == "compaction"
    assert (answer.status, token_count(opened(item.encrypted_content), "o200k_base")) == (
        "incomplete",
        3,
    )


def test_what_comes_back_is_counted(client: openai.OpenAI) -> None:
    """A compaction item counts as a message with its summary, and one of others as its content."""
    [item] = respond(client, input=[USER, TRIGGER]).output
    assert item.type == "compaction"
    said = {"role": "assistant", "content": opened(item.encrypted_content)}
    again = [item.model_dump(exclude_unset=True), USER]
    assert tokens(client, input=again) == tokens(client, input=[said, USER])
    foreign = {"type": "compaction", "encrypted_content": "abc"}
    said = {"role": "assistant", "content": "abc"}
    assert tokens(client, input=[foreign, USER]) == tokens(client, input=[said, USER])


@pytest.mark.parametrize("content", ["abc", "gAAAAA=", "gAAAAA/w==", "gAAAAA\N{SNOWMAN}"])
def test_content_of_others_is_taken_as_it_is(content: str) -> None:
    """What this server did not write is returned as it came."""
    assert opened(content) == content
    assert opened(sealed(content)) == content


BAD: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "a trigger that is not last": ([TRIGGER, USER], "input[0]", "invalid_value"),
    "an item without content": (
        [{"type": "compaction"}, USER],
        "input[0].encrypted_content",
        "missing_required_parameter",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_items(client: openai.OpenAI, kind: str) -> None:
    """A fault in such an item is a 400 that names it."""
    items, param, code = BAD[kind]
    error = refused(client, asked(input=items), "/responses")
    assert (error.status_code, error.param, error.code) == (400, param, code)


def test_a_request_without_messages_may_have_tools(http: httpx.Client) -> None:
    """Tools beside an input that says nothing, or beside a trigger alone, are no fault of ours."""
    for items in ([TRIGGER], [{"type": "web_search_call", "id": "ws_1"}]):
        answer = http.post(PATH, json=asked(input=items, tools=[TOOL]), headers=headers())
        assert answer.status_code == 200, answer.text


# --------------------------------------------------------------------------------------
# The endpoint
# --------------------------------------------------------------------------------------


def compact(http: httpx.Client, **parameters: object) -> dict[str, Any]:
    """Return what is left of a conversation."""
    answer = http.post(f"{PATH}/compact", json=asked(**parameters), headers=headers())
    assert answer.status_code == 200, answer.text
    left: dict[str, Any] = answer.json()
    return left


def test_endpoint(http: httpx.Client, client: openai.OpenAI) -> None:
    """What is left are the user's messages, and one item; the usage tells what it took."""
    image = {"type": "input_image", "image_url": "https://example.com/a.png"}
    document = {"type": "input_file", "file_id": "file_1"}
    history = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": [{"type": "input_text", "text": "So?"}, image, document]},
    ]
    left = compact(http, input=history, tools=[TOOL])
    assert [item["content"] for item in left["output"][:-1]] == [
        [{"type": "input_text", "text": "Hello!"}],
        [{"type": "input_text", "text": "So?"}, document],
    ]
    assert len({item["id"] for item in left["output"]}) == 3
    ITEM.validate_python(left["output"][-1])
    assert left["usage"]["output_tokens"] == 5
    assert left["usage"]["input_tokens"] == tokens(client, input=history, tools=[TOOL])
    assert tokens(client, input=left["output"]) > 0


def test_endpoint_takes_a_text(client: openai.OpenAI) -> None:
    """The client's own method reads it; an input that is a text is one message of the user."""
    left = client.responses.compact(model="gpt-4o", input="Hello!")
    assert isinstance(left, CompactedResponse)
    assert left.object == "response.compaction"
    message, item = left.output
    assert message.type == "message"
    assert item.type == "compaction"
    assert [part.to_dict() for part in message.content] == [
        {"type": "input_text", "text": "Hello!"}
    ]


def test_endpoint_repeats_a_seed(http: httpx.Client) -> None:
    """With one seed the same is left."""
    left = [compact(http, seed=seed)["output"][-1]["encrypted_content"] for seed in (7, 7, 8)]
    assert left[0] == left[1] != left[2]


def test_endpoint_keeps_time(one_worker: Server) -> None:
    """It takes the time of a whole answer, reasoning included."""
    extra = headers(40, 10, 5) | {"X-REASONING-LENGTH": "4"}
    started_s = time.monotonic()
    answer = PLAIN.post(f"{one_worker.url}{PATH}/compact", json=asked(), headers=extra)
    assert time.monotonic() - started_s >= 0.12
    assert answer.json()["usage"]["output_tokens_details"]["reasoning_tokens"] == 4


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "gpt-4o"}, "input"),
        ({"model": "gpt-4o", "input": "x" * 1_050_000}, None),
        ({"model": "gpt-4o", "input": "x", "service_tier": "x"}, "service_tier"),
    ],
    ids=["no input", "too much to repeat", "a tier that is none"],
)
def test_endpoint_refuses(client: openai.OpenAI, body: dict[str, Any], param: str | None) -> None:
    """A fault is a 400 that names the field."""
    error = refused(client, body, "/responses/compact")
    assert (error.status_code, error.param) == (400, param)
