"""aimock, and the emulator with the rules made of its fixtures: they say the same."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import openai
import pytest
import yaml  # type: ignore[import-untyped]  # ships no types

from conftest import sdk_client
from emulator.rules.convert.files import sources
from emulator.rules.convert.joining import convert
from tests.clients.parts import AIMOCK
from tests.clients.running import CannotInstallError, home_of, missing, prepare
from tests.support.process import free_port
from tests.support.server import PLAIN, args, eventually, running_server

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_only")]

FIXTURES = AIMOCK.here / "fixtures"
Clients = Mapping[str, openai.OpenAI]
Json = dict[str, Any]


@pytest.fixture(scope="module")
def aimock() -> Iterator[str]:
    """Run aimock with the fixtures; yield its address."""
    if lacking := missing(AIMOCK):
        pytest.skip(f"{' and '.join(lacking)} cannot be found")
    try:
        prepare(AIMOCK)
    except CannotInstallError as error:
        pytest.skip(f"aimock cannot be installed: {error}")
    program = home_of(AIMOCK) / "node_modules/@copilotkit/aimock/dist/cli.js"
    node, port = shutil.which("node"), free_port()
    process = subprocess.Popen(  # noqa: S603 - our own command line
        [str(node), program, "-p", str(port), "-f", FIXTURES, "--log-level", "silent"]
    )
    try:
        assert eventually(lambda: _listens(f"http://127.0.0.1:{port}"))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _listens(url: str) -> bool:
    try:
        return PLAIN.get(f"{url}/v1/models").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def clients(aimock: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """Yield the official client of each server."""
    rules = tmp_path_factory.mktemp("rules") / "rules.yaml"
    converted = convert(sources(FIXTURES))
    assert converted.unsaid == []
    rules.write_text(yaml.safe_dump(converted.rules, sort_keys=False))
    quick = args(rules=rules, ttft_ms=0, itl_ms=0)
    with (
        running_server(*quick) as emulator,
        sdk_client(aimock) as theirs,
        sdk_client(emulator.url) as ours,
    ):
        yield {"aimock": theirs, "emulator": ours}


def tool(name: str) -> Json:
    """Return a tool."""
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


def user(text: str) -> Json:
    """Return a message of the user."""
    return {"role": "user", "content": text}


CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
TOOLS = [tool("get_weather"), tool("get_time")]


def after(result: str) -> list[Json]:
    """Return a conversation after a tool's result."""
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    return [user("weather?"), called, {"role": "tool", "tool_call_id": "call_1", "content": result}]


def turns(count: int) -> list[Json]:
    """Return a conversation of so many turns, and what the user says then."""
    return [*[user("go on"), {"role": "assistant", "content": "Well."}] * count, user("again")]


CHATS: dict[str, Json] = {
    "a text": {"messages": [user("Say hello.")]},
    "a text of parts": {"messages": [user([{"type": "text", "text": "hello"}])]},  # type: ignore[arg-type]
    "many scripts": {"messages": [user("many scripts")]},
    "what globs are made of": {"messages": [user("is it a [b] * c?")]},
    "not quite that": {"messages": [user("is it a b or c?")]},
    "JSON": {"messages": [user("as JSON")]},
    "cut": {"messages": [user("cut")]},
    "system": {"messages": [{"role": "system", "content": "You are a pirate."}, user("who?")]},
    "model": {"model": "gpt-4o", "messages": [user("who?")]},
    "another model": {"model": "gpt-4o-mini", "messages": [user("who?")]},
    "a model with a date": {"model": "gpt-4o-2024-08-06", "messages": [user("who?")]},
    "first turn": {"messages": turns(1)},
    "second turn": {"messages": turns(2)},
    "context": {"messages": [user("which team")], "extra_headers": {"X-AIMock-Context": "blue"}},
    "no context": {"messages": [user("which team")]},
    "a call": {"messages": [user("weather?")], "tools": TOOLS},
    "a call of no tool that is offered": {"messages": [user("weather?")], "tools": [tool("other")]},
    "a call without tools": {"messages": [user("weather?")]},
    "a result": {"messages": after("sunny"), "tools": TOOLS},
    "another result": {"messages": after("much rain"), "tools": TOOLS},
    "two calls": {"messages": [user("two calls")], "tools": TOOLS},
    "a text and a call": {"messages": [user("look and call")], "tools": TOOLS},
    "a call and a text": {"messages": [user("call and say")], "tools": TOOLS},
    "broken arguments": {"messages": [user("broken")], "tools": TOOLS},
    "a tool": {"messages": [user("the tool decides")], "tools": TOOLS},
    "no such tool": {"messages": [user("the tool decides")], "tools": [tool("other")]},
    "rate limit": {"messages": [user("busy")]},
    "overloaded": {"messages": [user("overloaded")]},
    "bad request": {"messages": [user("bad")]},
    "none other": {"messages": [user("something else")]},
}


