"""openai-python: what test_api.py does not ask of it."""

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from openai import APIError, DefaultHttpxClient, OpenAI

QUESTION = [{"role": "user", "content": "What is the weather?"}]
CHAT = {"model": "gpt-4o", "messages": QUESTION, "seed": 1}
RESPONSE = {"model": "gpt-4o", "input": "What is the weather?"}
TIME = float(os.environ.get("CLIENTS_TIME", "0.1"))  # how much of its true time a pause takes
CONNECTIONS, ROUNDS = 50, 4
MID_STREAM = {"X-FAULT-KIND": "error", "X-FAULT-AFTER-TOKENS": "3"}
COMMENTS = {"X-TTFT-MS": "400", "X-KEEPALIVE-MS": "100"}

client: Any = OpenAI()  # its overloads do not take a dict of parameters


def test_chat_is_the_same_whole_and_streamed() -> None:
    """With a seed a stream adds up to the whole answer, also with characters beyond ASCII."""
    asked = CHAT | {"extra_body": {"emulation": {"text": "unicode"}}}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    with client.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion().choices[0].message.content
    assert streamed == whole
    assert not whole.isascii()


def test_retry() -> None:
    """What fails twice is asked for a third time."""
    fails = {"X-FAULT-STATUS": "503", "X-FAULT-ATTEMPTS": "2", "X-FAULT-RETRY-AFTER-MS": "10"}
    raw = client.chat.completions.with_raw_response.create(**CHAT, extra_headers=fails)
    assert raw.retries_taken == 2


def test_chat_fails_in_mid_stream() -> None:
    """An error in a stream is an exception after the tokens before it."""
    stream = client.chat.completions.create(**CHAT, stream=True, extra_headers=MID_STREAM)
    deltas: list[str] = []
    with pytest.raises(APIError):
        deltas.extend(chunk.choices[0].delta.content for chunk in stream)
    assert len([delta for delta in deltas if delta]) == 3


def test_responses_fail_in_mid_stream() -> None:
    """A stream of Responses that fails ends with an exception, or with the failed response."""
    last = ""
    try:
        for event in client.responses.create(**RESPONSE, stream=True, extra_headers=MID_STREAM):
            last = event.type
    except APIError:
        return
    assert last == "response.failed"


def first_bytes(path: str, body: object, fields: dict[str, str]) -> str:
    """Return what comes first of a stream, which the client keeps to itself."""
    asked = httpx2.stream("POST", f"{client.base_url}{path}", json=body, headers=fields)
    with asked as answer:
        return next(answer.iter_text())


def test_responses_are_announced_at_once() -> None:
    """A response is created and in progress before its first token is due."""
    first = first_bytes("responses", RESPONSE | {"stream": True}, {"X-TTFT-MS": "600"})
    assert "response.created" in first
    assert "response.output_item.added" not in first


def test_comments_are_read_past() -> None:
    """Comments before the first token change nothing."""
    stream = client.chat.completions.create(**CHAT, stream=True, extra_headers=COMMENTS)
    deltas = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert len([delta for delta in deltas if delta]) == 20
    assert first_bytes("chat/completions", CHAT | {"stream": True}, COMMENTS).startswith(":")


def ask_in_a_round(patient: OpenAI) -> set[Any]:
    """Ask through all of a pool's connections at once, and return their ends."""
    asked: Any = patient.chat.completions.with_raw_response.create
    wait = {"X-TTFT-MS": "1000"}  # so that most are under way at once
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        begun = [threads.submit(asked, **CHAT, extra_headers=wait) for _ in range(CONNECTIONS)]
        streams = [each.result().http_response.extensions["network_stream"] for each in begun]
    return {stream.get_extra_info("client_addr") for stream in streams}


def used_in_rounds(pause_s: float) -> set[Any]:
    """Ask through a pool with pauses; return the ends of all connections that it has used."""
    limits = httpx2.Limits(keepalive_expiry=600)
    patient = OpenAI(max_retries=0, http_client=DefaultHttpxClient(limits=limits))
    used = ask_in_a_round(patient)
    for _ in range(ROUNDS - 1):
        time.sleep(pause_s * TIME)
        used |= ask_in_a_round(patient)
    return used


def test_pools_see_no_reset() -> None:
    """Of 200 requests every 5, 30 and 65 s none fails, or finds its pool's connections closed."""
    with ThreadPoolExecutor() as threads:
        for used in threads.map(used_in_rounds, (5, 30, 65)):
            # A pool makes a connection where all that it has are busy: no more than these.
            assert len(used) <= CONNECTIONS


def test_responses_over_a_websocket() -> None:
    """A connection answers one request after the other, each with the events of a stream."""
    with client.responses.connect() as connection:
        for previous in ({}, {"input": "And tomorrow?"}):
            connection.response.create(**(RESPONSE | previous))
            for event in connection:
                if event.type == "response.completed":
                    assert event.response.output_text
                    break


def test_grammar_of_a_custom_tool() -> None:
    """A custom tool is called with what its regular expression allows."""
    pattern = r"[A-Z]{3}-\d{4}"
    syntax = {"type": "grammar", "syntax": "regex", "definition": pattern}
    tool = {"type": "custom", "name": "ticket", "format": syntax}
    answer = client.responses.create(**RESPONSE, tools=[tool], tool_choice="required")
    assert re.fullmatch(pattern, answer.output[0].input)


def test_namespaces_of_tools() -> None:
    """A function of a namespace is called by its name and its namespace's."""
    function = {"type": "function", "name": "spawn", "parameters": {"type": "object"}}
    tool = {"type": "namespace", "name": "agents", "description": "Agents.", "tools": [function]}
    answer = client.responses.create(**RESPONSE, tools=[tool], tool_choice="required")
    call = answer.output[0]
    assert (call.type, call.name, call.namespace) == ("function_call", "spawn", "agents")


def test_compaction() -> None:
    """A conversation is compacted to one item, which the next request may hold."""
    compacted = client.responses.compact(model="gpt-4o", input="hi")
    assert [item.type for item in compacted.output if item.type == "compaction"]
    items = [item.to_dict() for item in compacted.output]
    assert client.responses.create(**RESPONSE | {"input": items}).output_text


@pytest.mark.parametrize("model", ["omni-moderation-latest", "text-moderation-latest"])
def test_moderation(model: str) -> None:
    """Nothing is flagged, by both models."""
    assert not client.moderations.create(model=model, input="hi").results[0].flagged


def test_embeddings() -> None:
    """Numbers come in base64 by default, and are as many as asked for."""
    asked = {"model": "text-embedding-3-small", "input": ["a cat", "a dog"], "dimensions": 256}
    vectors = [one.embedding for one in client.embeddings.create(**asked).data]
    assert [len(vector) for vector in vectors] == [256, 256]


def test_base_url_is_the_emulators() -> None:
    """The client asks the emulator and nobody else."""
    assert str(client.base_url).startswith(os.environ["EMULATOR_URL"])
