"""Tools that stand in namespaces and in items of the input."""

from typing import Any

import openai
import pytest

from tests.apis.responses.client import EVENTS, asked, respond, stream
from tests.support.sdk import refused
from tests.support.wire import headers


def function(name: str, **more: object) -> dict[str, Any]:
    """Return a function without parameters."""
    return {"type": "function", "name": name, "parameters": {"type": "object"}, **more}


def space(name: str, *tools: dict[str, Any]) -> dict[str, Any]:
    """Return a namespace."""
    return {"type": "namespace", "name": name, "description": "Some tools.", "tools": [*tools]}


def given(kind: str, *tools: dict[str, Any]) -> list[dict[str, Any]]:
    """Return an input whose first item brings tools."""
    item = {"type": kind, "role": "developer"} if kind == "additional_tools" else {"type": kind}
    return [{**item, "tools": [*tools]}, {"role": "user", "content": "Hello!"}]


CUSTOM = {"type": "custom", "name": "exec"}
TOOLS = [function("look"), space("crm", function("look"), function("find"), CUSTOM)]

CHOICES: dict[str, tuple[object, tuple[str, str | None]]] = {
    "by its name": ({"type": "function", "name": "find"}, ("find", "crm")),
    "in no namespace first": ({"type": "function", "name": "look"}, ("look", None)),
    "with its namespace": (
        {"type": "function", "name": "look", "namespace": "crm"},
        ("look", "crm"),
    ),
    "a custom one": ({"type": "custom", "name": "exec"}, ("exec", "crm")),
    "any of a namespace": ({"type": "namespace", "name": "crm"}, ("look", "crm")),
    "an allowed one": (
        {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "web_search"}, {"type": "function", "name": "find"}],
        },
        ("find", "crm"),
    ),
    "of an allowed namespace": (
        {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "namespace", "name": "crm"}],
        },
        ("look", "crm"),
    ),
}


@pytest.mark.parametrize("kind", CHOICES)
def test_choice(client: openai.OpenAI, kind: str) -> None:
    """A choice finds a tool by its name, in a namespace too, or any tool of a namespace."""
    choice, (name, namespace) = CHOICES[kind]
    [call] = respond(client, tools=TOOLS, tool_choice=choice).output
    assert call.type in ("function_call", "custom_tool_call")
    assert (call.name, call.namespace) == (name, namespace)


@pytest.mark.parametrize("kind", ["additional_tools", "tool_search_output"])
def test_tools_of_items_are_called(client: openai.OpenAI, kind: str) -> None:
    """Tools that an item of the input brings are called in turn with those of the request."""
    asking = headers() | {"X-TOOL-CALLS": "3"}
    answer = respond(client, asking, input=given(kind, *TOOLS[1:]), tools=[function("own")])
    assert [(c.name, c.namespace) for c in answer.output if c.type == "function_call"] == [
        ("own", None),
        ("look", "crm"),
        ("find", "crm"),
    ]


def test_streamed_call_has_its_namespace(base_url: str) -> None:
    """In a stream the item has its namespace from the start, and the done event the name alone."""
    events = stream(base_url, tools=TOOLS[1:], tool_choice="required")
    for event in events:
        EVENTS.validate_python(event)
    items = [e["item"] for e in events if e["type"].startswith("response.output_item")]
    assert [(item["name"], item["namespace"]) for item in items] == [("look", "crm")] * 2
    [done] = [e for e in events if e["type"] == "response.function_call_arguments.done"]
    assert done["name"] == "look"


@pytest.mark.parametrize("echoed", [{"namespace": "crm"}, {}], ids=["echoed", "left out"])
def test_an_agent_goes_on_to_the_next_tool(client: openai.OpenAI, echoed: dict[str, str]) -> None:
    """A tool of a namespace that was called comes after those that were not."""
    call = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}", **echoed}
    result = {"type": "function_call_output", "call_id": "c", "output": "42"}
    history = [{"role": "user", "content": "hi"}, call, result]
    tools = TOOLS[1:]
    [made] = respond(client, input=history, tools=tools, tool_choice="required").output
    assert made.type == "function_call"
    assert made.name == "find"


def test_tools_are_counted_wherever_they_stand(client: openai.OpenAI) -> None:
    """A function counts the same in the tools and in the input, and more in a namespace."""
    user = [{"role": "user", "content": "Hello!"}]

    def tokens(**parameters: object) -> int:
        usage = respond(client, **parameters).usage
        counted: Any = client.responses.input_tokens.count
        assert usage is not None
        assert counted(**asked(**parameters)).input_tokens == usage.input_tokens
        return usage.input_tokens

    plain, own = tokens(input=user), tokens(input=user, tools=TOOLS[:1])
    assert plain < own == tokens(input=given("additional_tools", TOOLS[0]))
    assert own < tokens(input=user, tools=[space("crm", TOOLS[0])])


LOOSE = function("look", strict=True, parameters={"type": "object", "properties": {"a": {}}})
BAD: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "a namespace that is not there": (
        {"tools": TOOLS, "tool_choice": {"type": "namespace", "name": "x"}},
        "tool_choice",
        None,
    ),
    "a tool that is not in its namespace": (
        {"tools": TOOLS, "tool_choice": {"type": "function", "name": "look", "namespace": "x"}},
        "tool_choice",
        None,
    ),
    "OpenAI's own tool in a namespace": (
        {"tools": [space("crm", {"type": "web_search"})]},
        "tools[0].tools[0].type",
        "invalid_value",
    ),
    "a loose strict function in a namespace": (
        {"tools": [{"type": "web_search"}, space("crm", LOOSE)]},
        "tools[1].tools[0].parameters",
        "invalid_function_parameters",
    ),
    "a schema that is none, of an item": (
        {
            "input": given("additional_tools", function("x", parameters={"type": 1})),
            "tool_choice": "required",
        },
        "input[0].tools[0].parameters",
        "invalid_schema",
    ),
    "a role that is not the developer's": (
        {"input": [{"type": "additional_tools", "role": "user", "tools": []}]},
        "input[0].role",
        "invalid_value",
    ),
    "too many tools in all": (
        {"tools": [space(f"s{i}", *[function(f"f{j}") for j in range(128)]) for i in range(9)]},
        "tools",
        "array_above_max_length",
    ),
    "required without a tool": ({"input": given("additional_tools"), "tool_choice": "required"},
                                "tool_choice", None),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_tools(client: openai.OpenAI, kind: str) -> None:
    """A fault in such tools is a 400 that names the place where the client has put it."""
    parameters, param, code = BAD[kind]
    error = refused(client, asked(**parameters), "/responses")
    assert (error.status_code, error.param, error.code) == (400, param, code)
