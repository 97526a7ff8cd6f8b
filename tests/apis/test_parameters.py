"""Every parameter and every shape of a message, through the official client."""

from collections.abc import Mapping
from typing import Any

import openai
import openai.types.chat as sdk_chat
import pytest
from openai.types import completion_create_params
from openai.types.chat import (
    chat_completion_content_part_image_param,
    chat_completion_content_part_param,
    chat_completion_custom_tool_param,
)
from openai.types.shared_params import FunctionDefinition, response_format_json_schema

import schemas
from emulator.apis.chat import messages, tools
from tests.support.sdk import complete, message_of, refused
from tests.support.wire import chat, headers

FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
INT64 = 2**63

# --------------------------------------------------------------------------------------
# Numbers
# --------------------------------------------------------------------------------------

BOUNDS: dict[str, tuple[str, float | None, float | None, dict[str, object]]] = {
    "temperature": ("decimal", 0, 2, {}),
    "top_p": ("decimal", 0, 1, {}),
    "frequency_penalty": ("decimal", -2, 2, {}),
    "presence_penalty": ("decimal", -2, 2, {}),
    "n": ("integer", 1, 128, {}),
    "max_completion_tokens": ("integer", 1, None, {}),
    "max_tokens": ("integer", 1, None, {}),
    "min_tokens": ("integer", 0, None, {}),
    "seed": ("integer", -INT64, INT64 - 1, {}),
    "top_logprobs": ("integer", 0, 20, {"logprobs": True}),
}
EDGES = [
    (name, value)
    for name, (_, *bounds, _) in BOUNDS.items()
    for value in bounds
    if value is not None and name != "min_tokens"  # the client does not have it
]


@pytest.mark.parametrize(("name", "value"), EDGES)
def test_numbers_at_the_edge_are_accepted(client: openai.OpenAI, name: str, value: float) -> None:
    """A number at either end of its range is accepted."""
    parameters = {**BOUNDS[name][3], name: value}
    answer = complete(client, headers(output_length=1), **parameters)
    assert answer.choices[0].message.content


@pytest.mark.parametrize("name", BOUNDS)
def test_numbers_too_small(client: openai.OpenAI, name: str) -> None:
    """A number below its range is refused in OpenAI's words, with bound and value in full."""
    kind, least, _, also = BOUNDS[name]
    assert least is not None
    error = refused(client, chat(**also, **{name: least - 1}))
    assert isinstance(error, openai.BadRequestError)
    assert (error.type, error.param) == ("invalid_request_error", name)
    assert error.code == f"{kind}_below_min_value"
    assert message_of(error) == (
        f"Invalid '{name}': {kind} below minimum value. "
        f"Expected a value >= {least}, but got {least - 1} instead."
    )


@pytest.mark.parametrize("name", [name for name, bounds in BOUNDS.items() if bounds[2]])
def test_numbers_too_large(client: openai.OpenAI, name: str) -> None:
    """A number above its range is refused in OpenAI's words, with bound and value in full."""
    kind, _, most, also = BOUNDS[name]
    assert most is not None
    error = refused(client, chat(**also, **{name: most + 1}))
    assert isinstance(error, openai.BadRequestError)
    assert (error.type, error.param) == ("invalid_request_error", name)
    assert error.code == f"{kind}_above_max_value"
    assert message_of(error) == (
        f"Invalid '{name}': {kind} above maximum value. "
        f"Expected a value <= {most}, but got {most + 1} instead."
    )


# --------------------------------------------------------------------------------------
# Types
# --------------------------------------------------------------------------------------

STRINGS = "a string"
OBJECT = "an object"
TYPES: dict[str, tuple[str, object, str]] = {
    **{
        name: (f"{'an' if kind == 'integer' else 'a'} {kind}", "1", STRINGS)
        for name, (kind, *_) in BOUNDS.items()
    },
    "stop": ("one of a string or array of strings", 5, "an integer"),
    "logprobs": ("a boolean", 1, "an integer"),
    "logit_bias": (OBJECT, [], "an array"),
    "stream": ("a boolean", "true", STRINGS),
    "stream_options": (OBJECT, [], "an array"),
    "response_format": (OBJECT, "json_object", STRINGS),
    "tools": ("an array", {}, OBJECT),
    "tool_choice": ("one of a string or object", 5, "an integer"),
    "parallel_tool_calls": ("a boolean", 0, "an integer"),
    "functions": ("an array", "f", STRINGS),
    "function_call": ("one of a string or object", [], "an array"),
    "reasoning_effort": (STRINGS, 5, "an integer"),
    "verbosity": (STRINGS, 1.5, "a decimal"),
    "service_tier": (STRINGS, True, "a boolean"),
    "metadata": (OBJECT, "x", STRINGS),
    "user": (STRINGS, 5, "an integer"),
    "ignore_eos": ("a boolean", "yes", STRINGS),
    "emulation": (OBJECT, "ttft_ms=5", STRINGS),
}


