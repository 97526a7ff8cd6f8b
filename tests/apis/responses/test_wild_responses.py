"""Each row of what real clients hit in Responses: what is right, by its row's name."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai.types.responses import Response

from tests.apis.responses.client import EVENTS, PATH, asked, stream
from tests.support.server import PLAIN, Server
from tests.support.wire import CHAT_PATH, chat, headers

Check = Callable[[Server], None]
ROWS: dict[str, Check] = {}


def row(name: str) -> Callable[[Check], Check]:
    """Add a check to the table, by the name of its row."""

    def add(check: Check) -> Check:
        ROWS[name] = check
        return check

    return add


def post(
    server: Server, extra: dict[str, str] | None = None, path: str = PATH, /, **parameters: object
) -> httpx.Response:
    """Return the answer to a request, whatever its status."""
    body = asked(**parameters)
    return PLAIN.post(server.url + path, json=body, headers=headers() | (extra or {}))


def output(server: Server, extra: dict[str, str] | None = None, /, **parameters: object) -> Any:  # noqa: ANN401
    """Return the output of a whole answer."""
    answer = post(server, extra, **parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()["output"]


def refused(server: Server, /, **parameters: object) -> dict[str, Any]:
    """Return the error of a request that is a 400."""
    answer = post(server, **parameters)
    assert answer.status_code == 400, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


@row("error in mid-stream: the fields flat and nested, then response.failed")
def error_in_mid_stream(server: Server) -> None:
    """Check both forms of the error, and the response after it."""
    asking = headers() | {"X-FAULT-KIND": "error", "X-FAULT-STATUS": "429"}
    *_, error, failed = stream(server.url, asking | {"X-FAULT-RETRY-AFTER-MS": "500"})
    assert error["type"] == "error"
    nested = error["error"]
    assert {name: error[name] for name in ("code", "message", "param")} == {
        name: nested[name] for name in ("code", "message", "param")
    }
    assert (nested["type"], nested["code"]) == ("tokens", "rate_limit_exceeded")
    assert failed["type"] == "response.failed"
    response = failed["response"]
    assert (response["status"], response["error"]) == (
        "failed",
        {"code": "rate_limit_exceeded", "message": nested["message"]},
    )
    assert "Please try again in 500ms." in nested["message"]
    assert failed["sequence_number"] == error["sequence_number"] + 1
    EVENTS.validate_python(failed)


@row("status: failed can be asked for")
def status_failed(server: Server) -> None:
    """Check a whole answer and a stream that say that they failed."""
    asking = {"X-FAULT-KIND": "failed"}
    whole = post(server, asking)
    assert whole.status_code == 200
    assert whole.json()["error"]["code"] == "server_error"
    assert Response.model_validate(whole.json()).status == "failed"
    *_, last = stream(server.url, headers() | asking | {"X-FAULT-AFTER-TOKENS": "2"})
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")


EXEC = {"type": "custom", "name": "exec", "description": "Run JavaScript"}
LIST = {"type": "function", "name": "list_agents", "parameters": {"type": "object"}}
SPACE = {"type": "namespace", "name": "collaboration", "description": "", "tools": [LIST]}
FUNCTIONS = {"type": "namespace", "name": "functions", "description": "", "tools": [EXEC]}
USER = {"role": "user", "content": "Hello!"}


@row("additional_tools of the input: callable, counted, and required works")
def additional_tools(server: Server) -> None:
    """Check tools that stand in an item of the input."""
    item = {"type": "additional_tools", "id": "at_1", "role": "developer", "tools": [LIST]}
    [call] = output(server, input=[item, USER], tool_choice="required")
    assert (call["type"], call["name"]) == ("function_call", "list_agents")
    plain, with_tools = (
        post(server, input=given).json()["usage"]["input_tokens"]
        for given in ([USER], [item, USER])
    )
    assert with_tools > plain


@row("namespace: a call has name and namespace")
def namespaces(server: Server) -> None:
    """Check tools within namespaces, in tools and in additional_tools."""
    [call] = output(server, tools=[SPACE], tool_choice="required")
    assert (call["type"], call["name"], call["namespace"]) == (
        "function_call",
        "list_agents",
        "collaboration",
    )
    item = {"type": "additional_tools", "role": "developer", "tools": [FUNCTIONS, SPACE]}
    first, second = output(server, {"X-TOOL-CALLS": "2"}, input=[item, USER])
    assert (first["type"], first["name"], first["namespace"]) == (
        "custom_tool_call",
        "exec",
        "functions",
    )
    assert second["namespace"] == "collaboration"


@row("compaction_trigger: exactly one compaction item")
def compaction_trigger(server: Server) -> None:
    """Check the one item, whole and streamed, and that it is taken again."""
    given = [USER, {"type": "compaction_trigger"}]
    [item] = output(server, input=given, reasoning={"effort": "low"}, tools=[LIST])
    assert set(item) == {"type", "id", "encrypted_content"}
    assert item["type"] == "compaction"
    events = stream(server.url, input=given)
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert [each["type"] for each in done] == ["compaction"]
    assert events[-1]["response"]["output"] == done
    again = post(server, input=[item, USER]).json()
    assert (
        again["usage"]["input_tokens"] > post(server, input=[USER]).json()["usage"]["input_tokens"]
    )


@row("POST /v1/responses/compact")
def compact(server: Server) -> None:
    """Check the object that the official client reads, and its time."""
    started_s = time.monotonic()
    answer = post(server, headers(ttft_ms=100), f"{PATH}/compact", input=[USER])
    assert time.monotonic() - started_s >= 0.1
    said = answer.json()
    assert (said["object"], [item["type"] for item in said["output"]]) == (
        "response.compaction",
        ["message", "compaction"],
    )
    assert said["usage"]["output_tokens"] == 5


@row("max_tokens, max_completion_tokens, response_format, messages: a 400 that names the right one")
def moved(server: Server) -> None:
    """Check the words for each."""
    for name, right in {
        "max_tokens": "max_output_tokens",
        "max_completion_tokens": "max_output_tokens",
        "response_format": "text.format",
        "messages": "input",
    }.items():
        error = refused(server, **{name: 5})
        assert (error["param"], error["code"]) == (name, "unsupported_parameter")
        assert f"this parameter has moved to '{right}'" in error["message"]


@row("response objects: completed_at, presence_penalty, frequency_penalty")
def fields(server: Server) -> None:
    """Check that each field of the official client's type is there."""
    answer = post(server, presence_penalty=0.5).json()
    assert set(answer) >= set(Response.model_fields)
    assert (answer["presence_penalty"], answer["frequency_penalty"]) == (0.5, 0.0)
    assert answer["created_at"] <= answer["completed_at"] <= time.time()


