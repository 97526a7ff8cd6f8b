"""What applications hit in chat completions: a case for each row, through plain HTTP."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.support.wire import CHAT_PATH, chat, headers

Json = dict[str, Any]

# Codex's shell tool, as it sends it.
SHELL: Json = {
    "type": "object",
    "properties": {
        "cmd": {"type": "string"},
        "justification": {"type": "string"},
        "sandbox_permissions": {"type": "string", "enum": ["use_default", "require_escalated"]},
        "timeout_ms": {"type": "number"},
    },
    "required": ["cmd", "timeout_ms"],
    "additionalProperties": False,
}
STRICT: Json = {**SHELL, "required": list(SHELL["properties"])}
FORMAT: Json = {"type": "json_schema", "json_schema": {"name": "x", "schema": SHELL}}


def function(name: str, schema: Json | None = None, **more: object) -> Json:
    """Return a function as a tool."""
    return {"type": "function", "function": {"name": name, "parameters": schema or SHELL, **more}}


def calling(*tools: Json, **parameters: object) -> Json:
    """Return a chat that must call one of these tools."""
    return chat(tools=list(tools), tool_choice="required", seed=1, **parameters)


def arguments(answer: Json) -> Json:
    """Return the arguments of an answer's first call."""
    call = answer["choices"][0]["message"]["tool_calls"][0]
    made: Json = json.loads(call["function"]["arguments"])
    return made


def content(answer: Json) -> Json:
    """Return the JSON that an answer's text is."""
    made: Json = json.loads(answer["choices"][0]["message"]["content"])
    return made


def called(answer: Json) -> str:
    """Return the name of an answer's first call."""
    return str(answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"])


def is_plain_text(answer: Json) -> bool:
    """Tell whether an answer is a text."""
    return bool(answer["choices"][0]["message"]["content"])


def observed(steps: int) -> list[Json]:
    """Return an agent's messages that tell results of tools as the user, as smolagents does."""
    messages: list[Json] = [{"role": "user", "content": "What is the weather?"}]
    for step in range(steps):
        messages += [
            {"role": "assistant", "content": f"Calling tools: step {step}"},
            {"role": "user", "content": f"Observation: result {step}"},
        ]
    return messages


TOOLS = [function("search"), function("visit"), function("final_answer")]

# What is asked, the headers beside it, and what must hold of the answer.
ANSWERED: dict[str, tuple[Json, dict[str, str], Callable[[Json], bool]]] = {
    "numbers are whole": (
        calling(function("shell")),
        {},
        lambda answer: type(arguments(answer)["timeout_ms"]) is int,
    ),
    "numbers are whole in a format": (
        chat(response_format=FORMAT, seed=1),
        {},
        lambda answer: type(content(answer)["timeout_ms"]) is int,
    ),
    "fractional numbers by header": (
        calling(function("shell")),
        {"X-NUMBERS": "fractional"},
        lambda answer: type(arguments(answer)["timeout_ms"]) is float,
    ),
    "fractional numbers in the body": (
        calling(function("shell"), emulation={"numbers": "fractional"}),
        {},
        lambda answer: type(arguments(answer)["timeout_ms"]) is float,
    ),
    "optional properties are left out of calls": (
        calling(function("shell")),
        {},
        lambda answer: list(arguments(answer)) == ["cmd", "timeout_ms"],
    ),
    "strict calls have all": (
        calling(function("shell", STRICT, strict=True)),
        {},
        lambda answer: list(arguments(answer)) == list(SHELL["properties"]),
    ),
    "calls that are said not to be strict": (
        calling(function("shell", strict=False)),
        {},
        lambda answer: list(arguments(answer)) == ["cmd", "timeout_ms"],
    ),
    "functions in their deprecated form": (
        chat(functions=[{"name": "shell", "parameters": SHELL}], function_call={"name": "shell"}),
        {},
        lambda answer: (
            list(json.loads(answer["choices"][0]["message"]["function_call"]["arguments"]))
            == ["cmd", "timeout_ms"]
        ),
    ),
    "optional properties by header": (
        calling(function("shell")),
        {"X-OPTIONAL": "fill"},
        lambda answer: list(arguments(answer)) == list(SHELL["properties"]),
    ),
    "optional properties in the body": (
        calling(function("shell"), emulation={"optional": "fill"}),
        {},
        lambda answer: list(arguments(answer)) == list(SHELL["properties"]),
    ),
    "formats are filled": (
        chat(response_format=FORMAT),
        {},
        lambda answer: list(content(answer)) == list(SHELL["properties"]),
    ),
    "formats are not filled where that is asked for": (
        chat(response_format=FORMAT),
        {"X-OPTIONAL": "omit"},
        lambda answer: list(content(answer)) == ["cmd", "timeout_ms"],
    ),
    "parallel_tool_calls beside tools": (
        calling(function("shell"), parallel_tool_calls=True),
        {},
        lambda answer: called(answer) == "shell",
    ),
    "temperature without reasoning": (
        chat(model="gpt-5.1", temperature=0.2, reasoning_effort="none"),
        {},
        is_plain_text,
    ),
    "temperature where no reasoning is the default": (
        chat(model="gpt-5.2", temperature=0.2, top_p=0.5),
        {},
        is_plain_text,
    ),
    "log probabilities without reasoning": (
        chat(model="gpt-5.4-mini", logprobs=True, top_logprobs=1, presence_penalty=0.5),
        {},
        lambda answer: bool(answer["choices"][0]["logprobs"]["content"]),
    ),
    "defaults of a reasoning model": (
        chat(model="gpt-5", temperature=1, top_p=1, presence_penalty=0, logprobs=False),
        {},
        is_plain_text,
    ),
    "first step of an agent that observes as the user": (
        calling(*TOOLS, messages=observed(0)),
        {},
        lambda answer: called(answer) == "search",
    ),
    "its second": (
        calling(*TOOLS, messages=observed(1)),
        {},
        lambda answer: called(answer) == "visit",
    ),
    "its third, which ends it": (
        calling(*TOOLS, messages=observed(2)),
        {},
        lambda answer: called(answer) == "final_answer",
    ),
    "allowed tools of such an agent": (
        chat(
            messages=observed(1),
            tools=TOOLS,
            tool_choice={
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [
                        {"type": "function", "function": {"name": name}}
                        for name in ("search", "final_answer")
                    ],
                },
            },
        ),
        {},
        lambda answer: called(answer) == "final_answer",
    ),
}