@pytest.mark.parametrize("name", TYPES)
def test_wrong_types(client: openai.OpenAI, name: str) -> None:
    """A value of another JSON type is refused with what was expected and what came."""
    expected, value, came = TYPES[name]
    error = refused(client, chat(**{name: value}))
    assert isinstance(error, openai.BadRequestError)
    assert (error.param, error.code) == (name, "invalid_type")
    assert message_of(error) == (
        f"Invalid type for '{name}': expected {expected}, but got {came} instead."
    )


@pytest.mark.parametrize("name", ["include_usage", "include_obfuscation", "continuous_usage_stats"])
def test_wrong_types_of_stream_options(client: openai.OpenAI, name: str) -> None:
    """Each option of a stream is a boolean."""
    error = refused(client, chat(stream=True, stream_options={name: "yes"}))
    assert (error.param, error.code) == (f"stream_options.{name}", "invalid_type")


@pytest.mark.parametrize("value", [1.5, True, [], {}])
def test_integers_are_integers(client: openai.OpenAI, value: object) -> None:
    """Neither a decimal, nor a boolean, nor an array, nor an object is taken for an integer."""
    assert refused(client, chat(n=value)).code == "invalid_type"


@pytest.mark.parametrize("name", [*TYPES, "store", "prediction", "modalities"])
def test_null_is_accepted(client: openai.OpenAI, name: str) -> None:
    """Every optional parameter may be null, which means the default."""
    body = chat(**{name: None})
    answer: Any = client.post(
        "/chat/completions", body=body, cast_to=object, options={"headers": headers()}
    )
    assert answer["usage"]["completion_tokens"] == 5
    assert len(answer["choices"]) == 1


# --------------------------------------------------------------------------------------
# Values
# --------------------------------------------------------------------------------------

EFFORT_LEVELS = ["none", "minimal", "low", "medium", "high", "xhigh", "max"]
SERVICE_TIERS = ["auto", "default", "flex", "scale", "priority", "fast"]
VALUES: list[dict[str, object]] = [
    *[dict[str, object](reasoning_effort=effort) for effort in EFFORT_LEVELS],
    *[dict[str, object](verbosity=level) for level in ("low", "medium", "high")],
    *[dict[str, object](service_tier=tier) for tier in SERVICE_TIERS],
    {"stop": "xyz"},
    {"stop": ["a b c", "d e f", "g h i", "j k l"]},
    {"logit_bias": {"1734": -100, "50256": 100}},
    {"logprobs": False},
    {"response_format": {"type": "text"}},
    {"tools": [FUNCTION], "tool_choice": "auto", "parallel_tool_calls": True},
    {"tools": [FUNCTION], "tool_choice": "none"},
    {"functions": [FUNCTION["function"]], "function_call": "auto"},
    {"functions": [FUNCTION["function"]], "function_call": "none"},
    {"metadata": {f"{i:064}": "v" * 512 for i in range(16)}},
    {"user": "someone", "safety_identifier": "x", "store": True},
    {"prompt_cache_key": "k", "prompt_cache_retention": "24h"},
    {"prompt_cache_options": {"mode": "explicit", "ttl": "30m"}},
    {"moderation": {"model": "omni-moderation-latest"}},
    {"prediction": {"type": "content", "content": "x"}},
    {"modalities": ["text"], "audio": {"voice": "alloy", "format": "mp3"}},
    {"web_search_options": {"search_context_size": "low"}},
]


@pytest.mark.parametrize("parameters", VALUES, ids=", ".join)
def test_values_are_accepted(client: openai.OpenAI, parameters: Mapping[str, object]) -> None:
    """Every value that OpenAI documents is accepted, and the answer is text of the asked length."""
    answer = complete(client, **parameters)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5


