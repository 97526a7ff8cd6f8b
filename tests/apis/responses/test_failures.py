"""Responses that fail: in mid-stream, and with a status that says so."""

import openai
import pytest

from tests.apis.responses.client import EVENTS, PATH, asked, respond, stream
from tests.support.server import PLAIN, Server
from tests.support.wire import CHAT_PATH, chat, headers

FAILED = {"X-FAULT-KIND": "failed"}


@pytest.mark.parametrize("kind", ["error", "failed"])
def test_a_failed_stream_ends_with_its_response(base_url: str, kind: str) -> None:
    """The last event has what the response repeats, no output, no usage and the report."""
    asking = {"X-FAULT-KIND": kind, "X-FAULT-AFTER-TOKENS": "2", "X-EMULATION-REPORT": "true"}
    events = stream(base_url, headers() | asking, metadata={"a": "b"})
    response = events[-1]["response"]
    assert response["metadata"] == {"a": "b"}
    assert (response["output"], response["usage"], response["incomplete_details"]) == (
        [],
        None,
        None,
    )
    assert response["error"]["code"] == "server_error"
    assert response["emulation"]["fault"] == f"{kind}@2"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        EVENTS.validate_python(event)


def test_failed_whole_answer(client: openai.OpenAI) -> None:
    """A whole answer that says that it failed is a success to the client, with status and error."""
    answer = respond(client, headers() | FAILED | {"X-FAULT-STATUS": "503"})
    assert (answer.status, answer.output) == ("failed", [])
    assert answer.error is not None
    assert str(answer.error.code) == "server_is_overloaded"  # none of the client's own


def test_failed_whole_answer_leaves_when_its_token_is_due(one_worker: Server) -> None:
    """A whole answer that fails at a token takes the time up to it, and the report says so."""
    asking = headers(50, 10, 2000) | FAILED | {"X-FAULT-AFTER-TOKENS": "5"}
    asking |= {"X-EMULATION-REPORT": "true"}
    answer = PLAIN.post(one_worker.url + PATH, json=asked(), headers=asking)
    assert answer.headers["x-fault-injected"] == "failed"
    took_ms = answer.json()["emulation"]["total_ms"]["actual"]
    assert 100 <= took_ms < 20_000  # all tokens would take 20,040


@pytest.mark.parametrize("streamed", [False, True])
def test_chats_do_not_say_that_they_failed(base_url: str, streamed: bool) -> None:
    """The kind failed is a 400 for an API that has no such answer."""
    answer = PLAIN.post(base_url + CHAT_PATH, json=chat(stream=streamed), headers=FAILED)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "X-FAULT-KIND")
    assert "expected a kind that this API has, but got failed" in error["message"]
