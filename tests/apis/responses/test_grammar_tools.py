"""Custom tools with a grammar, in Responses and in chats."""

import re
from typing import Any

import httpx
import openai
import pytest

from tests.apis.responses.client import PATH, asked, respond, stream
from tests.grammars.test_grammars import EXEC
from tests.support.sdk import refused
from tests.support.wire import CHAT_PATH, chat, headers, token_count

CODE = r"[A-Z]{3}-\d{4}"


def tool(definition: str, syntax: str = "regex") -> dict[str, Any]:
    """Return a custom tool of a response."""
    asked_for = {"type": "grammar", "syntax": syntax, "definition": definition}
    return {"type": "custom", "name": "write", "format": asked_for}


def chat_tool(definition: str, syntax: str = "regex") -> dict[str, Any]:
    """Return a custom tool of a chat."""
    grammar = {"syntax": syntax, "definition": definition}
    return {
        "type": "custom",
        "custom": {"name": "write", "format": {"type": "grammar", "grammar": grammar}},
    }


def test_pattern(client: openai.OpenAI, base_url: str) -> None:
    """The input matches the pattern, streamed too, and is repeated with the tool."""
    answer = respond(client, tools=[tool(CODE)], tool_choice="required")
    [call] = answer.output
    assert call.type == "custom_tool_call"
    assert re.fullmatch(CODE, call.input)
    assert answer.tools[0].model_dump(exclude_none=True) == tool(CODE)
    events = stream(base_url, tools=[tool(CODE)], tool_choice="required")
    deltas = [e["delta"] for e in events if e["type"] == "response.custom_tool_call_input.delta"]
    assert re.fullmatch(CODE, "".join(deltas))


def test_chat(http: httpx.Client) -> None:
    """A chat's custom tool follows its grammar too."""
    body = chat(tools=[chat_tool('start: "left" | "right"', "lark")], tool_choice="required")
    [call] = http.post(CHAT_PATH, json=body).json()["choices"][0]["message"]["tool_calls"]
    assert call["custom"]["input"] in ("left", "right")


@pytest.mark.parametrize("definition", [EXEC, "start: /.+/"], ids=["Codex's exec", "a line"])
def test_any_text_is_of_the_asked_length(client: openai.OpenAI, definition: str) -> None:
    """Where the grammar allows any text, that has plain words and the asked length."""
    tools = [tool(definition, "lark")]
    [call] = respond(client, headers(output_length=9), tools=tools, tool_choice="required").output
    assert call.type == "custom_tool_call"
    assert token_count(call.input, "o200k_base") == 9
    assert re.fullmatch(r"[A-Za-z ,.'-]+", call.input)


def test_a_seed_repeats_the_input(http: httpx.Client) -> None:
    """With one seed the input is the same."""
    body = asked(tools=[tool("[a-z]{20}")], tool_choice="required", seed=7)
    first, second = (http.post(PATH, json=body).json()["output"][0]["input"] for _ in range(2))
    assert first == second


def test_a_limit_cuts_it(client: openai.OpenAI) -> None:
    """A limit cuts the input, and the response is incomplete."""
    answer = respond(
        client, tools=[tool("[a-z]{200}")], tool_choice="required", max_output_tokens=2
    )
    assert answer.status == "incomplete"


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "a syntax that is none": (tool("x", "peg"), "tools[0].format.syntax", "invalid_value"),
    "an empty one": (tool(""), "tools[0].format.definition", "empty_string"),
    "a pattern that is none": (tool("("), "tools[0].format.definition", "invalid_grammar"),
    "what is not supported": (
        tool("start: list{A}", "lark"),
        "tools[0].format.definition",
        "invalid_grammar",
    ),
    "a format that is none": (
        {"type": "custom", "name": "x", "format": {"type": "json"}},
        "tools[0].format.type",
        "invalid_value",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_refusals(client: openai.OpenAI, kind: str) -> None:
    """What cannot be followed is a 400 that names its place."""
    bad, param, code = BAD[kind]
    error = refused(client, asked(tools=[bad], tool_choice="required"), "/responses")
    assert (error.status_code, error.param, error.code) == (400, param, code)


def test_refusals_in_chats(client: openai.OpenAI) -> None:
    """In a chat the place is that of the chat's tool."""
    error = refused(client, chat(tools=[chat_tool("(")], tool_choice="required"))
    assert error.param == "tools[0].custom.format.grammar.definition"


def test_what_is_not_called_is_not_looked_at(client: openai.OpenAI) -> None:
    """A grammar that nothing is to follow is no fault, as a schema is none."""
    assert respond(client, tools=[tool("(")]).output_text