EFFORTS = "'none', 'minimal', 'low', 'medium', 'high', 'xhigh', and 'max'"
TIERS = "'auto', 'default', 'flex', 'scale', 'priority', and 'fast'"
FORMATS = "'text', 'json_object', and 'json_schema'"
NO_TOOL = {"type": "function", "function": {"name": "g"}}
FAULTS: dict[str, tuple[dict[str, Any], str, str | None, str]] = {
    "effort": (
        {"reasoning_effort": "x"},
        "reasoning_effort",
        "invalid_value",
        f"Invalid value: 'x'. Supported values are: {EFFORTS}.",
    ),
    "verbosity": (
        {"verbosity": "x"},
        "verbosity",
        "invalid_value",
        "Invalid value: 'x'. Supported values are: 'low', 'medium', and 'high'.",
    ),
    "tier": (
        {"service_tier": "x"},
        "service_tier",
        "invalid_value",
        f"Invalid value: 'x'. Supported values are: {TIERS}.",
    ),
    "format": (
        {"response_format": {"type": "x"}},
        "response_format.type",
        "invalid_value",
        f"Invalid value: 'x'. Supported values are: {FORMATS}.",
    ),
    "format without a schema": (
        {"response_format": {"type": "json_schema"}},
        "response_format.json_schema",
        "missing_required_parameter",
        "Missing required parameter: 'response_format.json_schema'.",
    ),
    "schema without a name": (
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        "response_format.json_schema.name",
        "missing_required_parameter",
        "Missing required parameter: 'response_format.json_schema.name'.",
    ),
    "five stops": (
        {"stop": ["a", "b", "c", "d", "e"]},
        "stop",
        "array_above_max_length",
        "Invalid 'stop': array too long. Expected an array with maximum length 4, "
        "but got an array with length 5 instead.",
    ),
    "empty stop": (
        {"stop": ""},
        "stop",
        "empty_string",
        "Invalid 'stop': empty string. Expected a string with minimum length 1, "
        "but got an empty string instead.",
    ),
    "stop in a list": (
        {"stop": ["a", 5]},
        "stop[1]",
        "invalid_type",
        "Invalid type for 'stop[1]': expected a string, but got an integer instead.",
    ),
    "bias": (
        {"logit_bias": {"5": 100.5}},
        "logit_bias.5",
        "decimal_above_max_value",
        "Invalid 'logit_bias.5': decimal above maximum value. "
        "Expected a value <= 100, but got 100.5 instead.",
    ),
    "top_logprobs alone": (
        {"top_logprobs": 3},
        "top_logprobs",
        None,
        "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.",
    ),
    "stream_options alone": (
        {"stream_options": {"include_usage": True}},
        "stream_options",
        None,
        "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
    ),
    "stream option": (
        {"stream": True, "stream_options": {"include_usage": "yes"}},
        "stream_options.include_usage",
        "invalid_type",
        "Invalid type for 'stream_options.include_usage': "
        "expected a boolean, but got a string instead.",
    ),
    "no tools": (
        {"tools": []},
        "tools",
        "empty_array",
        "Invalid 'tools': empty array. Expected an array with minimum length 1, "
        "but got an empty array instead.",
    ),
    "tool type": (
        {"tools": [{"type": "x"}]},
        "tools[0].type",
        "invalid_value",
        "Invalid value: 'x'. Supported values are: 'function' and 'custom'.",
    ),
    "function name": (
        {"tools": [FUNCTION, {"type": "function", "function": {"name": "a b"}}]},
        "tools[1].function.name",
        "invalid_value",
        "Invalid 'tools[1].function.name': string does not match pattern. "
        "Expected a string that matches the pattern '^[a-zA-Z0-9_-]{1,64}$'.",
    ),
    "tool_choice without tools": (
        {"tool_choice": "auto"},
        "tool_choice",
        None,
        "Invalid value for 'tool_choice': "
        "'tool_choice' is only allowed when 'tools' are specified.",
    ),
    "tool_choice": (
        {"tools": [FUNCTION], "tool_choice": "x"},
        "tool_choice",
        "invalid_value",
        "Invalid value: 'x'. Supported values are: 'none', 'auto', and 'required'.",
    ),
    "unknown tool": (
        {"tools": [FUNCTION], "tool_choice": NO_TOOL},
        "tool_choice",
        None,
        "Invalid value for 'tool_choice': no function named 'g' was specified in the 'tools' "
        "parameter.",
    ),
    "unknown allowed tool": (
        {
            "tools": [FUNCTION],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [NO_TOOL]},
            },
        },
        "tool_choice",
        None,
        "Invalid value for 'tool_choice': none of the allowed tools was specified in the 'tools' "
        "parameter.",
    ),
    "malformed allowed tool": (
        {
            "tools": [FUNCTION],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "auto",
                    "tools": [{"type": "function", "function": "f"}],
                },
            },
        },
        "tool_choice.allowed_tools.tools[0].function",
        "invalid_type",
        "Invalid type for 'tool_choice.allowed_tools.tools[0].function': "
        "expected an object, but got a string instead.",
    ),
    "unknown function": (
        {"functions": [FUNCTION["function"]], "function_call": {"name": "g"}},
        "function_call",
        None,
        "Invalid value for 'function_call': no function named 'g' was specified in the "
        "'functions' parameter.",
    ),
    "17 pairs": (
        {"metadata": {str(i): "x" for i in range(17)}},
        "metadata",
        "object_above_max_properties",
        "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, "
        "but got an object with 17 properties instead.",
    ),
    "long key": (
        {"metadata": {"k" * 65: "x"}},
        f"metadata.{'k' * 65}",
        "string_above_max_length",
        f"Invalid 'metadata.{'k' * 65}': string too long. Expected a string with maximum length "
        "64, but got a string with length 65 instead.",
    ),
    "long value": (
        {"metadata": {"k": "x" * 513}},
        "metadata.k",
        "string_above_max_length",
        "Invalid 'metadata.k': string too long. Expected a string with maximum length 512, "
        "but got a string with length 513 instead.",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_values_are_refused(client: openai.OpenAI, fault: str) -> None:
    """A value that OpenAI does not have is refused with its path, its code and OpenAI's words."""
    parameters, param, code, message = FAULTS[fault]
    error = refused(client, chat(**parameters))
    assert isinstance(error, openai.BadRequestError)
    assert (error.type, error.param, error.code) == ("invalid_request_error", param, code)
    assert message_of(error) == message


@pytest.mark.parametrize("tier", [None, "auto", "flex", "priority"])
def test_service_tier_of_the_answer(client: openai.OpenAI, tier: str | None) -> None:
    """Whatever tier was asked for, the answer was served by the default one."""
    assert complete(client, service_tier=tier).service_tier == "default"


# --------------------------------------------------------------------------------------
# Messages
# --------------------------------------------------------------------------------------

HI = {"role": "user", "content": "hi"}
TEXT = {"type": "text", "text": "hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CUSTOM_CALL = {"id": "call_2", "type": "custom", "custom": {"name": "g", "input": "x"}}
MESSAGES: dict[str, dict[str, object]] = {
    "developer": {"role": "developer", "content": "hi", "name": "dev"},
    "developer's parts": {"role": "developer", "content": [TEXT]},
    "system": {"role": "system", "content": "hi", "name": "sys"},
    "system's parts": {"role": "system", "content": [TEXT, TEXT]},
    "user": {"role": "user", "content": "hi", "name": "someone"},
    "text": {"role": "user", "content": [TEXT]},
    "image": {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": "https://x/y", "detail": "low"}}],
    },
    "image as it is": {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": "https://x/y", "detail": "original"}}
        ],
    },
    "audio": {
        "role": "user",
        "content": [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}],
    },
    "file": {
        "role": "user",
        "content": [{"type": "file", "file": {"file_data": "JVBERi0=", "filename": "a.pdf"}}],
    },
    "uploaded file": {"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]},
    "assistant": {"role": "assistant", "content": "hi", "name": "bot"},
    "assistant without content": {"role": "assistant", "content": None, "tool_calls": [CALL]},
    "assistant's parts": {
        "role": "assistant",
        "content": [TEXT, {"type": "refusal", "refusal": "no"}],
    },
    "refusal": {"role": "assistant", "content": None, "refusal": "no"},
    "custom call": {"role": "assistant", "tool_calls": [CALL, CUSTOM_CALL]},
    "audio of before": {"role": "assistant", "audio": {"id": "audio_1"}},
    "function call": {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
    "tool": {"role": "tool", "content": "hi", "tool_call_id": "call_1"},
    "tool's parts": {"role": "tool", "content": [TEXT], "tool_call_id": "call_1"},
    "function": {"role": "function", "content": "hi", "name": "f"},
    "function without content": {"role": "function", "content": None, "name": "f"},
}


def exchange(message: Mapping[str, object]) -> list[object]:
    """Return a message with the call before it that a result needs, or the results after it."""
    calls: Any = message.get("tool_calls", ())
    before = [{"role": "assistant", "tool_calls": [CALL]}] if message["role"] == "tool" else []
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "x"} for call in calls]
    return [*before, message, *results]


