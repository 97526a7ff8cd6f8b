"""Anthropic's Messages, which a server that speaks as vLLM does has too."""

import json
from typing import Any

import httpx
import pytest

from tests.support.server import Server

PATH = "/v1/messages"
Json = dict[str, Any]
TOOL: Json = {
    "name": "clock",
    "input_schema": {
        "type": "object",
        "properties": {"zone": {"type": "string", "enum": ["utc", "cet"]}},
        "required": ["zone"],
    },
}


def body(**more: object) -> Json:
    """Return the body of a request."""
    asked = {"max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]}
    return {"model": "m", **asked, **more}


def answered(http: httpx.Client, asked: Json, **headers: str) -> Json:
    """Return an answer that is not streamed."""
    answer = http.post(PATH, json=asked, headers=headers)
    assert answer.status_code == 200, answer.text
    told: Json = answer.json()
    return told


def events(http: httpx.Client, asked: Json) -> list[Json]:
    """Return the events of a stream, whose names are their types."""
    text = http.post(PATH, json={**asked, "stream": True}).text
    told = []
    for block in text.rstrip("\n").split("\n\n"):
        name, data = block.split("\n")
        told.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {told[-1]['type']}"
    return told


def test_stream_says_what_the_message_says(vllm: httpx.Client) -> None:
    """The deltas of a stream are the text of the whole message, and its usage is the same."""
    usage = answered(vllm, body())["usage"]
    told = events(vllm, body())
    deltas = [each["delta"]["text"] for each in told if each["type"] == "content_block_delta"]
    assert (len(deltas), usage["output_tokens"]) == (8, 8)
    assert told[0]["message"]["usage"] == {**usage, "output_tokens": 0}
    assert told[-2]["usage"] == usage
    assert told[-2]["delta"]["stop_reason"] == "max_tokens"


def test_tool_is_used_and_its_result_answered(vllm: httpx.Client) -> None:
    """A tool that has to be used is, as in a stream; its result is answered with a text."""
    asked = body(tools=[TOOL], tool_choice={"type": "any"}, max_tokens=100)
    used = answered(vllm, asked)
    [block] = used["content"]
    assert (used["stop_reason"], block["type"], block["name"]) == ("tool_use", "tool_use", "clock")
    assert block["input"]["zone"] in ("utc", "cet")
    deltas = [each["delta"] for each in events(vllm, asked) if "index" in each and "delta" in each]
    assert json.loads("".join(each["partial_json"] for each in deltas)).keys() == {"zone"}
    result = {"type": "tool_result", "tool_use_id": block["id"], "content": "noon"}
    turns = [
        *asked["messages"],
        {"role": "assistant", "content": [block]},
        {"role": "user", "content": [result, {"type": "text", "text": "So?"}]},
    ]
    done = answered(vllm, body(messages=turns, tools=[TOOL]))
    assert [each["type"] for each in done["content"]] == ["text"]


def test_system_and_pictures_count(vllm: httpx.Client) -> None:
    """What stands in front, and a picture, take tokens of the input."""
    plain = answered(vllm, body())["usage"]["input_tokens"]
    source = {"type": "url", "url": "https://example.invalid/a.png"}
    seen = [{"type": "text", "text": "hi"}, {"type": "image", "source": source}]
    with_picture = body(messages=[{"role": "user", "content": seen}], system="Be short.")
    assert answered(vllm, with_picture)["usage"]["input_tokens"] > plain + 500


def test_reasoning_is_a_block_of_its_own(vllm: httpx.Client) -> None:
    """Reasoning comes in a block before the text."""
    told = answered(vllm, body(), **{"X-REASONING-LENGTH": "3"})
    assert [each["type"] for each in told["content"]] == ["thinking", "text"]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"max_tokens": None}, "body.max_tokens"),
        ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, "messages"),
        ({"model": "nope"}, "model"),
    ],
    ids=["no max_tokens", "unknown block", "unknown model"],
)
def test_what_is_wrong_is_refused(vllm: httpx.Client, wrong: Json, param: str) -> None:
    """A request that says what nobody knows is refused with the place of it."""
    answer = vllm.post(PATH, json=body(**wrong))
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param


def test_key_comes_in_its_own_header(keyed_server: Server) -> None:
    """The key of a request may stand in x-api-key, as Anthropic's clients send it."""
    with httpx.Client(base_url=keyed_server.url) as http:
        assert http.post(PATH, json=body()).status_code == 401
        answered(http, body(), **{"x-api-key": "sk-team-0123456789"})


def test_openai_has_none(http: httpx.Client) -> None:
    """A server that speaks as OpenAI does has no such endpoint."""
    answer = http.post(PATH, json=body())
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "Invalid URL (POST /v1/messages)"
    assert http.get(PATH).status_code == 404