@row("prompt without a model: 200")
def prompt_alone(server: Server) -> None:
    """Check that a model of the settings answers."""
    answer = PLAIN.post(server.url + PATH, json={"prompt": {"id": "pmpt_1"}})
    assert answer.status_code == 200
    assert answer.json()["model"]


@row("ids tell what was not stored")
def ids(server: Server) -> None:
    """Check that the next request cannot name an answer that was not stored."""
    lost, kept = (post(server, store=store).json()["id"] for store in (False, True))
    error = refused(server, previous_response_id=lost)
    assert (error["code"], error["param"]) == (
        "previous_response_not_found",
        "previous_response_id",
    )
    assert post(server, previous_response_id=kept).status_code == 200


@row("custom tools with a grammar: what it allows")
def grammar(server: Server) -> None:
    """Check a pattern, and a grammar of Lark."""
    pattern = {"type": "grammar", "syntax": "regex", "definition": r"[A-Z]{3}-\d{4}"}
    tool = {"type": "custom", "name": "number", "format": pattern}
    [call] = output(server, tools=[tool], tool_choice="required")
    assert re.fullmatch(pattern["definition"], call["input"])
    lark = {"type": "grammar", "syntax": "lark", "definition": 'start: "yes" | "no"'}
    [call] = output(server, tools=[tool | {"format": lark}], tool_choice="required")
    assert call["input"] in ("yes", "no")


@row("echoed tools keep defer_loading; strict_parameters takes what Codex sends")
def echoed(server: Server) -> None:
    """Check the echo; the strict server has a test of its own."""
    tool = LIST | {"defer_loading": True}
    answer = post(server, tools=[tool, {"type": "custom", "name": "x", "defer_loading": True}])
    assert [tool["defer_loading"] for tool in answer.json()["tools"]] == [True, True]


@row("response.created and response.in_progress leave at once")
def announced(server: Server) -> None:
    """Check the first events against the head of a chat in the same seconds."""
    waits_s = []
    for path, body in ((CHAT_PATH, chat(stream=True)), (PATH, asked(stream=True))):
        started_s = time.monotonic()
        with PLAIN.stream(
            "POST", server.url + path, json=body, headers=headers(400, 10, 3)
        ) as answer:
            if path == PATH:
                parts = answer.iter_text()
                first = next(parts)
            waits_s.append(time.monotonic() - started_s)
            if path == PATH:
                second = next(parts)
                token_s = time.monotonic() - started_s
    assert [line for line in first.split("\n") if line.startswith("event: ")] == [
        "event: response.created",
        "event: response.in_progress",
    ]
    assert waits_s[1] < waits_s[0] + 0.02
    assert token_s >= 0.4
    assert json.loads(second.partition("data: ")[2].partition("\n")[0])["type"] == (
        "response.output_item.added"
    )


@pytest.mark.parametrize("name", ROWS)
def test_row(one_worker: Server, name: str) -> None:
    """What a row says is so."""
    ROWS[name](one_worker)


def test_strict_server_takes_what_codex_sends(other_server: Server) -> None:
    """A strict server takes Codex's client_metadata, and its passthrough of items."""
    item = USER | {"internal_chat_message_metadata_passthrough": {"turn_id": "1"}}
    answer = post(other_server, input=[item], client_metadata={"session_id": "s"})
    assert answer.status_code == 200, answer.text
