"""POST /v1/responses, whole and streamed, through the official client and on a bare socket."""

import json
import time
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from emulator.answers.answer import Answer, Segment
from emulator.apis.responses.echo import Echoed
from emulator.apis.responses.events import MAX_LOGPROBS_REPEATED, ResponsesRenderer
from emulator.apis.responses.schema.request import ResponsesRequest
from emulator.rendering.renderer import Header
from schemas import ErrorBody, Usage
from tests.apis.responses.client import EVENTS, PATH, asked, kinds, respond, stream, without_ids
from tests.support.sdk import message_of, refused
from tests.support.server import PLAIN, Server, eventually
from tests.support.wire import headers, token_count

LOGPROBS = ["message.output_text.logprobs"]
OLD_ID = "resp_" + "0a" * 25

FUNCTION: dict[str, Any] = {
    "type": "function",
    "name": "look",
    "parameters": {
        "type": "object",
        "properties": {"where": {"type": "string"}},
        "required": ["where"],
        "additionalProperties": False,
    },
    "strict": True,
}
OTHER = FUNCTION | {"name": "answer"}
CUSTOM = {"type": "custom", "name": "shout"}
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAC"
    "hwGA60e6kgAAAABJRU5ErkJggg=="
)


# --------------------------------------------------------------------------------------
# Whole answers
# --------------------------------------------------------------------------------------


def test_text(client: openai.OpenAI) -> None:
    """A text has the asked length, and a usage by the names of this API."""
    answer = respond(client, headers(output_length=7))
    assert token_count(answer.output_text, "o200k_base") == 7
    assert (answer.status, answer.error, answer.incomplete_details) == ("completed", None, None)
    assert answer.usage is not None
    assert answer.usage.model_dump(exclude_unset=True) == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 16,
    }


def test_shape(http: httpx.Client) -> None:
    """Every field that OpenAI always sends is there, with its default."""
    answer = http.post(PATH, json=asked(), headers=headers()).json()
    [message] = answer.pop("output")
    text = message["content"][0].pop("text")
    usage, response_id, created = (answer.pop(name) for name in ("usage", "id", "created_at"))
    assert text
    assert usage["total_tokens"] == 14
    assert response_id.startswith("resp_")
    assert len(response_id) == 55
    assert isinstance(created, int)
    assert answer.pop("completed_at") >= created
    nothing = {"image_tokens": 0, "text_tokens": 0}
    assert answer.pop("tool_usage") == {
        "image_gen": {
            "input_tokens": 0,
            "input_tokens_details": nothing,
            "output_tokens": 0,
            "output_tokens_details": nothing,
            "total_tokens": 0,
        },
        "web_search": {"num_requests": 0},
    }
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "annotations": [], "logprobs": []}],
    }
    assert answer == {
        "object": "response",
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "model": "gpt-4o",
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "conversation": None,
        "prompt_cache_key": None,
        "prompt_cache_retention": None,
        "reasoning": {"context": None, "effort": None, "mode": None, "summary": None},
        "prompt": None,
        "prompt_cache_options": None,
        "access_programs": None,
        "image": None,
        "input_transformations": None,
        "moderation": None,
        "prompt_cache_diagnostics": None,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
        "metadata": {},
    }


def test_echo(client: openai.OpenAI) -> None:
    """What the request set is in the answer."""
    given: dict[str, Any] = {
        "instructions": 'Say "hi"\0',
        "max_output_tokens": 99,
        "metadata": {"a": "b"},
        "temperature": 0.5,
        "top_p": 0.25,
        "prompt": {"id": "pmpt_1", "version": "2", "variables": {"a": "b"}},
        "truncation": "auto",
        "store": False,
        "user": "u",
        "parallel_tool_calls": False,
        "previous_response_id": OLD_ID,
        "tools": [FUNCTION, CUSTOM, {"type": "web_search"}],
        "tool_choice": "auto",
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
    }
    answer = respond(client, **given, input="json").model_dump(exclude_none=True)
    assert {name: answer[name] for name in given} == given


