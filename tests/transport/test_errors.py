"""The table from pydantic's errors to OpenAI's."""

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emulator.contract.error_words import RULES, request_error
from emulator.control.changes.live_settings import LiveSettings
from schemas import APIError, ChatCompletionRequest, RequestModel
from tests.support.wire import chat


class Sample(RequestModel):
    """Holds the types of field that requests have or, with later parameters, will have."""

    model_config = ConfigDict(from_attributes=True, extra="forbid")

    decimal: float = Field(1, ge=-2, le=2)
    count: int = Field(1, ge=1, le=128)
    mapping: dict[str, int] | None = None
    nested: list[list[int]] | None = None
    effort: Literal["low", "medium", "high"] = "low"
    only: Literal["function"] = "function"
    pair: Literal["auto", "none"] = "auto"


def failure(model: type[BaseModel], value: object) -> ValidationError:
    """Return what pydantic says about a value."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(value)
    return caught.value


def user(content: object) -> dict[str, Any]:
    """Return a request with one message of the user."""
    return chat(messages=[{"role": "user", "content": content}])


def part(value: object) -> dict[str, Any]:
    """Return a request whose only message has one part."""
    return user([value])


def picture(url: object, **rest: object) -> dict[str, Any]:
    """Return a request with one picture."""
    return part({"type": "image_url", "image_url": {"url": url, **rest}})


ROLES = "'system', 'assistant', 'user', 'function', 'tool', and 'developer'"
PARTS = "'text', 'image_url', 'input_audio', and 'file'"

Case = tuple[type[BaseModel], object, str, str | None, str | None]
CASES: dict[str, list[Case]] = {
    "missing": [
        (ChatCompletionRequest, {}, "you must provide a model parameter", None, None),
        (
            ChatCompletionRequest,
            {"model": "m"},
            "Missing required parameter: 'messages'.",
            "messages",
            "missing_required_parameter",
        ),
        (
            ChatCompletionRequest,
            chat(messages=[{"role": "user"}]),
            "Missing required parameter: 'messages[0].content'.",
            "messages[0].content",
            "missing_required_parameter",
        ),
        (
            ChatCompletionRequest,
            part({"type": "image_url", "image_url": {}}),
            "Missing required parameter: 'messages[0].content[0].image_url.url'.",
            "messages[0].content[0].image_url.url",
            "missing_required_parameter",
        ),
    ],
    "string_type": [
        (
            ChatCompletionRequest,
            chat(model=None),
            "Invalid type for 'model': expected a string, but got null instead.",
            "model",
            "invalid_type",
        ),
        (
            ChatCompletionRequest,
            picture({"a": 1}),
            "Invalid type for 'messages[0].content[0].image_url.url': "
            "expected a string, but got an object instead.",
            "messages[0].content[0].image_url.url",
            "invalid_type",
        ),
    ],
    "int_type": [
        (
            ChatCompletionRequest,
            chat(max_tokens="3"),
            "Invalid type for 'max_tokens': expected an integer, but got a string instead.",
            "max_tokens",
            "invalid_type",
        ),
        (
            ChatCompletionRequest,
            chat(max_completion_tokens=1.5),
            "Invalid type for 'max_completion_tokens': "
            "expected an integer, but got a decimal instead.",
            "max_completion_tokens",
            "invalid_type",
        ),
        (
            ChatCompletionRequest,
            chat(max_tokens=True),
            "Invalid type for 'max_tokens': expected an integer, but got a boolean instead.",
            "max_tokens",
            "invalid_type",
        ),
        (
            Sample,
            {"nested": [[1], [2, "3"]]},
            "Invalid type for 'nested[1][1]': expected an integer, but got a string instead.",
            "nested[1][1]",
            "invalid_type",
        ),
    ],
    "float_type": [
        (
            Sample,
            {"decimal": "1"},
            "Invalid type for 'decimal': expected a decimal, but got a string instead.",
            "decimal",
            "invalid_type",
        )
    ],
    "bool_type": [
        (
            ChatCompletionRequest,
            chat(stream=1),
            "Invalid type for 'stream': expected a boolean, but got an integer instead.",
            "stream",
            "invalid_type",
        )
    ],
    "list_type": [
        (
            ChatCompletionRequest,
            chat(messages={}),
            "Invalid type for 'messages': expected an array, but got an object instead.",
            "messages",
            "invalid_type",
        )
    ],
    "tuple_type": [
        (
            LiveSettings,
            {"models": {}},
            "Invalid type for 'models': expected an array, but got an object instead.",
            "models",
            "invalid_type",
        )
    ],
    "dict_type": [
        (
            Sample,
            {"mapping": [1]},
            "Invalid type for 'mapping': expected an object, but got an array instead.",
            "mapping",
            "invalid_type",
        )
    ],
    "model_type": [
        (
            ChatCompletionRequest,
            [],
            "Invalid type: expected an object, but got an array instead.",
            None,
            "invalid_type",
        ),
        (
            ChatCompletionRequest,
            chat(stream=True, stream_options="usage"),
            "Invalid type for 'stream_options': expected an object, but got a string instead.",
            "stream_options",
            "invalid_type",
        ),
    ],
    "model_attributes_type": [
        (
            Sample,
            5,
            "Invalid type: expected an object, but got an integer instead.",
            None,
            "invalid_type",
        )
    ],
    "too_long": [
        (
            ChatCompletionRequest,
            chat(stop=["a"] * 5),
            "Invalid 'stop': array too long. Expected an array with maximum length 4, "
            "but got an array with length 5 instead.",
            "stop",
            "array_above_max_length",
        ),
        (
            ChatCompletionRequest,
            chat(metadata={str(i): "x" for i in range(17)}),
            "Invalid 'metadata': too many properties. Expected an object with at most "
            "16 properties, but got an object with 17 properties instead.",
            "metadata",
            "object_above_max_properties",
        ),
    ],
    "string_too_long": [
        (
            ChatCompletionRequest,
            chat(metadata={"key": "x" * 513}),
            "Invalid 'metadata.key': string too long. Expected a string with maximum length 512, "
            "but got a string with length 513 instead.",
            "metadata.key",
            "string_above_max_length",
        )
    ],
    "string_pattern_mismatch": [
        (
            ChatCompletionRequest,
            chat(tools=[{"type": "function", "function": {"name": "a b"}}]),
            "Invalid 'tools[0].function.name': string does not match pattern. "
            "Expected a string that matches the pattern '^[a-zA-Z0-9_-]{1,64}$'.",
            "tools[0].function.name",
            "invalid_value",
        )
    ],
    "extra_forbidden": [
        (Sample, {"extra": 1}, "Unknown parameter: 'extra'.", "extra", "unknown_parameter")
    ],
    "wrong_json_type": [
        (
            ChatCompletionRequest,
            user(5),
            "Invalid type for 'messages[0].content': "
            "expected one of a string or array of objects, but got an integer instead.",
            "messages[0].content",
            "invalid_type",
        ),
        (
            ChatCompletionRequest,
            user(None),
            "Invalid type for 'messages[0].content': "
            "expected one of a string or array of objects, but got null instead.",
            "messages[0].content",
            "invalid_type",
        ),
    ],
    "unknown_variant": [
        (
            ChatCompletionRequest,
            chat(messages=[{"role": "x"}]),
            f"Invalid value: 'x'. Supported values are: {ROLES}.",
            "messages[0].role",
            "invalid_value",
        ),
        (
            ChatCompletionRequest,
            part({"type": "x"}),
            f"Invalid value: 'x'. Supported values are: {PARTS}.",
            "messages[0].content[0].type",
            "invalid_value",
        ),
        (
            ChatCompletionRequest,
            chat(messages=["hi"]),
            "Invalid type for 'messages[0]': expected an object, but got a string instead.",
            "messages[0]",
            "invalid_type",
        ),
        (
            ChatCompletionRequest,
            chat(messages=[{"role": 5}]),
            "Invalid type for 'messages[0].role': expected a string, but got an integer instead.",
            "messages[0].role",
            "invalid_type",
        ),
        (
            ChatCompletionRequest,
            chat(messages=[{"content": "x"}]),
            "Missing required parameter: 'messages[0].role'.",
            "messages[0].role",
            "missing_required_parameter",
        ),
    ],
    "literal_error": [
        (
            ChatCompletionRequest,
            picture("http://x/y", detail="medium"),
            "Invalid value: 'medium'. Supported values are: 'auto', 'low', 'high', and 'original'.",
            "messages[0].content[0].image_url.detail",
            "invalid_value",
        ),
        (
            ChatCompletionRequest,
            picture("http://x/y", detail=1),
            "Invalid type for 'messages[0].content[0].image_url.detail': "
            "expected a string, but got an integer instead.",
            "messages[0].content[0].image_url.detail",
            "invalid_type",
        ),
        (
            Sample,
            {"pair": "x"},
            "Invalid value: 'x'. Supported values are: 'auto' and 'none'.",
            "pair",
            "invalid_value",
        ),
        (
            Sample,
            {"only": "x"},
            "Invalid value: 'x'. Supported value is: 'function'.",
            "only",
            "invalid_value",
        ),
    ],
    "greater_than_equal": [
        (
            ChatCompletionRequest,
            chat(max_tokens=0),
            "Invalid 'max_tokens': integer below minimum value. "
            "Expected a value >= 1, but got 0 instead.",
            "max_tokens",
            "integer_below_min_value",
        ),
        (
            Sample,
            {"decimal": -2.5},
            "Invalid 'decimal': decimal below minimum value. "
            "Expected a value >= -2, but got -2.5 instead.",
            "decimal",
            "decimal_below_min_value",
        ),
    ],
    "less_than_equal": [
        (
            Sample,
            {"decimal": 200},
            "Invalid 'decimal': decimal above maximum value. "
            "Expected a value <= 2, but got 200 instead.",
            "decimal",
            "decimal_above_max_value",
        ),
        (
            Sample,
            {"count": 129},
            "Invalid 'count': integer above maximum value. "
            "Expected a value <= 128, but got 129 instead.",
            "count",
            "integer_above_max_value",
        ),
    ],
    "too_short": [
        (
            ChatCompletionRequest,
            chat(messages=[]),
            "Invalid 'messages': empty array. Expected an array with minimum length 1, "
            "but got an empty array instead.",
            "messages",
            "empty_array",
        ),
        (
            ChatCompletionRequest,
            user([]),
            "Invalid 'messages[0].content': empty array. Expected an array with minimum length 1, "
            "but got an empty array instead.",
            "messages[0].content",
            "empty_array",
        ),
    ],
    "string_too_short": [
        (ChatCompletionRequest, chat(model=""), "you must provide a model parameter", None, None)
    ],
    "refused": [
        (
            ChatCompletionRequest,
            chat(stream_options={}),
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            "stream_options",
            None,
        ),
        (
            ChatCompletionRequest,
            picture("ftp://x/y"),
            "Invalid image URL. Expected an http(s) URL or a base64 data URL "
            "(data:image/png;base64,...), but got 'ftp://x/y' instead.",
            "messages[0].content[0].image_url.url",
            "invalid_image_url",
        ),
    ],
    "finite_number": [
        (
            Sample,
            {"decimal": float("inf")},
            "Invalid 'decimal': number out of range. Expected a number that a double can hold, "
            "but got a larger one instead.",
            "decimal",
            "invalid_value",
        )
    ],
    "beyond_double": [
        (
            ChatCompletionRequest,
            chat(
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"enum": [1, {"a": -float("inf")}]}},
                }
            ),
            "Invalid 'response_format.json_schema.schema.enum[1].a': number out of range. Expected "
            "a number that a double can hold, but got a larger one instead.",
            "response_format.json_schema.schema.enum[1].a",
            "invalid_value",
        )
    ],
}


@pytest.mark.parametrize(
    ("kind", "case"), [(kind, case) for kind, cases in CASES.items() for case in cases]
)
def test_errors_in_openais_words(kind: str, case: Case) -> None:
    """Each error of pydantic's becomes OpenAI's message, param and code."""
    model, value, message, param, code = case
    fault = failure(model, value)
    error = request_error(fault)
    assert fault.errors()[0]["type"] == kind
    assert (error.status, error.body.type) == (400, "invalid_request_error")
    assert (error.body.message, error.body.param, error.body.code) == (message, param, code)


def test_every_rule_has_a_case() -> None:
    """No row of the table is untested."""
    assert set(CASES) == set(RULES)


def test_first_fault_is_told() -> None:
    """Of several faults the first is told, by the order of the parameters."""
    error = request_error(failure(ChatCompletionRequest, {"messages": [], "max_tokens": 0}))
    assert error.body.message == "you must provide a model parameter"


def test_error_without_a_rule() -> None:
    """An error that the table does not know still names its parameter."""

    class Odd(BaseModel):
        """Has a constraint that no request has."""

        number: int = Field(0, multiple_of=5)

    error = request_error(failure(Odd, {"number": 3}))
    assert (error.status, error.body.param) == (400, "number")
    assert "multiple of 5" in error.body.message


def test_error_holds_its_message() -> None:
    """An API error is an exception whose text is what the client is told."""
    error = APIError("no such thing", param="x", code="y", status=404)
    assert str(error) == error.body.message == "no such thing"
