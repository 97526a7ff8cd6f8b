"""Tool calls, JSON answers and what tools cost, through the official client."""

import json
from collections.abc import Sequence
from typing import Any, Literal

import jsonschema
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from tests.support.sdk import chunks, complete, message_of, text_of
from tests.support.wire import headers, stream, token_count

Address = tuple[str, int]
Schema = dict[str, Any]

ADDRESS: Schema = {
    "type": "object",
    "properties": {
        "street": {"type": "string", "minLength": 3, "maxLength": 30},
        "zip": {"type": "string", "pattern": "^[0-9]{5}$"},
    },
    "required": ["street", "zip"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, Schema] = {
    "scalars": {
        "type": "object",
        "properties": {
            "count": {"type": "integer", "minimum": 3, "maximum": 5},
            "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "really": {"type": "boolean"},
            "nothing": {"type": "null"},
            "even": {"type": "integer", "multipleOf": 2},
        },
        "required": ["count", "share", "really", "nothing", "even"],
    },
    "enums": {
        "type": "object",
        "properties": {"unit": {"enum": ["c", "f"]}, "version": {"const": 7}},
        "required": ["unit", "version"],
    },
    "nested": {
        "type": "object",
        "properties": {"home": ADDRESS, "others": {"type": "array", "items": ADDRESS}},
        "required": ["home", "others"],
    },
    "arrays": {
        "type": "object",
        "properties": {
            "ids": {
                "type": "array",
                "items": {"type": "integer"},
                "minItems": 2,
                "maxItems": 4,
                "uniqueItems": True,
            }
        },
        "required": ["ids"],
    },
    "definitions": {
        "type": "object",
        "properties": {"home": {"$ref": "#/$defs/Address"}, "tree": {"$ref": "#/$defs/Node"}},
        "required": ["home", "tree"],
        "$defs": {
            "Address": ADDRESS,
            "Node": {
                "type": "object",
                "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
                "required": ["children"],
            },
        },
    },
    "alternatives": {
        "type": "object",
        "properties": {
            "when": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
            "who": {"oneOf": [ADDRESS, {"type": "integer", "minimum": 9}]},
            "both": {"allOf": [{"type": "integer", "minimum": 1}, {"maximum": 2}]},
        },
        "required": ["when", "who", "both"],
    },
    "formats": {
        "type": "object",
        "properties": {
            form: {"type": "string", "format": form}
            for form in ("date", "time", "date-time", "email", "uuid", "ipv4", "ipv6", "uri")
        },
        "required": ["date", "time", "date-time", "email", "uuid", "ipv4", "ipv6", "uri"],
    },
    "free": {"type": "object"},
}


def function(name: str = "f", parameters: Schema | None = None) -> dict[str, Any]:
    """Return a function as a tool."""
    schema = SCHEMAS["scalars"] if parameters is None else parameters
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def custom(name: str) -> dict[str, Any]:
    """Return a custom tool."""
    return {"type": "custom", "custom": {"name": name}}


def named(name: str, kind: str = "function") -> dict[str, Any]:
    """Return the choice of one tool."""
    return {"type": kind, kind: {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    """Return the choice among some functions."""
    tools = [named(name) for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def asking(calls: int) -> dict[str, str]:
    """Return the headers that ask for tool calls."""
    return {**headers(), "X-TOOL-CALLS": str(calls)}


def calls_of(answer: ChatCompletion) -> list[tuple[str, Any]]:
    """Return name and parsed arguments of each call of a function."""
    calls = answer.choices[0].message.tool_calls or []
    return [
        (call.function.name, json.loads(call.function.arguments))
        for call in calls
        if call.type == "function"
    ]


def names_of(answer: ChatCompletion) -> list[str]:
    """Return the names of the called functions."""
    return [name for name, _ in calls_of(answer)]


def assert_valid(schema: Schema, value: object) -> None:
    """Check an instance with jsonschema, formats included."""
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(value)


# --------------------------------------------------------------------------------------
# Which tool is called
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCHEMAS)
def test_arguments_satisfy_the_schema(client: openai.OpenAI, kind: str) -> None:
    """A required call's arguments are valid for the function's schema, every time."""
    for seed in range(8):
        tools = [function(parameters=SCHEMAS[kind])]
        answer = complete(client, seed=seed, tools=tools, tool_choice="required")
        [(name, arguments)] = calls_of(answer)
        assert_valid(SCHEMAS[kind], arguments)
        assert isinstance(arguments, dict)
        assert name == "f"


def test_shape_of_a_call(client: openai.OpenAI) -> None:
    """An answer that calls has no content, an id for each call, and the reason tool_calls."""
    answer = complete(client, asking(3), tools=[function()], tool_choice="required")
    message = answer.choices[0].message
    ids = [call.id for call in message.tool_calls or ()]
    assert message.content is None
    assert answer.choices[0].finish_reason == "tool_calls"
    assert all(len(id_) == 29 and id_.startswith("call_") and id_[5:].isalnum() for id_ in ids)
    assert len(set(ids)) == 3


def test_usage_counts_the_arguments(client: openai.OpenAI) -> None:
    """The completion tokens of a call are those of its arguments."""
    answer = complete(client, asking(2), tools=[function()], tool_choice="required")
    calls = [c for c in answer.choices[0].message.tool_calls or () if c.type == "function"]
    counts = [token_count(call.function.arguments, "cl100k_base") for call in calls]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == sum(counts) > 0


@pytest.mark.parametrize(
    ("choice", "calls", "called"),
    [
        (None, 0, []),
        ("auto", 0, []),
        ("none", 0, []),
        ("none", 2, []),
        ("required", 0, ["f"]),
        (named("g"), 0, ["g"]),
        (None, 1, ["f"]),
        ("auto", 3, ["f", "g", "f"]),
        ("required", 2, ["f", "g"]),
        (named("g"), 2, ["g", "g"]),
        (allowed("required", "g"), 0, ["g"]),
        (allowed("auto", "g"), 0, []),
        (allowed("auto", "g"), 2, ["g", "g"]),
    ],
)
def test_tool_choice(client: openai.OpenAI, choice: object, calls: int, called: list[str]) -> None:
    """The choice and X-TOOL-CALLS decide which functions are called; else there is text."""
    choices = {} if choice is None else {"tool_choice": choice}
    tools = [function("f"), function("g")]
    answer = complete(client, asking(calls), tools=tools, **choices)
    assert names_of(answer) == called
    is_named = isinstance(choice, dict) and choice["type"] == "function"
    ends = "tool_calls" if called and not is_named else "stop"
    assert answer.choices[0].finish_reason == ends
    assert token_count(text_of(answer), "cl100k_base") == (0 if called else 5)


def test_allowed_tools_are_told_apart_by_kind(client: openai.OpenAI) -> None:
    """Of a function and a custom tool of one name, the one of the allowed kind is called."""
    choice = allowed("required")
    choice["allowed_tools"]["tools"] = [named("f", "custom")]
    answer = complete(client, tools=[function("f"), custom("f")], tool_choice=choice)
    assert [call.type for call in answer.choices[0].message.tool_calls or ()] == ["custom"]


def test_one_call_at_a_time(client: openai.OpenAI) -> None:
    """With parallel_tool_calls false there is one call, however many are asked for."""
    tools = [function("f"), function("g")]
    answer = complete(client, asking(3), tools=tools, parallel_tool_calls=False)
    assert names_of(answer) == ["f"]


def test_calls_need_tools(client: openai.OpenAI) -> None:
    """X-TOOL-CALLS without tools yields text."""
    assert complete(client, asking(2)).choices[0].message.content


def after_calls(*names: str) -> list[dict[str, Any]]:
    """Return the messages of a user, of calls of these functions, and of their results."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
    for number, name in enumerate(names):
        function_call = {"name": name, "arguments": "{}"}
        call = {"id": f"call_{number}", "type": "function", "function": function_call}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": "42"})
    return messages


@pytest.mark.parametrize("choice", [None, "auto", allowed("auto", "f")], ids=str)
def test_text_after_the_result_of_a_tool(client: openai.OpenAI, choice: object) -> None:
    """With auto a text follows a tool's result, also with X-TOOL-CALLS, so that agents end."""
    choices = {} if choice is None else {"tool_choice": choice}
    answer = complete(
        client, asking(2), messages=after_calls("f"), tools=[function("f")], **choices
    )
    assert answer.choices[0].finish_reason == "stop"
    assert token_count(text_of(answer), "cl100k_base") == 5


@pytest.mark.parametrize(
    ("choice", "finish"),
    [("required", "tool_calls"), (allowed("required", "f"), "tool_calls"), (named("f"), "stop")],
    ids=str,
)
def test_required_calls_follow_results(client: openai.OpenAI, choice: object, finish: str) -> None:
    """A required or a named tool is called also after a tool's result."""
    answer = complete(client, messages=after_calls("f"), tools=[function("f")], tool_choice=choice)
    assert names_of(answer) == ["f"]
    assert answer.choices[0].finish_reason == finish


@pytest.mark.parametrize(
    ("called", "expected"),
    [((), "f"), (("f",), "g"), (("g",), "f"), (("f", "g"), "h"), (("f", "g", "h"), "f")],
)
def test_new_tools_come_first(
    client: openai.OpenAI, called: tuple[str, ...], expected: str
) -> None:
    """Of several tools, those not called since the user last spoke come first."""
    tools = [function(name) for name in "fgh"]
    answer = complete(client, messages=after_calls(*called), tools=tools, tool_choice="required")
    assert names_of(answer) == [expected]


def test_calls_before_the_user_spoke_do_not_count(client: openai.OpenAI) -> None:
    """With a new message of the user the tools begin anew."""
    messages = [*after_calls("f"), {"role": "user", "content": "and now?"}]
    tools = [function("f"), function("g")]
    assert names_of(complete(client, asking(1), messages=messages, tools=tools)) == ["f"]


def test_named_tool_ends_with_stop(client: openai.OpenAI) -> None:
    """A call of a named tool ends with the reason stop, whole and streamed."""
    asked: dict[str, Any] = {"tools": [function("f")], "tool_choice": named("f")}
    assert complete(client, **asked).choices[0].finish_reason == "stop"
    assert chunks(client, **asked)[-1].choices[0].finish_reason == "stop"


def test_calls_cut_by_the_limit(client: openai.OpenAI) -> None:
    """A limit cuts the arguments, with the reason length."""
    tools = [function()]
    answer = complete(client, tools=tools, tool_choice="required", max_completion_tokens=3)
    [call] = [c for c in answer.choices[0].message.tool_calls or () if c.type == "function"]
    assert token_count(call.function.arguments, "cl100k_base") == 3
    assert answer.choices[0].finish_reason == "length"


def test_no_call_begins_without_a_token(client: openai.OpenAI) -> None:
    """Where the limit ends with a call there is no empty one after it, whole or streamed."""
    asked: dict[str, Any] = {"seed": 1, "tools": [function()], "tool_choice": "required"}
    first = complete(client, asking(1), **asked)
    assert first.usage is not None
    limited = asked | {"max_completion_tokens": first.usage.completion_tokens}
    whole, streamed = complete(client, asking(3), **limited), chunks(client, asking(3), **limited)
    heads = [delta for delta in deltas(streamed) if "id" in (delta.get("tool_calls") or [{}])[0]]
    assert calls_of(whole) == calls_of(first)
    assert len(heads) == 1
    assert whole.choices[0].finish_reason == streamed[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("is_shown", [False, True])
def test_no_call_after_reasoning_up_to_the_limit(
    client: openai.OpenAI, other_client: openai.OpenAI, is_shown: bool
) -> None:
    """Where reasoning takes all the limit, hidden or shown, there is no call but an empty text."""
    server = other_client if is_shown else client
    asked: dict[str, Any] = {"tools": [function()], "tool_choice": "required", "max_tokens": 7}
    thinking = {**headers(), "X-REASONING-LENGTH": "9"}
    choice = complete(server, thinking, **asked).choices[0]
    streamed = chunks(server, thinking, **asked)
    assert (choice.message.tool_calls, choice.message.content) == (None, "")
    assert [delta["content"] for delta in deltas(streamed) if "content" in delta] == [""]
    assert all("tool_calls" not in delta for delta in deltas(streamed))
    assert choice.finish_reason == streamed[-1].choices[0].finish_reason == "length"


def test_custom_tool(client: openai.OpenAI) -> None:
    """A custom tool is called with free text of the asked length."""
    tools = [function(), custom("shout")]
    answer = complete(client, tools=tools, tool_choice=named("shout", "custom"))
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "custom"
    assert call.custom.name == "shout"
    assert token_count(call.custom.input, "cl100k_base") == 5


@pytest.mark.parametrize(("limit", "finish"), [(3, "length"), (5, "tool_calls")])
def test_custom_call_cut_by_the_limit(client: openai.OpenAI, limit: int, finish: str) -> None:
    """A limit cuts the text of a custom tool, with the reason length if it was to be longer."""
    tools = {"tools": [custom("shout")], "tool_choice": "required"}
    choice = complete(client, max_completion_tokens=limit, **tools).choices[0]
    [call] = choice.message.tool_calls or []
    assert call.type == "custom"
    assert token_count(call.custom.input, "cl100k_base") == limit
    assert choice.finish_reason == finish


def test_custom_tools_are_not_counted(client: openai.OpenAI) -> None:
    """A custom tool costs no prompt tokens, as no one has said how many it should."""
    usages = [complete(client, **tools).usage for tools in ({}, {"tools": [custom("shout")]})]
    assert len({usage.prompt_tokens for usage in usages if usage}) == 1


def test_calls_have_no_logprobs(client: openai.OpenAI) -> None:
    """Log probabilities are those of text, so that a call has none, whole or streamed."""
    asked: dict[str, Any] = {
        "tools": [function()],
        "tool_choice": "required",
        "logprobs": True,
        "top_logprobs": 2,
    }
    assert complete(client, **asked).choices[0].logprobs is None
    assert {chunk.choices[0].logprobs for chunk in chunks(client, **asked)} == {None}


@pytest.mark.parametrize(
    ("choice", "calls", "called"),
    [("none", 1, False), ("auto", 0, False), ("auto", 2, True), ({"name": "f"}, 0, True)],
)
def test_deprecated_functions(
    client: openai.OpenAI, choice: object, calls: int, called: bool
) -> None:
    """The deprecated functions are called by the same rules, one at a time."""
    functions = [function()["function"]]
    answer = complete(client, asking(calls), functions=functions, function_call=choice)
    call = answer.choices[0].message.function_call
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason == ("function_call" if called else "stop")
    assert (call is not None) == called
    if call is not None:
        assert call.name == "f"
        assert_valid(SCHEMAS["scalars"], json.loads(call.arguments))


# --------------------------------------------------------------------------------------
# Streams
# --------------------------------------------------------------------------------------


def deltas(streamed: Sequence[ChatCompletionChunk]) -> list[dict[str, Any]]:
    """Return what each chunk adds, without what it leaves out."""
    return [chunk.choices[0].delta.model_dump(exclude_unset=True) for chunk in streamed]


def test_streamed_calls(client: openai.OpenAI) -> None:
    """A streamed call is a delta with its name, then one delta for each token of its arguments."""
    parameters = {"seed": 1, "tools": [function("f"), function("g")], "tool_choice": "required"}
    whole = complete(client, asking(2), **parameters).choices[0].message.tool_calls or []
    first, *rest, last = deltas(chunks(client, asking(2), **parameters))
    heads = [
        {"index": i, "id": call.id, "type": "function", "function": {"name": name, "arguments": ""}}
        for i, (call, name) in enumerate(zip(whole, "fg", strict=True))
    ]
    assert first == {"role": "assistant", "content": None, "refusal": None, "tool_calls": heads[:1]}
    assert last == {}
    calls = [call for delta in rest for call in delta["tool_calls"]]
    pieces = [call for call in calls if call != heads[1]]
    assert all(set(delta) == {"tool_calls"} for delta in rest)
    assert len(calls) == len(pieces) + 1
    for index, call in enumerate(whole):
        assert call.type == "function"
        mine = [piece for piece in pieces if piece["index"] == index]
        assert all(set(piece) == {"index", "function"} for piece in mine)
        assert all(set(piece["function"]) == {"arguments"} for piece in mine)
        texts = [piece["function"]["arguments"] for piece in mine]
        assert "".join(texts) == call.function.arguments
        assert len(texts) == token_count(call.function.arguments, "cl100k_base")


def test_streamed_calls_keep_the_clock(address: Address) -> None:
    """No token of the arguments is earlier than it is due, and the name comes with the first."""
    asked = headers(ttft_ms=40, itl_ms=20)
    answer = stream(address, asked, seed=1, tools=[function()], tool_choice="required")
    times = [
        event.arrival_s
        for event in answer.events[:-1]
        for call in event.json["choices"][0]["delta"].get("tool_calls", ())
        if call["function"]["arguments"]
    ]
    assert len(times) > 10
    assert answer.events[0].arrival_s == times[0]
    assert all(at_s >= 0.040 + slot * 0.020 for slot, at_s in enumerate(times))


def test_streamed_function_call(client: openai.OpenAI) -> None:
    """The deprecated call is streamed as a name and then as pieces of arguments."""
    functions = [function()["function"]]
    streamed = chunks(client, functions=functions, function_call={"name": "f"})
    first, *rest, last = deltas(streamed)
    assert first["function_call"] == {"name": "f", "arguments": ""}
    assert all(set(delta["function_call"]) == {"arguments"} for delta in rest)
    assert_valid(
        SCHEMAS["scalars"], json.loads("".join(d["function_call"]["arguments"] for d in rest))
    )
    assert last == {}
    assert streamed[-1].choices[0].finish_reason == "function_call"


def test_streamed_custom_call(client: openai.OpenAI) -> None:
    """A custom call is streamed as a name and then as pieces of its input."""
    streamed = chunks(client, tools=[custom("shout")], tool_choice="required")
    first, *rest, _ = deltas(streamed)
    assert first["tool_calls"][0]["custom"] == {"name": "shout", "input": ""}
    assert [set(delta["tool_calls"][0]["custom"]) for delta in rest] == [{"input"}] * 5


def test_usage_of_streamed_calls(client: openai.OpenAI) -> None:
    """The usage of a streamed call is that of the whole one."""
    parameters = {"seed": 4, "tools": [function()], "tool_choice": "required"}
    streamed = chunks(client, **parameters, stream_options={"include_usage": True})
    assert streamed[-1].usage == complete(client, **parameters).usage


class Weather(BaseModel):
    """Asks for the weather."""

    city: str
    unit: Literal["celsius", "fahrenheit"]
    days: int


def test_stream_helper_parses_calls(client: openai.OpenAI) -> None:
    """The client's stream helper tells of each call, and parses its arguments into a model."""
    with client.chat.completions.stream(
        model="gpt-4",
        messages=[{"role": "user", "content": "hi"}],
        tools=[openai.pydantic_function_tool(Weather)],
        tool_choice="required",
        extra_headers=headers(),
    ) as events:
        done = [e for e in events if e.type == "tool_calls.function.arguments.done"]
        [call] = events.get_final_completion().choices[0].message.tool_calls or []
    assert [event.name for event in done] == ["Weather"]
    assert isinstance(call.function.parsed_arguments, Weather)
    assert call.function.parsed_arguments == done[0].parsed_arguments


def test_parse_helper_parses_calls(client: openai.OpenAI) -> None:
    """The client's parse helper does so with a whole answer."""
    answer = client.chat.completions.parse(
        model="gpt-4",
        messages=[{"role": "user", "content": "hi"}],
        tools=[openai.pydantic_function_tool(Weather)],
        tool_choice="required",
        extra_headers=headers(),
    )
    [call] = answer.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Weather)


# --------------------------------------------------------------------------------------
# Formats
# --------------------------------------------------------------------------------------


def schema_format(schema: Schema) -> dict[str, Any]:
    """Return the response format of a schema."""
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


JSON_OBJECT: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Answer in JSON."}],
    "response_format": {"type": "json_object"},
}


def test_json_object(client: openai.OpenAI) -> None:
    """json_object yields a JSON object."""
    answer = complete(client, **JSON_OBJECT)
    assert isinstance(json.loads(text_of(answer)), dict)
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("kind", SCHEMAS)
def test_json_schema(client: openai.OpenAI, kind: str) -> None:
    """json_schema yields an instance of the schema, every time, and usage counts its tokens."""
    for seed in range(4):
        answer = complete(client, seed=seed, response_format=schema_format(SCHEMAS[kind]))
        assert_valid(SCHEMAS[kind], json.loads(text_of(answer)))
        assert answer.usage is not None
        assert answer.usage.completion_tokens == token_count(text_of(answer), "cl100k_base")


def test_json_is_streamed_by_tokens(address: Address) -> None:
    """JSON is streamed token by token, on the clock, and complete."""
    formatted = schema_format(SCHEMAS["nested"])
    asked = headers(ttft_ms=20, itl_ms=10)
    answer = stream(address, asked, seed=1, response_format=formatted)
    assert_valid(SCHEMAS["nested"], json.loads(answer.text))
    assert len(answer.content) == token_count(answer.text, "cl100k_base") > 10
    for slot, event in enumerate(answer.content):
        assert event.arrival_s >= 0.020 + slot * 0.010


def test_json_cut_by_the_limit(client: openai.OpenAI) -> None:
    """A limit cuts JSON like text, with the reason length."""
    answer = complete(client, **JSON_OBJECT, max_completion_tokens=3)
    assert token_count(text_of(answer), "cl100k_base") == 3
    assert answer.choices[0].finish_reason == "length"


class Step(BaseModel):
    """A step of a solution."""

    explanation: str
    output: float | None


class Solution(BaseModel):
    """A solution, with parts of parts."""

    steps: list[Step]
    final: Step
    kind: Literal["short", "long"]


def test_parse_helper(client: openai.OpenAI) -> None:
    """The client's parse helper gets an instance of a pydantic model."""
    answer = client.chat.completions.parse(
        model="gpt-4o",
        messages=[{"role": "user", "content": "hi"}],
        response_format=Solution,
        extra_headers=headers(),
    )
    assert isinstance(answer.choices[0].message.parsed, Solution)


def test_parse_helper_streams(client: openai.OpenAI) -> None:
    """The client's stream helper parses while it streams, and at the end gets the model."""
    with client.chat.completions.stream(
        model="gpt-4o",
        messages=[{"role": "user", "content": "hi"}],
        response_format=Solution,
        extra_headers=headers(),
    ) as events:
        kinds = [event.type for event in events]
        answer = events.get_final_completion()
    assert isinstance(answer.choices[0].message.parsed, Solution)
    assert kinds.count("content.delta") > 5
    assert kinds.count("content.done") == 1


def test_parse_helper_raises_at_the_limit(client: openai.OpenAI) -> None:
    """When the limit cuts the JSON the client raises its own error for that."""
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model="gpt-4o",
            messages=[{"role": "user", "content": "hi"}],
            response_format=Solution,
            max_completion_tokens=3,
            extra_headers=headers(),
        )


BAD_SCHEMAS: list[tuple[Schema, str]] = [
    ({"type": "objekt"}, "type"),
    (
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/X"}}, "required": ["a"]},
        "properties.a.$ref",
    ),
    (
        {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 3}},
            "required": ["a"],
        },
        "properties.a",
    ),
]


