"""A schema that stands in a message, followed with json_object."""

import json
from collections.abc import Sequence
from typing import Any

import jsonschema
import openai
import pytest

from emulator.answers.prompted import MAX_SEARCHED, schema_in_texts
from emulator.apis.chat.asking import schema_texts
from schemas import ChatCompletionRequest, JsonObjectFormat, Message
from tests.support.reference import cpu_s, least
from tests.support.sdk import complete, text_of
from tests.support.server import Server, eventually
from tests.support.wire import chat

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 3}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
OTHER = {"type": "object", "properties": {"n": {"const": 1}}, "required": ["n"]}
IMPOSSIBLE = {"type": "object", "properties": {"n": False}, "required": ["n"]}
UNSUPPORTED = {
    "type": "object",
    "properties": {"n": {"$ref": "https://example.com/n.json"}},
    "required": ["n"],
}
HI = {"role": "user", "content": "hi"}


def say(role: str, schema: object, text: str = "Answer in JSON by {}, please.") -> dict[str, Any]:
    """Return a message that holds a schema."""
    return {"role": role, "content": text.format(json.dumps(schema))}


def answer_to(client: openai.OpenAI, *messages: object, **parameters: object) -> Any:  # noqa: ANN401
    """Return the object that answers a chat."""
    body = {"messages": [*messages], "response_format": {"type": "json_object"}, **parameters}
    return json.loads(text_of(complete(client, **body)))


@pytest.mark.parametrize("role", ["system", "developer", "user"])
def test_schema_in_a_message_is_followed(client: openai.OpenAI, role: str) -> None:
    """The answer is an instance of the schema in a system, developer or user message."""
    messages = [say(role, SCHEMA), HI] if role != "user" else [HI, say(role, SCHEMA)]
    for seed in range(4):
        jsonschema.validate(answer_to(client, *messages, seed=seed), SCHEMA)


def test_fenced_schema_is_followed(client: openai.OpenAI) -> None:
    """A schema may stand in a fence, over several lines, in a part."""
    text = f"Use JSON:\n```json\n{json.dumps(SCHEMA, indent=2)}\n```\n"
    message = {"role": "user", "content": [{"type": "text", "text": text}]}
    jsonschema.validate(answer_to(client, message), SCHEMA)


def test_last_schema_wins(client: openai.OpenAI) -> None:
    """Of several schemas the last one counts."""
    assert answer_to(client, say("system", SCHEMA), say("user", OTHER), HI)["n"] == 1


def test_other_roles_ask_for_nothing(client: openai.OpenAI) -> None:
    """A schema in what the assistant said is not followed."""
    answer = answer_to(client, HI, say("assistant", OTHER), HI)
    assert set(answer) == {"title", "answer"}


def test_schema_needs_json_object(client: openai.OpenAI) -> None:
    """Without json_object a schema in a message changes nothing."""
    answer = complete(client, messages=[say("user", OTHER)])
    assert not text_of(answer).startswith("{")


@pytest.mark.parametrize("schema", [IMPOSSIBLE, UNSUPPORTED], ids=["impossible", "unsupported"])
def test_useless_schema_is_passed_over(
    client: openai.OpenAI, logged_server: Server, schema: object
) -> None:
    """What cannot be followed yields the object of a request without schema; the log says so."""
    asked = {"messages": [say("user", schema)], "response_format": {"type": "json_object"}}
    answer = complete(client, **asked, n=2)
    for choice in answer.choices:
        assert set(json.loads(choice.message.content or "")) == {"title", "answer"}

    def line() -> str:
        lines = logged_server.log().splitlines()
        return next((line for line in lines if f"id={answer.id} " in line), "")

    assert eventually(lambda: bool(line()))
    assert line().endswith(" schema_in_message=unused")


def test_followed_schema_leaves_no_note(client: openai.OpenAI, logged_server: Server) -> None:
    """The log says nothing of a schema that was followed."""
    asked = {"messages": [say("user", OTHER)], "response_format": {"type": "json_object"}}
    answer = complete(client, **asked)
    assert eventually(lambda: f"id={answer.id} " in logged_server.log())
    line = logged_server.log().partition(f"id={answer.id} ")[2].partition("\n")[0]
    assert "schema_in_message" not in line


def test_seed_decides_the_instance(client: openai.OpenAI) -> None:
    """With a seed the same request gets the same instance."""
    first, second = (answer_to(client, say("user", SCHEMA), seed=7) for _ in range(2))
    assert first == second


def found_in(messages: Sequence[Message]) -> dict[str, Any] | None:
    """Return the schema that is found in some messages."""
    return schema_in_texts(schema_texts(JsonObjectFormat(type="json_object"), messages))


def test_search_is_bounded() -> None:
    """Of long chats only the end is searched, however the text is made."""
    hostile = '"properties"' + '{"' * MAX_SEARCHED
    body = chat(messages=[{"role": "user", "content": hostile}] * 8)
    messages = ChatCompletionRequest.model_validate(body).messages
    assert found_in(messages) is None
    assert least(lambda: cpu_s(lambda: found_in(messages)), below=1) < 1
    near = chat(messages=[say("user", OTHER), {"role": "user", "content": "x" * 1000}])
    assert found_in(ChatCompletionRequest.model_validate(near).messages) == OTHER
    far = chat(messages=[say("user", OTHER), {"role": "user", "content": "x" * MAX_SEARCHED}])
    assert found_in(ChatCompletionRequest.model_validate(far).messages) is None