@pytest.mark.parametrize("shape", MESSAGES)
def test_messages_are_accepted(client: openai.OpenAI, shape: str) -> None:
    """Every role and every shape of its content is accepted, and counted as prompt."""
    usage = complete(client, messages=[HI, *exchange(MESSAGES[shape])]).usage
    alone = complete(client, messages=[HI]).usage
    assert usage is not None
    assert alone is not None
    assert usage.prompt_tokens >= alone.prompt_tokens + 4


def faulty(message: object) -> dict[str, Any]:
    """Return a request whose second message has a fault."""
    return chat(messages=[HI, message])


MISSING, TYPE, VALUE = "missing_required_parameter", "invalid_type", "invalid_value"
IMAGE = {"type": "image_url"}
AUDIO = {"type": "input_audio"}
BAD_MESSAGES: list[tuple[object, str, str]] = [
    ("hi", "", TYPE),
    ({"content": "hi"}, "role", MISSING),
    ({"role": "robot", "content": "hi"}, "role", VALUE),
    ({"role": 5, "content": "hi"}, "role", TYPE),
    ({"role": "user"}, "content", MISSING),
    ({"role": "user", "content": None}, "content", TYPE),
    ({"role": "user", "content": []}, "content", "empty_array"),
    ({"role": "user", "content": "hi", "name": 5}, "name", TYPE),
    ({"role": "user", "content": ["hi"]}, "content[0]", TYPE),
    ({"role": "user", "content": [TEXT, {"type": "refusal"}]}, "content[1].type", VALUE),
    ({"role": "user", "content": [TEXT, {"type": "text"}]}, "content[1].text", MISSING),
    ({"role": "user", "content": [TEXT, IMAGE]}, "content[1].image_url", MISSING),
    (
        {"role": "user", "content": [TEXT, {**IMAGE, "image_url": {}}]},
        "content[1].image_url.url",
        MISSING,
    ),
    (
        {"role": "user", "content": [TEXT, {**IMAGE, "image_url": "https://x/y"}]},
        "content[1].image_url",
        TYPE,
    ),
    (
        {"role": "user", "content": [{**IMAGE, "image_url": {"url": "ftp://x"}}]},
        "content[0].image_url.url",
        "invalid_image_url",
    ),
    (
        {"role": "user", "content": [{**AUDIO, "input_audio": {"data": "x", "format": "ogg"}}]},
        "content[0].input_audio.format",
        VALUE,
    ),
    (
        {"role": "user", "content": [{**AUDIO, "input_audio": {"format": "wav"}}]},
        "content[0].input_audio.data",
        MISSING,
    ),
    ({"role": "user", "content": [{"type": "file"}]}, "content[0].file", MISSING),
    ({"role": "system", "content": [IMAGE]}, "content[0].type", VALUE),
    ({"role": "assistant", "content": [IMAGE]}, "content[0].type", VALUE),
    ({"role": "assistant", "content": 5}, "content", TYPE),
    ({"role": "assistant", "tool_calls": [{"type": "x"}]}, "tool_calls[0].type", VALUE),
    (
        {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f"}}]},
        "tool_calls[0].id",
        MISSING,
    ),
    ({"role": "assistant", "audio": {}}, "audio.id", MISSING),
    ({"role": "tool", "content": "hi"}, "tool_call_id", MISSING),
    ({"role": "tool", "tool_call_id": "x"}, "content", MISSING),
    ({"role": "function", "content": "hi"}, "name", MISSING),
]


@pytest.mark.parametrize(("message", "field", "code"), BAD_MESSAGES)
def test_messages_are_refused(
    client: openai.OpenAI, message: object, field: str, code: str
) -> None:
    """A faulty message is refused with the path to the fault."""
    error = refused(client, faulty(message))
    path = f"messages[1].{field}".rstrip(".")
    assert isinstance(error, openai.BadRequestError)
    assert (error.param, error.code) == (path, code)


@pytest.mark.parametrize("shape", ["audio", "file", "uploaded file"])
def test_audio_and_files_are_not_counted(client: openai.OpenAI, shape: str) -> None:
    """A sound or a file beside a text leaves the prompt tokens as the text alone has them."""
    attached: Any = MESSAGES[shape]["content"]
    counts = []
    for parts in ([TEXT], [TEXT, *attached], [*attached, TEXT]):
        usage = complete(client, messages=[{"role": "user", "content": parts}]).usage
        assert usage is not None
        counts.append(usage.prompt_tokens)
    assert len(set(counts)) == 1


# --------------------------------------------------------------------------------------
# The rest of the errors
# --------------------------------------------------------------------------------------


def test_order_of_checks(client: openai.OpenAI) -> None:
    """Of several faults the model's is told first, then the messages', then the others'."""
    body = {"n": 0, "temperature": "hot", "messages": [{"role": "x"}]}
    told = [refused(client, body)]
    body["model"] = "gpt-4"
    told.append(refused(client, body))
    body["messages"] = [HI]
    told.append(refused(client, body))
    assert [error.param for error in told[:2]] == [None, "messages[0].role"]
    assert told[2].param in {"n", "temperature"}
    assert message_of(told[0]) == "you must provide a model parameter"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"messages": [HI]}, None, None),
        ({"model": "gpt-4"}, "messages", MISSING),
        ({"model": "gpt-4", "messages": []}, "messages", "empty_array"),
    ],
)
def test_required_parameters(
    client: openai.OpenAI, body: dict[str, object], param: str | None, code: str | None
) -> None:
    """A request without a model or without messages is the client's BadRequestError."""
    error = refused(client, body)
    assert isinstance(error, openai.BadRequestError)
    assert (error.status_code, error.param, error.code) == (400, param, code)


