"""Bodies that vLLM takes and refuses, beyond those of the goldens."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.completions.schema import CompletionRequest
from emulator.contract.bodies import ModelRequest
from emulator.contract.errors import APIError
from emulator.dialects.vllm import VLLM
from emulator.dialects.vllm_requests import CompletionSampling
from emulator.reading.bodies import parse_body

DIALECT = VLLM(["m", "other"], 4096, ())
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SCHEMAS: dict[str, type[ModelRequest]] = {
    CHAT: ChatCompletionRequest,
    COMPLETIONS: CompletionRequest,
}
Json = dict[str, Any]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["1", "m", "9" * 5000, "-1", "none", "required"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "wizard"]), "content": st.just("hi")})
    | anything,
    max_size=2,
)
names = st.sampled_from(
    [
        *CompletionSampling.model_fields,
        *("stream_options", "structured_outputs", "tools", "tool_choice", "top_logprobs"),
        *("max_completion_tokens", "response_format", "messages"),
    ]
)


def parsed(path: str, body: object) -> Any:  # noqa: ANN401 - of the path's schema
    """Return a body as the API of a path reads it in this dialect."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_body(content, SCHEMAS[path], path=path, dialect=DIALECT)


def refusal(path: str, body: object) -> APIError:
    """Return how a body is refused."""
    with pytest.raises(APIError) as refused:
        parsed(path, body)
    return refused.value


@given(
    path=st.sampled_from([CHAT, COMPLETIONS]),
    fields=st.dictionaries(names, anything, max_size=4),
    said=messages,
    biases=st.dictionaries(st.sampled_from(["1", "9" * 5000, "-1", "a"]), scalars, max_size=2),
)
def test_every_body_is_taken_or_refused(
    path: str, fields: Json, said: list[Any], biases: Json
) -> None:
    """Whatever a body holds, it is read or refused, with vLLM's code and a short message."""
    body = {"messages": said, "prompt": "hi", "logit_bias": biases, **fields}
    told = outcome(path, body)
    if told is not None:
        assert told["code"] in (400, 404)
        assert told["type"] in ("BadRequestError", "NotFoundError", "Bad Request")
        assert len(told["message"]) < 10_000


def outcome(path: str, body: Json) -> Json | None:
    """Return the error that refuses a body, None if it is taken."""
    try:
        parsed(path, body)
    except APIError as error:
        told = DIALECT.error(error.body, error.status, is_of_route=False)
        refused: Json = json.loads(told)["error"]
        return refused
    return None


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"{} x", b"nul"])
def test_what_is_no_json_is_vllms_json_error(body: bytes) -> None:
    """A body that is not JSON is refused as pydantic would tell it."""
    told = DIALECT.error(refusal(CHAT, body).body, 400, is_of_route=False)
    assert json.loads(told)["error"]["type"] == "Bad Request"


def test_texts_of_numbers_are_numbers() -> None:
    """A number may come as a text, as pydantic reads it."""
    chat = parsed(CHAT, {"messages": [{"role": "user", "content": "hi"}], "max_tokens": "7"})
    assert (chat.max_tokens, chat.model) == (7, "m")


def test_faults_are_counted_and_placed() -> None:
    """All faults of types are told at once, in the order of vLLM's fields."""
    error = refusal(CHAT, {"messages": [], "n": "b", "temperature": "a", "stop": [1]}).body
    assert error.message.startswith("4 validation errors:\n  {'type': 'int_parsing'")
    assert error.param == "body.n"


def test_context_counts_what_a_limit_asks_for() -> None:
    """A limit above the context is refused whatever the prompt is."""
    error = refusal(COMPLETIONS, {"prompt": "hi", "max_tokens": 4097}).body
    assert error.param == "max_tokens"
    assert parsed(COMPLETIONS, {"prompt": "hi", "max_tokens": 4096}).max_tokens == 4096