@pytest.mark.parametrize(("schema", "path"), BAD_SCHEMAS)
def test_bad_schema_of_a_format(client: openai.OpenAI, schema: Schema, path: str) -> None:
    """A schema that nothing satisfies is the client's BadRequestError with the fault's path."""
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, response_format=schema_format(schema))
    param = "response_format.json_schema.schema"
    assert (caught.value.param, caught.value.code) == (param, "invalid_schema")
    assert message_of(caught.value).startswith(f"Invalid schema for '{param}.{path}': ")


@pytest.mark.parametrize(("schema", "path"), BAD_SCHEMAS[1:])
def test_bad_schema_of_a_tool(client: openai.OpenAI, schema: Schema, path: str) -> None:
    """So is a function's that is to be called."""
    tools = [function(), function("g", schema)]
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, tools=tools, tool_choice=named("g"))
    param = "tools[1].function.parameters"
    assert (caught.value.param, caught.value.code) == (param, "invalid_schema")
    assert message_of(caught.value).startswith(f"Invalid schema for '{param}.{path}': ")


# --------------------------------------------------------------------------------------
# What tools cost
# --------------------------------------------------------------------------------------

# The example of OpenAI's cookbook, "How to count tokens with tiktoken", with the counts that
# OpenAI's own API gave for it.
QUESTION = [
    {
        "role": "system",
        "content": "You are a helpful assistant that can answer to questions about the weather.",
    },
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]
CURRENT_WEATHER = {
    "name": "get_current_weather",
    "description": "Get the current weather in a given location",
    "parameters": {
        "type": "object",
        "properties": {
            "location": {
                "type": "string",
                "description": "The city and state, e.g. San Francisco, CA",
            },
            "unit": {
                "type": "string",
                "description": "The unit of temperature to return",
                "enum": ["celsius", "fahrenheit"],
            },
        },
        "required": ["location"],
    },
}
COOKBOOK = [("gpt-3.5-turbo", 105), ("gpt-4", 105), ("gpt-4o", 101), ("gpt-4o-mini", 101)]


@pytest.mark.parametrize("deprecated", [False, True])
@pytest.mark.parametrize(("model", "tokens"), COOKBOOK)
def test_prompt_tokens_of_the_cookbooks_tools(
    client: openai.OpenAI, model: str, tokens: int, deprecated: bool
) -> None:
    """The cookbook's chat with a tool counts what OpenAI's API counted."""
    tool = {"type": "function", "function": CURRENT_WEATHER}
    offered = {"functions": [CURRENT_WEATHER]} if deprecated else {"tools": [tool]}
    usage = complete(client, model=model, messages=QUESTION, **offered).usage
    assert usage is not None
    assert usage.prompt_tokens == tokens


def test_function_of_many_properties(client: openai.OpenAI) -> None:
    """A function of a hundred properties is called with valid arguments."""
    properties = {f"p{i}": {"type": "string", "format": "uuid"} for i in range(100)}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    answer = complete(client, tools=[function(parameters=schema)], tool_choice="required")
    [(_, arguments)] = calls_of(answer)
    assert_valid(schema, arguments)
    assert len(arguments) == 100