def test_echoed_tools(http: httpx.Client) -> None:
    """All that a request says of its tools is in the answer, in namespaces too."""
    function = FUNCTION | {
        "defer_loading": True,
        "async": False,
        "allowed_callers": ["direct"],
        "output_schema": {"type": "string"},
        "description": "Looks.",
    }
    custom = CUSTOM | {"defer_loading": False, "format": {"type": "text"}}
    space = {"type": "namespace", "name": "crm", "description": "", "tools": [function, custom]}
    tools = [function, custom, space, {"type": "mcp", "server_label": "x", "defer_loading": True}]
    assert http.post(PATH, json=asked(tools=tools)).json()["tools"] == tools
    [bare] = http.post(PATH, json=asked(tools=[{"type": "function", "name": "f"}])).json()["tools"]
    defaults = {"description": None, "parameters": None, "strict": True}
    assert bare == {"type": "function", "name": "f", **defaults}


def test_penalties(http: httpx.Client) -> None:
    """Penalties are echoed, and refused beyond their range."""
    given = {"presence_penalty": -2, "frequency_penalty": 1.5}
    answer = http.post(PATH, json=asked(**given)).json()
    assert {name: answer[name] for name in given} == given
    error = http.post(PATH, json=asked(presence_penalty=2.1)).json()["error"]
    assert (error["param"], error["code"]) == ("presence_penalty", "decimal_above_max_value")


def test_completed_at(one_worker: Server) -> None:
    """A whole answer says when it was due, a stream when it ended; one that is cut says nothing."""
    extra = headers(1050)
    whole = PLAIN.post(f"{one_worker.url}{PATH}", json=asked(), headers=extra).json()
    assert whole["completed_at"] > whole["created_at"]
    first, *_, last = stream(one_worker.url, extra)
    assert first["response"]["completed_at"] is None
    assert last["response"]["completed_at"] > last["response"]["created_at"]
    cut = PLAIN.post(f"{one_worker.url}{PATH}", json=asked(max_output_tokens=2), headers=headers())
    assert (cut.json()["status"], cut.json()["completed_at"]) == ("incomplete", None)


@pytest.mark.parametrize("model", [{}, {"model": None}, {"model": "gpt-4"}], ids=str)
def test_prompt_brings_a_model(http: httpx.Client, model: dict[str, Any]) -> None:
    """With a prompt the model may be left out, and without one it may not."""
    answer = http.post(PATH, json={"prompt": {"id": "pmpt_1"}, **model}).json()
    first = http.get("/v1/models").json()["data"][0]["id"]
    assert answer["model"] == (model.get("model") or first)
    assert answer["prompt"] == {"id": "pmpt_1", "version": None, "variables": None}
    left_out = http.post(PATH, json={"input": "x"}).json()["error"]
    assert left_out["message"] == "you must provide a model parameter"


def test_compacting_takes_a_null_for_a_model(http: httpx.Client) -> None:
    """The endpoint that compacts wants a model, which may be null."""
    assert http.post(f"{PATH}/compact", json={"model": None, "input": "x"}).status_code == 200
    assert http.post(f"{PATH}/compact", json={"input": "x"}).status_code == 400


def test_cut_by_the_limit(client: openai.OpenAI) -> None:
    """A limit cuts the text; answer and message are incomplete."""
    answer = respond(client, max_output_tokens=3)
    assert token_count(answer.output_text, "o200k_base") == 3
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert [item.status for item in answer.output if item.type == "message"] == ["incomplete"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "look"}], ids=str)
def test_function_call(client: openai.OpenAI, choice: object) -> None:
    """A required or named function is called with arguments that its schema takes."""
    answer = respond(client, tools=[FUNCTION], tool_choice=choice)
    [call] = answer.output
    assert call.type == "function_call"
    assert (call.name, call.status, answer.status) == ("look", "completed", "completed")
    assert call.call_id.startswith("call_")
    assert (call.id or "").startswith("fc_")
    assert isinstance(json.loads(call.arguments)["where"], str)