def test_body_that_is_not_json(client: openai.OpenAI) -> None:
    """A body that is not JSON is the client's BadRequestError too, with OpenAI's words."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", content=b"{", cast_to=object)
    assert (caught.value.param, caught.value.code) == (None, None)
    assert message_of(caught.value) == "We could not parse the JSON body of your request."


def test_unknown_url(client: openai.OpenAI) -> None:
    """An API that OpenAI does not have is the client's NotFoundError."""
    error = refused(client, {"model": "m", "input": "x"}, "/moderation")
    assert isinstance(error, openai.NotFoundError)
    assert (error.param, error.code) == (None, None)
    assert message_of(error) == "Invalid URL (POST /v1/moderation)"


def test_wrong_method(client: openai.OpenAI) -> None:
    """A method that an URL does not know is a 405 with its code."""
    with pytest.raises(openai.APIStatusError) as caught:
        client.put("/chat/completions", cast_to=object)
    assert (caught.value.status_code, caught.value.code) == (405, "method_not_supported")
    assert message_of(caught.value) == "Not allowed to PUT on /v1/chat/completions."


def test_unlisted_model(client: openai.OpenAI) -> None:
    """A model that is not listed can be asked about, as a chat with it is answered."""
    assert client.models.retrieve("org/x").model_dump(include={"id", "owned_by"}) == {
        "id": "org/x",
        "owned_by": "openai",
    }


