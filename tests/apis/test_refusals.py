"""What OpenAI refuses though each parameter is valid by itself, and what a lenient server takes."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from conftest import sdk_client
from emulator.apis.chat.reasoning_models import reasoning_model
from tests.support.sdk import complete, message_of, refused
from tests.support.server import Server
from tests.support.wire import chat, headers

HI = {"role": "user", "content": "hi"}
CALLS = {
    "role": "assistant",
    "tool_calls": [
        {"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}}
        for name in ("call_a", "call_b")
    ],
}
RESULTS = [
    {"role": "tool", "tool_call_id": name, "content": "done"} for name in ("call_a", "call_b")
]
STRICT: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "object", "properties": {}, "additionalProperties": False}},
    "required": ["a"],
    "additionalProperties": False,
}
OPEN = {**STRICT, "properties": {"a": {"type": "object", "properties": {}}}}
OPTIONAL = {**STRICT, "properties": {**STRICT["properties"], "b": {"type": "string"}}}


def formatted(schema: object, *, strict: bool = True) -> dict[str, object]:
    """Return a request for an instance of a schema."""
    named = {"name": "x", "schema": schema, "strict": strict}
    return chat(response_format={"type": "json_schema", "json_schema": named})


def offering(schema: object, *, strict: bool = True) -> dict[str, object]:
    """Return a request with a function."""
    function = {"name": "f", "parameters": schema, "strict": strict}
    return chat(tools=[{"type": "function", "function": function}])


def saying(*messages: object) -> dict[str, object]:
    """Return a request with these messages."""
    return chat(messages=list(messages))


UNASKED = (
    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
    "'tool_calls'."
)
UNANSWERED = (
    "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
    "'tool_call_id'. The following tool_call_ids did not have response messages: "
)
NO_TEMPERATURE = (
    "Unsupported value: 'temperature' does not support 0.2 with this model. "
    "Only the default (1) value is supported."
)
REFUSED: dict[str, tuple[dict[str, object], str, str | None, str]] = {
    "result without a call": (saying(HI, RESULTS[0]), "messages.[1].role", None, UNASKED),
    "result of another call": (
        saying(HI, CALLS, *RESULTS, {**RESULTS[0], "tool_call_id": "call_c"}),
        "messages.[4].role",
        None,
        UNASKED,
    ),
    "result after something else": (
        saying(HI, CALLS, *RESULTS, HI, RESULTS[0]),
        "messages.[5].role",
        None,
        UNASKED,
    ),
    "no results": (
        saying(HI, CALLS, HI),
        "messages.[2].role",
        None,
        f"{UNANSWERED}call_a, call_b",
    ),
    "one result": (
        saying(HI, CALLS, RESULTS[0], HI),
        "messages.[3].role",
        None,
        f"{UNANSWERED}call_b",
    ),
    "no results at the end": (
        saying(HI, CALLS),
        "messages.[1].role",
        None,
        f"{UNANSWERED}call_a, call_b",
    ),
    "json unsaid": (
        chat(response_format={"type": "json_object"}),
        "messages",
        None,
        "'messages' must contain the word 'json' in some form, to use 'response_format' of type "
        "'json_object'.",
    ),
    "open object": (
        formatted(OPEN),
        "response_format",
        None,
        "Invalid schema for response_format 'x': In context=('properties', 'a'), "
        "'additionalProperties' is required to be supplied and to be false.",
    ),
    "optional property": (
        formatted(OPTIONAL),
        "response_format",
        None,
        "Invalid schema for response_format 'x': In context=(), 'required' is required to be "
        "supplied and to be an array including every key in properties. Missing 'b'.",
    ),
    "open object of a function": (
        offering(OPEN),
        "tools[0].function.parameters",
        "invalid_function_parameters",
        "Invalid schema for function 'f': In context=('properties', 'a'), "
        "'additionalProperties' is required to be supplied and to be false.",
    ),
    "optional property of a function": (
        offering(OPTIONAL),
        "tools[0].function.parameters",
        "invalid_function_parameters",
        "Invalid schema for function 'f': In context=(), 'required' is required to be supplied "
        "and to be an array including every key in properties. Missing 'b'.",
    ),
    "assistant that says nothing": (
        saying(HI, {"role": "assistant"}, HI),
        "messages.[1].content",
        None,
        "Invalid value for 'content': expected a string, got null.",
    ),
    "tools beside functions": (
        chat(functions=[{"name": "f"}], tools=[{"type": "function", "function": {"name": "g"}}]),
        "functions",
        "mutually_exclusive_parameters",
        "Mutually exclusive parameters: 'tools' and 'functions'. Use 'tools' alone.",
    ),
    "max_tokens": (
        chat(model="o3-mini", max_tokens=5),
        "max_tokens",
        "unsupported_parameter",
        "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead.",
    ),
    "temperature": (
        chat(model="gpt-5", temperature=0.2),
        "temperature",
        "unsupported_value",
        NO_TEMPERATURE,
    ),
    "tool_choice": (
        chat(tool_choice="auto"),
        "tool_choice",
        None,
        "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are "
        "specified.",
    ),
}


@pytest.fixture(scope="module")
def lenient(lenient_server: Server) -> Iterator[openai.OpenAI]:
    """Yield the client of a lenient server."""
    with sdk_client(lenient_server.url) as client:
        yield client


@pytest.mark.parametrize("kind", REFUSED)
def test_what_openai_refuses(client: openai.OpenAI, kind: str) -> None:
    """It is refused in OpenAI's words."""
    body, param, code, message = REFUSED[kind]
    error = refused(client, body)
    assert (error.status_code, error.type) == (400, "invalid_request_error")
    assert (error.param, error.code) == (param, code)
    assert message_of(error) == message