@pytest.mark.parametrize("row", ANSWERED)
def test_it_is_answered_as_it_should_be(http: httpx.Client, row: str) -> None:
    """The answer to a request that is right has what its client relies on."""
    body, asked, holds = ANSWERED[row]
    answer = http.post(CHAT_PATH, json=body, headers={**headers(), **asked})
    assert answer.status_code == 200, answer.text
    assert holds(answer.json()), answer.text


@pytest.mark.parametrize(
    ("said", "expected"),
    [({}, list(SHELL["properties"])), ({"strict": False}, ["cmd", "timeout_ms"])],
)
def test_functions_of_responses_are_strict_by_default(
    http: httpx.Client, said: Json, expected: list[str]
) -> None:
    """A function of Responses has all its properties unless it says that it is not strict."""
    tool = {"type": "function", "name": "shell", "parameters": SHELL, **said}
    body = {"model": "gpt-5.1", "input": "hi", "tools": [tool], "tool_choice": "required"}
    answer = http.post("/v1/responses", json=body, headers=headers()).json()
    assert list(json.loads(answer["output"][0]["arguments"])) == expected


def unsupported(param: str) -> str:
    """Return OpenAI's words for a parameter that a model does not take."""
    return f"Unsupported parameter: '{param}' is not supported with this model."