def test_custom_call(client: openai.OpenAI) -> None:
    """A custom tool is called with a text of the asked length."""
    choice = {"type": "custom", "name": "shout"}
    [call] = respond(client, tools=[FUNCTION, CUSTOM], tool_choice=choice).output
    assert call.type == "custom_tool_call"
    assert token_count(call.input, "o200k_base") == 5


def test_asked_calls(client: openai.OpenAI) -> None:
    """X-TOOL-CALLS asks for calls with auto too, and after their results comes a text."""
    tools = [{"type": "web_search"}, FUNCTION]
    asking = {**headers(), "X-TOOL-CALLS": "2"}
    first = respond(client, asking, tools=tools)
    results = [
        {"type": "function_call_output", "call_id": call.call_id, "output": "42"}
        for call in first.output
        if call.type == "function_call"
    ]
    history = [{"role": "user", "content": "hi"}, *first.model_dump()["output"], *results]
    assert len(results) == 2
    assert respond(client, asking, tools=tools, input=history).output_text


def test_an_agent_with_an_output_tool_ends(client: openai.OpenAI) -> None:
    """With tool_choice required the tool that was not called yet comes next."""
    call = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
    result = {
        "type": "function_call_output",
        "call_id": "c",
        "output": [{"type": "input_text", "text": "42"}],
    }
    history = [{"role": "user", "content": "hi"}, call, result]
    [made] = respond(client, tools=[FUNCTION, OTHER], tool_choice="required", input=history).output
    assert made.type == "function_call"
    assert made.name == "answer"


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "web_search"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]},
        "none",
    ],
    ids=str,
)
def test_built_in_tools_are_never_called(client: openai.OpenAI, choice: object) -> None:
    """OpenAI's own tools are accepted, and what comes is a text."""
    tools = [{"type": "web_search"}, FUNCTION]
    assert respond(client, tools=tools, tool_choice=choice).output_text


def test_allowed_tools(client: openai.OpenAI) -> None:
    """Of the tools only an allowed one is called."""
    subset = [{"type": "mcp", "server_label": "x"}, {"type": "function", "name": "answer"}]
    choice = {"type": "allowed_tools", "mode": "required", "tools": subset}
    [call] = respond(client, tools=[FUNCTION, OTHER], tool_choice=choice).output
    assert call.type == "function_call"
    assert call.name == "answer"


class City(BaseModel):
    """What an answer is parsed to."""

    name: str
    people: int


def test_parse(client: openai.OpenAI) -> None:
    """The parse helper reads a text of a pydantic format."""
    answer = client.responses.parse(model="gpt-4o", input="x", text_format=City)
    assert isinstance(answer.output_parsed, City)


def test_parse_tools(client: openai.OpenAI) -> None:
    """The parse helper reads the arguments of a pydantic tool."""
    tool = openai.pydantic_function_tool(City)["function"]
    parse: Any = client.responses.parse
    tools = [{"type": "function", **tool}]
    parsed = parse(model="gpt-4o", input="x", tools=tools, tool_choice="required")
    [call] = parsed.output
    assert call.type == "function_call"
    assert City.model_validate(call.parsed_arguments)


def test_hidden_reasoning(client: openai.OpenAI) -> None:
    """Hidden reasoning is an item in front of the message, whose summary is empty."""
    answer = respond(client, {**headers(), "X-REASONING-LENGTH": "8"})
    thought, message = answer.output
    assert thought.type == "reasoning"
    assert (thought.summary, thought.encrypted_content, message.type) == ([], None, "message")
    assert answer.usage is not None
    assert answer.usage.output_tokens_details.reasoning_tokens == 8
    assert answer.usage.output_tokens == 13