@pytest.mark.parametrize("kind", REFUSED)
def test_lenient_server_takes_it(lenient: openai.OpenAI, kind: str) -> None:
    """A lenient server answers what OpenAI refuses."""
    assert complete(lenient, **REFUSED[kind][0]).choices


def asking(**parameters: object) -> dict[str, object]:
    """Return a Responses request."""
    return {"model": "gpt-4o", "input": "hi", **parameters}


def as_text(schema: object, *, strict: bool = True) -> dict[str, object]:
    """Return the text format of a schema."""
    named = {"type": "json_schema", "name": "x", "schema": schema, "strict": strict}
    return {"format": named}


def function(schema: object, *, strict: bool = True) -> dict[str, object]:
    """Return a function of a Responses request."""
    return {"type": "function", "name": "f", "parameters": schema, "strict": strict}


SEARCH = {"type": "web_search"}
CALL = {"type": "function_call", "call_id": "call_a", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_a", "output": "done"}
CUSTOM_CALL = {"type": "custom_tool_call", "call_id": "call_a", "name": "f", "input": "x"}
CUSTOM_OUTPUT = {"type": "custom_tool_call_output", "call_id": "call_a", "output": "done"}
OBJECT = {"format": {"type": "json_object"}}
NO_JSON = (
    "Response input messages must contain the word 'json' in some form to use 'text.format' of "
    "type 'json_object'."
)
RESPONSES: dict[str, tuple[dict[str, object], str, str | None, str]] = {
    "output without a call": (
        asking(input=[HI, OUTPUT]),
        "input",
        None,
        "No tool call found for function call output with call_id call_a.",
    ),
    "output before its call": (
        asking(input=[HI, OUTPUT, CALL]),
        "input",
        None,
        "No tool call found for function call output with call_id call_a.",
    ),
    "output of another kind of call": (
        asking(input=[HI, CALL, CUSTOM_OUTPUT]),
        "input",
        None,
        "No tool call found for custom tool call output with call_id call_a.",
    ),
    "json unsaid": (asking(text=OBJECT), "text.format", None, NO_JSON),
    "json in the instructions": (
        asking(text=OBJECT, instructions="Answer in JSON."),
        "text.format",
        None,
        NO_JSON,
    ),
    "open object": (
        asking(text=as_text(OPEN)),
        "text.format.schema",
        None,
        "Invalid schema for response_format 'x': In context=('properties', 'a'), "
        "'additionalProperties' is required to be supplied and to be false.",
    ),
    "optional property of a function": (
        asking(tools=[SEARCH, function(OPTIONAL)]),
        "tools[1].parameters",
        "invalid_function_parameters",
        "Invalid schema for function 'f': In context=(), 'required' is required to be supplied "
        "and to be an array including every key in properties. Missing 'b'.",
    ),
    "temperature": (
        asking(model="o3", temperature=0.2),
        "temperature",
        None,
        "Unsupported parameter: 'temperature' is not supported with this model.",
    ),
    "top_p": (
        asking(model="gpt-5.1", top_p=0.2, reasoning={"effort": "low"}),
        "top_p",
        None,
        "Unsupported parameter: 'top_p' is not supported with this model.",
    ),
    "top_logprobs": (
        asking(model="gpt-5", top_logprobs=1),
        "top_logprobs",
        "unsupported_parameter",
        "logprobs are not supported with reasoning models.",
    ),
    "log probabilities": (
        asking(model="gpt-5.6-terra", include=["message.output_text.logprobs"]),
        "include",
        "unsupported_parameter",
        "logprobs are not supported with reasoning models.",
    ),
    "tool_choice": (
        asking(tool_choice="required"),
        "tool_choice",
        None,
        "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are "
        "specified.",
    ),
}


@pytest.mark.parametrize("kind", RESPONSES)
def test_what_openai_refuses_in_responses(client: openai.OpenAI, kind: str) -> None:
    """The same mistakes are refused in Responses, under the names that they have there."""
    body, param, code, message = RESPONSES[kind]
    error = refused(client, body, "/responses")
    assert (error.status_code, error.type) == (400, "invalid_request_error")
    assert (error.param, error.code) == (param, code)
    assert message_of(error) == message


def respond(client: openai.OpenAI, body: dict[str, object]) -> Response:
    """Return the answer to a Responses request."""
    create: Any = client.responses.create
    answer = create(**body, extra_headers=headers())
    assert isinstance(answer, Response)
    return answer


@pytest.mark.parametrize("kind", RESPONSES)
def test_lenient_server_takes_it_in_responses(lenient: openai.OpenAI, kind: str) -> None:
    """A lenient server answers these Responses requests."""
    assert respond(lenient, RESPONSES[kind][0]).status == "completed"


RESPONSES_TAKEN: dict[str, dict[str, object]] = {
    "output": asking(input=[HI, CALL, OUTPUT]),
    "output of a custom call": asking(input=[HI, CUSTOM_CALL, CUSTOM_OUTPUT]),
    "output of a call that was sent before": asking(
        input=[OUTPUT], previous_response_id=f"resp_{'0' * 50}"
    ),
    "output of a call in a conversation": asking(input=[OUTPUT], conversation="conv_1"),
    "output of an item that is not repeated": asking(
        input=[{"type": "item_reference", "id": "fc_1"}, OUTPUT]
    ),
    "json": asking(input="Answer in JSON.", text=OBJECT),
    "json said before": asking(text=OBJECT, conversation="conv_1"),
    "strict format": asking(text=as_text(STRICT)),
    "loose format": asking(text=as_text(OPEN, strict=False)),
    "loose function": asking(tools=[function(OPTIONAL, strict=False)]),
    "modes without tools": asking(tool_choice="auto", parallel_tool_calls=False),
    "temperature without reasoning": asking(
        model="gpt-5.1", temperature=0.2, top_p=0.5, reasoning={"effort": "none"}
    ),
    "temperature where no reasoning is the default": asking(model="gpt-5.2", temperature=0.2),
}


@pytest.mark.parametrize("kind", RESPONSES_TAKEN)
def test_what_openai_takes_in_responses(client: openai.OpenAI, kind: str) -> None:
    """What OpenAI takes in Responses is answered."""
    assert respond(client, RESPONSES_TAKEN[kind]).status == "completed"


TAKEN: dict[str, dict[str, object]] = {
    "results": saying(HI, CALLS, *RESULTS),
    "results in another order": saying(HI, CALLS, *reversed(RESULTS), HI),
    "one result twice": saying(HI, CALLS, *RESULTS, RESULTS[0]),
    "two rounds": saying(HI, CALLS, *RESULTS, CALLS, *RESULTS, HI),
    "json in part of a word": saying({"role": "system", "content": "As JSONs."}, HI)
    | {"response_format": {"type": "json_object"}},
    "json in a part": saying({"role": "user", "content": [{"type": "text", "text": "Json"}]})
    | {"response_format": {"type": "json_object"}},
    "strict format": formatted(STRICT),
    "loose format": formatted(OPEN, strict=False),
    "strict function": offering(STRICT),
    "loose function": offering(OPTIONAL, strict=False),
    "max_completion_tokens": chat(model="o3-mini", max_completion_tokens=5),
    "default temperature": chat(model="gpt-5", temperature=1),
    "other model": chat(model="gpt-4o", max_tokens=5, temperature=0.2),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_what_openai_takes(client: openai.OpenAI, kind: str) -> None:
    """What OpenAI takes is answered."""
    assert complete(client, **TAKEN[kind]).choices


@pytest.mark.parametrize(
    ("model", "reasons"),
    [
        ("o1", True),
        ("o1-mini-2024-09-12", True),
        ("o3-pro", True),
        ("o4-mini", True),
        ("gpt-5", True),
        ("gpt-5.1-codex", True),
        ("gpt-5-nano-2025-08-07", True),
        ("gpt-5.2-chat-latest", True),
        ("gpt-6-luna", True),
        ("ft:o4-mini-2025-04-16:org::id", True),
        ("gpt-5-chat-latest", False),
        ("gpt-4o", False),
        ("gpt-50", False),
        ("o10", False),
        ("olmo", False),
        ("org/o3", False),
    ],
)
def test_families_of_reasoning_models(model: str, reasons: object) -> None:
    """A model reasons by its name's family."""
    assert (reasoning_model(model) is not None) is reasons


def test_many_unanswered_calls_are_told_in_short(client: openai.OpenAI) -> None:
    """However many calls have no results, and however long their ids, the message is short."""
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    calls = [{**call, "id": f"{number:x>64}"} for number in range(128)]
    error = refused(client, saying(HI, {"role": "assistant", "tool_calls": calls}))
    assert message_of(error).endswith(" and 112 more")
    assert len(message_of(error)) < 1500


def test_large_schema_is_refused_too(client: openai.OpenAI) -> None:
    """A schema that is looked through beside the other streams is refused in the same words."""
    names = [f"property_{number:04}" for number in range(1000)]
    properties = {name: {"type": "string"} for name in names}
    schema = {
        "type": "object",
        "properties": properties,
        "required": names[:-1],
        "additionalProperties": False,
    }
    assert message_of(refused(client, formatted(schema))).endswith("Missing 'property_0999'.")