# --------------------------------------------------------------------------------------
# Unknown parameters
# --------------------------------------------------------------------------------------

UNKNOWN = ["top_k", "repetition_penalty", "chat_template_kwargs", "zzz", "ignore_eos", "min_tokens"]


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_parameters_are_accepted(client: openai.OpenAI, name: str) -> None:
    """Parameters that OpenAI does not have are accepted by default, as vLLM does."""
    value = name == "ignore_eos" or 1
    assert complete(client, extra_body={name: value}).choices[0].message.content


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_parameters_are_refused_in_strict_mode(
    other_client: openai.OpenAI, name: str
) -> None:
    """With strict_parameters they are refused in OpenAI's words, vLLM's extensions too."""
    error = refused(other_client, chat(**{name: name == "ignore_eos" or 1}))
    assert isinstance(error, openai.BadRequestError)
    assert (error.param, error.code) == (name, "unknown_parameter")
    assert message_of(error) == f"Unknown parameter: '{name}'."


SDK_TYPES: list[tuple[type, type[schemas.RequestModel]]] = [
    (sdk_chat.completion_create_params.CompletionCreateParamsBase, schemas.ChatCompletionRequest),
    (completion_create_params.CompletionCreateParamsBase, schemas.CompletionRequest),
    (sdk_chat.ChatCompletionDeveloperMessageParam, schemas.InstructionMessage),
    (sdk_chat.ChatCompletionSystemMessageParam, schemas.InstructionMessage),
    (sdk_chat.ChatCompletionUserMessageParam, schemas.UserMessage),
    (sdk_chat.ChatCompletionAssistantMessageParam, schemas.AssistantMessage),
    (sdk_chat.ChatCompletionToolMessageParam, schemas.ToolMessage),
    (sdk_chat.ChatCompletionFunctionMessageParam, schemas.FunctionMessage),
    (sdk_chat.ChatCompletionContentPartTextParam, schemas.TextPart),
    (sdk_chat.ChatCompletionContentPartImageParam, schemas.ImagePart),
    (sdk_chat.ChatCompletionContentPartInputAudioParam, schemas.AudioPart),
    (sdk_chat.ChatCompletionContentPartRefusalParam, schemas.RefusalPart),
    (chat_completion_content_part_image_param.ImageURL, schemas.ImageURL),
    (chat_completion_content_part_param.File, schemas.FilePart),
    (chat_completion_content_part_param.FileFile, messages.InputFile),
    (sdk_chat.ChatCompletionStreamOptionsParam, schemas.StreamOptions),
    (sdk_chat.ChatCompletionMessageFunctionToolCallParam, messages.FunctionToolCall),
    (sdk_chat.ChatCompletionMessageCustomToolCallParam, messages.CustomToolCall),
    (chat_completion_custom_tool_param.Custom, tools.CustomDefinition),
    (FunctionDefinition, schemas.FunctionDefinition),
    (response_format_json_schema.JSONSchema, tools.NamedSchema),
]


