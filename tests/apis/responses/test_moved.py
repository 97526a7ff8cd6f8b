"""Parameters of chats in the bodies of Responses."""

from typing import Any

import httpx
import openai
import pytest

from emulator.apis.responses.schema.moved import GUIDED, MOVED
from tests.apis.responses.client import PATH, asked
from tests.support.sdk import message_of, refused

PATHS = ("/responses", "/responses/compact", "/responses/input_tokens")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", MOVED)
def test_moved_parameters_are_told(client: openai.OpenAI, name: str, path: str) -> None:
    """A parameter of a chat is a 400 of OpenAI's words, which name the one to use."""
    error = refused(client, asked(**{name: "x"}), path)
    assert (error.status_code, error.param, error.code) == (400, name, "unsupported_parameter")
    assert message_of(error) == (
        f"Unsupported parameter: '{name}'. In the Responses API, this parameter has moved to "
        f"'{MOVED[name]}'. Try again with the new parameter. See the API documentation for more "
        "information: https://platform.openai.com/docs/api-reference/responses/create."
    )


def test_a_chat_is_told_what_it_is(client: openai.OpenAI) -> None:
    """The whole body of a chat is told of its messages, and not of the input that it lacks."""
    error = refused(client, {"model": "gpt-4o", "messages": []}, "/responses")
    assert error.param == "messages"


@pytest.mark.parametrize("name", GUIDED)
def test_guided_decoding_is_told(client: openai.OpenAI, name: str) -> None:
    """What vLLM lets decide the text is a 400, and not dropped."""
    error = refused(client, asked(**{name: {}}), "/responses")
    assert (error.param, error.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/responses", asked(n=2), "n"),
        ("/responses/compact", asked(stream=True), "stream"),
    ],
)
def test_unknown_parameters_that_matter(
    client: openai.OpenAI, path: str, body: dict[str, Any], param: str
) -> None:
    """More answers, and a stream where there is none, are refused by name."""
    error = refused(client, body, path)
    assert (error.status_code, error.param, error.code) == (400, param, "unknown_parameter")


def test_what_changes_nothing_is_taken(http: httpx.Client) -> None:
    """Nulls, one answer and what OpenAI does not have pass, as documented."""
    nothing = dict.fromkeys(MOVED) | {"n": 1, "top_k": 5}
    assert http.post(PATH, json=asked() | nothing).status_code == 200


@pytest.mark.parametrize(
    ("prompt", "param", "code"),
    [
        ("Once upon a time", "prompt", "invalid_type"),
        ({"version": "1"}, "prompt.id", "missing_required_parameter"),
    ],
)
def test_a_prompt_is_a_reference(
    client: openai.OpenAI, prompt: object, param: str, code: str
) -> None:
    """A text, as legacy completions have it, is no prompt of this API."""
    error = refused(client, {"model": "gpt-4o", "prompt": prompt}, "/responses")
    assert (error.status_code, error.param, error.code) == (400, param, code)