def test_reasoning_summary(client: openai.OpenAI) -> None:
    """A summary that is asked for has a text, and encrypted content is there if it is included."""
    answer = respond(
        client,
        {**headers(), "X-REASONING-LENGTH": "8"},
        reasoning={"summary": "auto"},
        include=["reasoning.encrypted_content"],
    )
    thought = answer.output[0]
    assert thought.type == "reasoning"
    assert thought.summary[0].text
    assert thought.encrypted_content


@pytest.mark.parametrize("streamed", [False, True])
def test_reasoning_up_to_the_limit(base_url: str, http: httpx.Client, streamed: bool) -> None:
    """Where the reasoning uses up the limit there is no message, and the answer is incomplete."""
    extra = {**headers(), "X-REASONING-LENGTH": "9"}
    body = asked(max_output_tokens=7)
    answer = (
        stream(base_url, extra, max_output_tokens=7)[-1]["response"]
        if streamed
        else http.post(PATH, json=body, headers=extra).json()
    )
    assert [item["type"] for item in answer["output"]] == ["reasoning"]
    assert (answer["status"], answer["usage"]["output_tokens"]) == ("incomplete", 7)


def test_effort(other_client: openai.OpenAI) -> None:
    """The effort decides how long the reasoning is, as in a chat."""
    answer = respond(other_client, reasoning={"effort": "low"})
    assert answer.usage is not None
    assert answer.usage.output_tokens_details.reasoning_tokens == 64


def test_updated_effort(other_client: openai.OpenAI) -> None:
    """The last item that sets the effort decides, as Codex sends it."""
    low, high, nothing = ({"reasoning": {"effort": effort}} for effort in ("low", "high", None))
    updates = [{"type": "configuration_update", **each} for each in (high, low, nothing)]
    items = [{"role": "user", "content": "hi"}, *updates]
    usage = respond(other_client, input=items, reasoning={"effort": "high"}).usage
    assert usage is not None
    assert usage.output_tokens_details.reasoning_tokens == 64


def test_shown_reasoning(other_server: Server, other_client: openai.OpenAI) -> None:
    """A server that shows its reasoning shows it as the item's content, streamed by tokens."""
    extra = {**headers(), "X-REASONING-LENGTH": "8"}
    events = stream(other_server.url, extra)
    deltas = [e["delta"] for e in events if e["type"] == "response.reasoning_text.delta"]
    thought = events[-1]["response"]["output"][0]
    assert len(deltas) == 8
    assert thought["content"] == [{"type": "reasoning_text", "text": "".join(deltas)}]
    whole = respond(other_client, extra).output[0]
    assert whole.type == "reasoning"
    assert token_count((whole.content or [])[0].text, "o200k_base") == 8


def test_logprobs(client: openai.OpenAI) -> None:
    """Log probabilities are there where they are included, as many as asked for."""
    with_them = respond(client, include=LOGPROBS, top_logprobs=3).output[0]
    without = respond(client, top_logprobs=3).output[0]
    assert with_them.type == without.type == "message"
    [part, other] = with_them.content[0], without.content[0]
    assert part.type == other.type == "output_text"
    assert "".join(entry.token for entry in part.logprobs or ()) == part.text
    assert [len(entry.top_logprobs) for entry in part.logprobs or ()] == [3] * 5
    assert other.logprobs == []


# --------------------------------------------------------------------------------------
# Input
# --------------------------------------------------------------------------------------

ITEMS: dict[str, list[dict[str, Any]]] = {
    "easy": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}],
    "parts": [
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "hi"},
                {"type": "input_image", "image_url": PNG, "detail": "low"},
                {"type": "input_image", "file_id": "file_1", "detail": "auto"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "AAAA"},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            ],
        }
    ],
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "ho", "annotations": [], "logprobs": []},
                {"type": "refusal", "refusal": "no"},
            ],
        }
    ],
    "calls": [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "x"},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {
            "type": "custom_tool_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "2"}],
        },
    ],
    "references": [{"type": "item_reference", "id": "msg_1"}, {"id": "msg_2"}],
    "built-in": [{"type": "web_search_call", "id": "ws_1", "status": "completed"}],
}