NO_LOGPROBS = "You are not allowed to request logprobs from this model."
EMPTY_CALLS = {"role": "assistant", "content": "x", "tool_calls": []}
# What is asked; then the parameter, the code and the message of the error.
REFUSED: dict[str, tuple[Json, str, str | None, str]] = {
    "parallel_tool_calls without tools": (
        chat(parallel_tool_calls=False),
        "parallel_tool_calls",
        None,
        "Invalid value for 'parallel_tool_calls': 'parallel_tool_calls' is only allowed when "
        "'tools' are specified.",
    ),
    "parallel_tool_calls beside functions": (
        chat(functions=[{"name": "f"}], parallel_tool_calls=True),
        "parallel_tool_calls",
        None,
        "Invalid value for 'parallel_tool_calls': 'parallel_tool_calls' is only allowed when "
        "'tools' are specified.",
    ),
    "empty tool_calls": (
        chat(messages=[{"role": "user", "content": "a"}, EMPTY_CALLS]),
        "messages[1].tool_calls",
        "empty_array",
        "Invalid 'messages[1].tool_calls': empty array. Expected an array with minimum length 1, "
        "but got an empty array instead.",
    ),
    "empty tool_calls without a content": (
        chat(messages=[{"role": "assistant", "tool_calls": []}]),
        "messages[0].tool_calls",
        "empty_array",
        "Invalid 'messages[0].tool_calls': empty array. Expected an array with minimum length 1, "
        "but got an empty array instead.",
    ),
    "temperature while reasoning": (
        chat(model="gpt-5.1", temperature=0.2, reasoning_effort="low"),
        "temperature",
        "unsupported_value",
        "Unsupported value: 'temperature' does not support 0.2 with this model. "
        "Only the default (1) value is supported.",
    ),
    "temperature of a pro model": (
        chat(model="gpt-5.2-pro", temperature=0.2),
        "temperature",
        "unsupported_value",
        "Unsupported value: 'temperature' does not support 0.2 with this model. "
        "Only the default (1) value is supported.",
    ),
    "temperature where reasoning is the default": (
        chat(model="gpt-5.5", temperature=0.2),
        "temperature",
        "unsupported_value",
        "Unsupported value: 'temperature' does not support 0.2 with this model. "
        "Only the default (1) value is supported.",
    ),
    "top_p while reasoning": (
        chat(model="gpt-5", top_p=0.5),
        "top_p",
        "unsupported_parameter",
        unsupported("top_p"),
    ),
    "penalty while reasoning": (
        chat(model="gpt-5-mini", presence_penalty=0.5),
        "presence_penalty",
        "unsupported_parameter",
        unsupported("presence_penalty"),
    ),
    "other penalty while reasoning": (
        chat(model="o4-mini", frequency_penalty=0.5),
        "frequency_penalty",
        "unsupported_parameter",
        unsupported("frequency_penalty"),
    ),
    "logprobs while reasoning": (
        chat(model="gpt-5.6-terra", logprobs=True),
        "logprobs",
        "unsupported_parameter",
        unsupported("logprobs"),
    ),
    "stop of a reasoning model": (
        chat(model="o4-mini", stop=["a"]),
        "stop",
        "unsupported_parameter",
        unsupported("stop"),
    ),
    "logit_bias of a reasoning model": (
        chat(model="gpt-5.6-terra", logit_bias={"1": 1}, reasoning_effort="none"),
        "logit_bias",
        "unsupported_parameter",
        unsupported("logit_bias"),
    ),
}


@pytest.mark.parametrize("row", REFUSED)
def test_it_is_refused_in_openais_words(http: httpx.Client, row: str) -> None:
    """A request that OpenAI refuses gets its error."""
    body, param, code, message = REFUSED[row]
    answer = http.post(CHAT_PATH, json=body, headers=headers())
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["param"], error["code"], error["message"]) == (param, code, message)


@pytest.mark.parametrize("row", REFUSED)
def test_lenient_server_takes_it(lenient_server: Any, row: str) -> None:  # noqa: ANN401
    """A lenient server answers what OpenAI refuses."""
    answer = httpx.post(f"{lenient_server.url}{CHAT_PATH}", json=REFUSED[row][0], headers=headers())
    assert answer.status_code == 200, answer.text


def test_older_reasoning_models_forbid_log_probabilities(http: httpx.Client) -> None:
    """Models that have no effort none refuse log probabilities with another status."""
    body = chat(model="gpt-5-nano", logprobs=True)
    answer = http.post(CHAT_PATH, json=body, headers=headers())
    assert (answer.status_code, answer.json()["error"]["message"]) == (403, NO_LOGPROBS)