def tried(ask: Any, **asked: object) -> Json:  # noqa: ANN401 - any method of the client
    """Return what comes of a request: an answer, or an error."""
    try:
        return dict(ask(**asked))
    except openai.APIStatusError as error:
        told = error.body if isinstance(error.body, dict) else {}
        wait = error.response.headers.get("retry-after")
        said = {name: told.get(name) for name in ("message", "code", "type", "param")}
        return {"error": type(error).__name__, "status": error.status_code, "wait": wait, **said}


def calls_of(calls: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - of either form
    """Return the names and arguments of calls."""
    return [(call.function.name, call.function.arguments) for call in calls or ()]


def chat(client: openai.OpenAI, **asked: Any) -> Json:  # noqa: ANN401
    """Return what a whole chat says."""
    answer = client.chat.completions.create(**asked)
    message = answer.choices[0].message
    calls = calls_of(message.tool_calls)
    return {
        "text": message.content or "",
        "calls": calls,
        "reason": answer.choices[0].finish_reason,
    }


def streamed(client: openai.OpenAI, **asked: Any) -> Json:  # noqa: ANN401
    """Return what a streamed chat says."""
    text, reason = "", None
    calls: dict[int, tuple[str, str]] = {}
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
            for part in choice.delta.tool_calls or ():
                name, arguments = calls.get(part.index, ("", ""))
                calls[part.index] = (
                    name + (part.function.name or ""),
                    arguments + (part.function.arguments or ""),
                )
    return {"text": text, "calls": [*calls.values()], "reason": reason}


@pytest.mark.parametrize("way", [chat, streamed], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", CHATS)
def test_chats_are_the_same(clients: Clients, name: str, way: Any) -> None:  # noqa: ANN401
    """A chat gets the same text, calls, finish reason or error from both servers."""
    asked = {"model": "gpt-4.1", **CHATS[name]}
    theirs, ours = (tried(way, client=client, **asked) for client in clients.values())
    assert ours == theirs


RESPONSES: dict[str, Json] = {
    "a text": {"input": "Say hello."},
    "many scripts": {"input": [user("many scripts")]},
    "system": {"input": "who?", "instructions": "You are a pirate."},
    "model": {"input": "who?", "model": "gpt-4o"},
    "a call": {"input": "weather?"},
    "a result": {
        "input": [
            user("weather?"),
            {"type": "function_call", "call_id": "c", "name": "get_weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "much rain"},
        ]
    },
    "two calls": {"input": "two calls"},
    "rate limit": {"input": "busy"},
    "bad request": {"input": "bad"},
    "none other": {"input": "something else"},
}


def respond(client: openai.OpenAI, **asked: Any) -> Json:  # noqa: ANN401
    """Return what a whole response says."""
    return said_by(client.responses.create(**asked))


def respond_streamed(client: openai.OpenAI, **asked: Any) -> Json:  # noqa: ANN401
    """Return what the last event of a response says, and the text of its deltas."""
    events = list(client.responses.create(**asked, stream=True))
    deltas = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    return {"deltas": deltas, **said_by(events[-1].response)}


def said_by(response: Any) -> Json:  # noqa: ANN401
    """Return what a response says."""
    calls = [(i.name, i.arguments) for i in response.output if i.type == "function_call"]
    return {"text": response.output_text, "calls": calls, "status": response.status}


@pytest.mark.parametrize("way", [respond, respond_streamed], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", RESPONSES)
def test_responses_are_the_same(clients: Clients, name: str, way: Any) -> None:  # noqa: ANN401
    """A response says the same, by both servers."""
    tools = [{"type": "function", "name": "get_weather", "parameters": {}, "strict": False}]
    asked = {"model": "gpt-4.1", "tools": tools, **RESPONSES[name]}
    theirs, ours = (tried(way, client=client, **asked) for client in clients.values())
    assert ours == theirs


def test_sequences_are_the_same(clients: Clients) -> None:
    """Two failures, an answer, and then always another one, from both servers."""
    asked = {"model": "gpt-4.1", "messages": [user("third time")]}
    theirs, ours = (
        [tried(chat, client=client, **asked) for _ in range(5)] for client in clients.values()
    )
    assert [each.get("status", each.get("text")) for each in theirs] == [
        500,
        503,
        "Lucky.",
        *["No more luck."] * 2,
    ]
    assert ours == theirs


def test_usage_and_names_are_the_same(clients: Clients) -> None:
    """What a fixture says of usage, id and model is what both servers say."""
    asked: Json = {"model": "gpt-4.1", "messages": [user("counted")]}
    theirs, ours = (client.chat.completions.create(**asked) for client in clients.values())
    assert (ours.id, ours.model) == (theirs.id, theirs.model)
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert getattr(ours.usage, name) == getattr(theirs.usage, name)


@pytest.mark.parametrize("more", [{}, {"encoding_format": "float"}], ids=["default", "float"])
def test_vectors_are_the_same(clients: Clients, more: Json) -> None:
    """A vector of a fixture is what both servers give."""
    asked: Json = {"model": "text-embedding-3-small", **more}
    theirs, ours = (c.embeddings.create(input="a cat", **asked) for c in clients.values())
    assert ours.data[0].embedding == theirs.data[0].embedding