@pytest.mark.parametrize("kind", ITEMS)
def test_items(client: openai.OpenAI, kind: str) -> None:
    """Each kind of item is taken."""
    assert respond(client, input=[*ITEMS[kind], {"role": "user", "content": "?"}]).output_text


def counted(client: openai.OpenAI, **parameters: object) -> int:
    """Return the tokens of an input, by the endpoint that counts and by a usage, which agree."""
    count: Any = client.responses.input_tokens.count
    usage = respond(client, **parameters).usage
    tokens = count(**asked(**parameters)).input_tokens
    assert usage is not None
    assert tokens == usage.input_tokens
    return int(tokens)


def test_input_is_counted_as_a_chat(client: openai.OpenAI) -> None:
    """Instructions and items have the tokens of a chat's messages, pictures theirs."""
    hello = counted(client)
    assert hello == 3 + 3 + 1 + 2
    assert counted(client, input=[{"role": "user", "content": "Hello!"}]) == hello
    assert counted(client, instructions="Be kind.") == hello + 3 + 1 + 3
    parts = [{"type": "input_text", "text": "Hello!"}, ITEMS["parts"][0]["content"][1]]
    assert counted(client, input=[{"role": "user", "content": parts}]) == hello + 85
    assert counted(client, tools=[FUNCTION]) > hello
    assert counted(client, input=[*ITEMS["references"], *ITEMS["easy"]]) == 3 + 5 + 5