@pytest.mark.parametrize(("theirs", "ours"), SDK_TYPES)
def test_every_key_of_the_client_is_known(theirs: type, ours: type[schemas.RequestModel]) -> None:
    """What the types of the official client have, the schema has too, by the same name."""
    known = {field.alias or name for name, field in ours.model_fields.items()}
    assert set(theirs.__annotations__) <= known


BREAKPOINT = {"prompt_cache_breakpoint": {"mode": "explicit"}}


@pytest.mark.parametrize("shape", ["text", "image", "audio", "file"])
def test_cache_breakpoints_are_accepted_in_strict_mode(
    other_client: openai.OpenAI, shape: str
) -> None:
    """A part of any type may mark where the prompt's cache ends."""
    parts: Any = MESSAGES[shape]["content"]
    message = {"role": "user", "content": [{**part, **BREAKPOINT} for part in parts]}
    assert complete(other_client, messages=[message]).choices[0].message.content


def test_continuous_usage_is_refused_in_strict_mode(other_client: openai.OpenAI) -> None:
    """With strict_parameters stream_options may not have vLLM's option either."""
    options = {"continuous_usage_stats": True}
    error = refused(other_client, chat(stream=True, stream_options=options))
    name = "stream_options.continuous_usage_stats"
    assert (error.param, error.code) == (name, "unknown_parameter")


def test_unknown_keys_of_messages_are_refused_in_strict_mode(other_client: openai.OpenAI) -> None:
    """With strict_parameters a message may not have an unknown key either."""
    error = refused(other_client, chat(messages=[{**HI, "zzz": 1}]))
    assert (error.param, error.code) == ("messages[0].zzz", "unknown_parameter")


@pytest.mark.parametrize("parameters", VALUES, ids=", ".join)
def test_strict_mode_knows_openais_parameters(
    other_client: openai.OpenAI, parameters: dict[str, object]
) -> None:
    """With strict_parameters all that OpenAI documents is still accepted."""
    assert complete(other_client, **parameters).choices[0].message.content