def test_previous_response(client: openai.OpenAI) -> None:
    """An earlier answer of ours can be named; what was said there does not count."""
    first = respond(client)
    second = respond(client, previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert first.usage == second.usage


def test_large_picture(client: openai.OpenAI) -> None:
    """A picture of several MB is looked at in a thread, as a chat's is."""
    parts = [{"type": "input_image", "detail": "low", "image_url": PNG[:-4] + "A" * 4_000_000}]
    answer = respond(client, input=[{"role": "user", "content": parts}])
    assert answer.usage is not None
    assert answer.usage.input_tokens == 3 + 3 + 1 + 85


# --------------------------------------------------------------------------------------
# Streams
# --------------------------------------------------------------------------------------

TEXT = ["output_item.added", "content_part.added", "output_text.delta", "output_text.done"]
TEXT += ["content_part.done", "output_item.done"]
BEGIN, END = ["created", "in_progress"], ["completed"]
ARGUMENTS = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done"]
ARGUMENTS += ["output_item.done"]
FREE_TEXT = [
    name.replace("function_call_arguments", "custom_tool_call_input") for name in ARGUMENTS
]
SUMMARY = [f"reasoning_summary_{name}" for name in ("part.added", "text.delta", "text.done")]
SUMMARY += ["reasoning_summary_part.done"]

STREAMS: dict[str, tuple[dict[str, Any], dict[str, str], list[str]]] = {
    "text": ({}, {}, BEGIN + TEXT + END),
    "batches": ({}, {"X-SSE-BATCH-SIZE": "2"}, BEGIN + TEXT + END),
    "logprobs": ({"include": LOGPROBS, "top_logprobs": 2}, {}, BEGIN + TEXT + END),
    "cut": ({"max_output_tokens": 3}, {}, BEGIN + TEXT + ["incomplete"]),
    "json": ({"text": {"format": {"type": "json_object"}}}, {}, BEGIN + TEXT + END),
    "calls": (
        {"tools": [FUNCTION, CUSTOM], "tool_choice": "required"},
        {"X-TOOL-CALLS": "2"},
        BEGIN + ARGUMENTS + FREE_TEXT + END,
    ),
    "reasoning": (
        {},
        {"X-REASONING-LENGTH": "4"},
        [*BEGIN, "output_item.added", "output_item.done", *TEXT, *END],
    ),
    "summary": (
        {"reasoning": {"summary": "auto"}},
        {"X-REASONING-LENGTH": "4"},
        [*BEGIN, "output_item.added", *SUMMARY, "output_item.done", *TEXT, *END],
    ),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_events(base_url: str, kind: str) -> None:
    """The events come in OpenAI's order, numbered from 0, and each is of the client's types."""
    parameters, extra, expected = STREAMS[kind]
    events = stream(base_url, {**headers(), **extra}, **parameters, input="json")
    assert kinds(events) == expected
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        EVENTS.validate_python(event)
    for event in events[:2]:
        response = event["response"]
        assert (response["status"], response["output"], response["usage"]) == (
            "in_progress",
            [],
            None,
        )


@pytest.mark.parametrize("kind", STREAMS)
def test_accumulated_equals_whole(base_url: str, http: httpx.Client, kind: str) -> None:
    """With one seed a stream ends with what the whole answer is, which its items add up to."""
    parameters, extra, _ = STREAMS[kind]
    sent = {"input": "json", "seed": 7, **parameters}
    extra = {**headers(), **extra}
    events = stream(base_url, extra, **sent)
    whole = http.post(PATH, json=asked(**sent), headers=extra).json()
    last = events[-1]["response"]
    assert without_ids(last) == without_ids(whole)
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert done == last["output"]
    for name, field in (("output_text", "text"), ("function_call_arguments", "arguments")):
        added = "".join(e["delta"] for e in events if e["type"] == f"response.{name}.delta")
        assert added == "".join(e[field] for e in events if e["type"] == f"response.{name}.done")


@pytest.mark.parametrize(("size", "deltas"), [(1, 5), (2, 3)])
def test_one_delta_for_each_token(base_url: str, size: int, deltas: int) -> None:
    """There is a delta for each token, or for each batch of them."""
    events = stream(base_url, {**headers(), "X-SSE-BATCH-SIZE": str(size)})
    assert sum(e["type"] == "response.output_text.delta" for e in events) == deltas


def test_items_begin_with_their_first_token(one_worker: Server) -> None:
    """What begins an item leaves together with its first token, when that is due."""
    extra = {**headers(100, 200), "X-REASONING-LENGTH": "1"}
    url = f"{one_worker.url}{PATH}"
    started_s = time.monotonic()
    with PLAIN.stream("POST", url, json=asked(stream=True), headers=extra) as answer:
        parts = answer.iter_text()
        announced, first = next(parts), next(parts)
    assert time.monotonic() - started_s >= 0.3
    assert announced.startswith("event: response.created\n")
    assert first.startswith("event: response.output_item.added\n")
    assert first.count("event: response.output_text.delta") == 1


def test_held_head_takes_the_announcement_with_it(one_worker: Server) -> None:
    """With X-HEAD: first-token nothing leaves before the first token, and then all in order."""
    url, extra = f"{one_worker.url}{PATH}", {**headers(150), "X-HEAD": "first-token"}
    started_s = time.monotonic()
    with PLAIN.stream("POST", url, json=asked(stream=True), headers=extra) as answer:
        assert time.monotonic() - started_s >= 0.15
        assert answer.read().startswith(b"event: response.created\n")


def test_comments_come_after_the_announcement(one_worker: Server) -> None:
    """Comments while waiting stand between what announces a response and its first token."""
    extra = {**headers(250), "X-KEEPALIVE-MS": "100"}
    url = f"{one_worker.url}{PATH}"
    text = PLAIN.post(url, json=asked(stream=True), headers=extra).text
    lines = [line for line in text.split("\n") if line.startswith(("event: ", ": "))]
    assert lines[:5] == [
        "event: response.created",
        "event: response.in_progress",
        ": keep-alive",
        ": keep-alive",
        "event: response.output_item.added",
    ]


def test_clock(one_worker: Server) -> None:
    """A stream keeps to the clock as a chat does, and its report in the last event says so."""
    extra = {**headers(30, 5, 40), "X-EMULATION-REPORT": "true"}
    report = stream(one_worker.url, extra)[-1]["response"]["emulation"]
    assert report["ttft_ms"]["asked"] == 30
    assert report["ttft_ms"]["actual"] >= 30
    assert report["itl_ms"]["mean"] == pytest.approx(5, rel=0.1)
    assert report["total_ms"]["asked"] == 30 + 39 * 5


def test_report_of_a_whole_answer(http: httpx.Client) -> None:
    """A whole answer has the report where the last event's response has it."""
    extra = {**headers(10), "X-EMULATION-REPORT": "true"}
    answer = http.post(PATH, json=asked(), headers=extra).json()
    assert answer["emulation"]["total_ms"]["actual"] >= 10


def test_stream_helper(client: openai.OpenAI) -> None:
    """The stream helper accumulates a text, and parses it to a pydantic format."""
    with client.responses.stream(model="gpt-4o", input="x", text_format=City) as events:
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        final = events.get_final_response()
    assert "".join(deltas) == final.output_text
    assert isinstance(final.output_parsed, City)


@pytest.mark.anyio
async def test_asynchronous_stream_helper(async_client: openai.AsyncOpenAI) -> None:
    """The asynchronous client's stream helper accumulates calls."""
    stream_: Any = async_client.responses.stream
    tools = {"tools": [FUNCTION], "tool_choice": "required"}
    async with stream_(model="gpt-4o", input="x", **tools) as events:
        final = await events.get_final_response()
    [call] = final.output
    assert call.type == "function_call"
    assert isinstance(call.parsed_arguments, dict)


def renderer() -> ResponsesRenderer:
    """Return what writes a response."""
    request = ResponsesRequest(model="gpt-4o", input="x", include=["message.output_text.logprobs"])
    return ResponsesRenderer(Header("resp_" + "0" * 50, 1, "gpt-4o", "fp"), Echoed.of(request))


def test_failure_in_mid_stream() -> None:
    """A failure in mid-stream is an event of the type error, with the next number, and one more."""
    writer = renderer()
    answer = Answer(0, [Segment(["a", " b"])], "stop", 2)
    events = writer.stream([answer], 1, None)
    written = events.render(0, 1, None)
    error = ErrorBody(message="Sorry", type="server_error", param=None, code=None)
    name, data, _, last_name, last_data, _ = writer.error(error, "").split("\n")[:6]
    assert (name, last_name) == ("event: error", "event: response.failed")
    assert json.loads(data.removeprefix("data: ")) == {
        "type": "error",
        "code": "server_error",
        "message": "Sorry",
        "param": None,
        "error": error.model_dump(),
        "sequence_number": written.count("event: "),
    }
    for each in (data, last_data):
        EVENTS.validate_json(each.removeprefix("data: "))


def test_long_logprobs_are_not_repeated() -> None:
    """Log probabilities of over 1 MB stand in the last event, and not in those that end a text."""
    writer = renderer()
    answer = Answer(0, [Segment(["a"])], "stop", 1)
    events = writer.stream([answer], 1, None)
    events.render(0, 1, None)
    writer._logprobs = ['{"token":"a"}' * (MAX_LOGPROBS_REPEATED // 10)]
    *done, completed = writer.end(events.end(), Usage.of(1, 1), "").split("\n\n")[:-1]
    assert all('"logprobs":[]' in event for event in done)
    assert len(completed) > MAX_LOGPROBS_REPEATED > sum(map(len, done))


# --------------------------------------------------------------------------------------
# Refusals, and what is not stored
# --------------------------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], str, str | None]] = [
    ({"input": 3}, "input", "invalid_type"),
    ({"input": []}, "input", "empty_array"),
    ({"input": None}, "input", "missing_required_parameter"),
    ({"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
     "input[0].content[0].type", "invalid_value"),
    ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role", "invalid_value"),
    ({"input": [{"type": "nope"}]}, "input[0].type", "invalid_value"),
    ({"input": [{"type": "function_call_output", "output": "x"}]},
     "input[0].call_id", "missing_required_parameter"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
     "input[0].content[0].image_url", "invalid_image_url"),
    ({"max_output_tokens": 0}, "max_output_tokens", "integer_below_min_value"),
    ({"temperature": 3}, "temperature", "decimal_above_max_value"),
    ({"tools": [{"type": "nope"}]}, "tools[0].type", "invalid_value"),
    ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
    ({"tool_choice": "required"}, "tool_choice", None),
    ({"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice", None),
    ({"tools": [{"type": "web_search"}, {**FUNCTION, "parameters": {"type": 1}}],
      "tool_choice": "required"}, "tools[1].parameters", "invalid_schema"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "x"}}}},
     "text.format.schema", "invalid_schema"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}},
     "text.format.schema", "missing_required_parameter"),
    ({"reasoning": {"effort": "x"}}, "reasoning.effort", "invalid_value"),
    ({"include": ["x"]}, "include[0]", "invalid_value"),
    ({"metadata": {"a" * 65: "x"}}, "metadata." + "a" * 65, "string_above_max_length"),
    ({"background": True}, "background", "unsupported_value"),
    ({"stream_options": {"include_obfuscation": False}}, "stream_options", None),
    ({"previous_response_id": "resp_x"}, "previous_response_id", "previous_response_not_found"),
    ({"previous_response_id": OLD_ID, "conversation": "conv_1"},
     "previous_response_id", "mutually_exclusive_parameters"),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "param", "code"), BAD, ids=lambda value: str(value)[:40])
def test_refusals(
    client: openai.OpenAI, parameters: dict[str, Any], param: str, code: str | None
) -> None:
    """A fault is a 400 that names the field by its path, and why."""
    error = refused(client, asked(**parameters), "/responses")
    assert (error.status_code, error.param, error.code) == (400, param, code)


def test_limits_are_named_as_they_came(http: httpx.Client) -> None:
    """An error about the length names the parameter of this API."""
    body = asked(max_output_tokens=200_000, ignore_eos=True)
    assert http.post(PATH, json=body).json()["error"]["param"] == "max_output_tokens"


def test_strict_parameters(other_client: openai.OpenAI) -> None:
    """A strict server refuses what OpenAI does not have, and the seed too."""
    for name in ("zzz", "seed"):
        error = refused(other_client, asked(**{name: 1}), "/responses")
        assert (error.param, error.code) == (name, "unknown_parameter")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/responses/resp_x"),
        ("DELETE", "/responses/resp_x"),
        ("GET", "/responses/resp_x/input_items"),
        ("POST", "/responses/resp_x/cancel"),
    ],
)
def test_nothing_is_stored(http: httpx.Client, method: str, path: str) -> None:
    """What asks for a stored response is a 404 in OpenAI's words."""
    answer = http.request(method, f"/v1{path}")
    assert answer.status_code == 404
    assert answer.json()["error"] == {
        "message": "Response with id 'resp_x' not found.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


def test_retrieve(client: openai.OpenAI) -> None:
    """The client's retrieve is its NotFoundError."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.retrieve("resp_x")
    assert message_of(caught.value) == "Response with id 'resp_x' not found."


def test_log_and_metrics(logged_server: Server, client: openai.OpenAI) -> None:
    """A response has the log line of a completion, and counts as one."""
    name, reason = "openai_emulator_completions_total", {"finish_reason": "length"}
    before = logged_server.metrics().total(name, **reason)
    answer = respond(client, max_output_tokens=2)
    assert eventually(lambda: f"completion id={answer.id} " in logged_server.log())
    assert eventually(lambda: logged_server.metrics().total(name, **reason) == before + 1)
