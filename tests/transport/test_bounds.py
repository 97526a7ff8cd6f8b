"""Bounds of what a body may hold: each refused by name, at no more cost than a good request."""

import base64
import json
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

import tokenizer
from emulator.answers.composing import MAX_VALUES_OF_ALL_CHOICES, Composer
from emulator.answers.corpus import Corpus
from emulator.apis.chat.asking import chat_ask
from emulator.apis.responses.schema.request import ResponsesRequest
from emulator.contract.bounds import (
    MAX_ALL_CHOICES,
    MAX_ID_LENGTH,
    MAX_LABEL_LENGTH,
    MAX_LOGIT_BIASES,
    MAX_MESSAGES,
    MAX_MODEL_LENGTH,
    MAX_NAME_LENGTH,
    MAX_PARTS,
    MAX_PROMPT_TOKENS,
    MAX_PROMPTS,
    MAX_STRING_LENGTH,
    MAX_TOOLS,
)
from emulator.reading.bodies import parse_body
from emulator.schema_instances import SchemaError, dumps, instance, least_values
from emulator.timing.plan import GenerationPlan
from schemas import (
    APIError,
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
    EmulationHeaders,
    RequestModel,
)
from tests.support.reference import cpu_s, here_s, least
from tests.support.wire import chat

HI = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f"}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
TEXT = {"type": "text", "text": "x"}
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="10.5" height="3"></svg>'


def legacy(prompt: object, **parameters: object) -> dict[str, Any]:
    """Return a legacy request."""
    return {"model": "m", "prompt": prompt, **parameters}


def response(**parameters: object) -> dict[str, Any]:
    """Return a Responses request."""
    return {"model": "m", "input": "x", **parameters}


def said(content: object) -> dict[str, Any]:
    """Return a chat with one message."""
    return chat(messages=[{"role": "user", "content": content}])


def calling(count: int, **changes: object) -> dict[str, Any]:
    """Return a chat with so many calls in one message."""
    return chat(messages=[HI, {"role": "assistant", "tool_calls": [{**CALL, **changes}] * count}])


def error_of(body: dict[str, Any], model: type[RequestModel]) -> APIError:
    """Return the error that a body gets."""
    with pytest.raises(APIError) as caught:
        parse_body(json.dumps(body).encode(), model)
    return caught.value


Sized = tuple[type[RequestModel], int, str, Callable[[int], dict[str, Any]]]
CHAT, LEGACY, EMBEDDING, RESPONSE = (
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
    ResponsesRequest,
)
ARRAYS: list[Sized] = [
    (CHAT, MAX_MESSAGES, "messages", lambda n: chat(messages=[HI] * n)),
    (CHAT, MAX_PARTS, "messages[0].content", lambda n: said([TEXT] * n)),
    (CHAT, MAX_TOOLS, "messages[1].tool_calls", calling),
    (CHAT, MAX_TOOLS, "tools", lambda n: chat(tools=[TOOL] * n)),
    (CHAT, MAX_TOOLS, "functions", lambda n: chat(functions=[TOOL["function"]] * n)),
    (LEGACY, MAX_PROMPTS, "prompt", lambda n: legacy(["x"] * n)),
    (LEGACY, MAX_PROMPTS, "prompt", lambda n: legacy([[1]] * n)),
    (LEGACY, MAX_PROMPT_TOKENS, "prompt", lambda n: legacy([1] * n)),
    (EMBEDDING, 2048, "input", lambda n: {"model": "m", "input": ["x"] * n}),
    (RESPONSE, MAX_MESSAGES, "input", lambda n: response(input=[HI] * n)),
    (RESPONSE, MAX_TOOLS, "tools", lambda n: response(tools=[{"type": "mcp"}] * n)),
]
STRINGS: list[Sized] = [
    (CHAT, MAX_MODEL_LENGTH, "model", lambda n: chat(model="x" * n)),
    (LEGACY, MAX_MODEL_LENGTH, "model", lambda n: legacy("x", model="x" * n)),
    (EMBEDDING, MAX_MODEL_LENGTH, "model", lambda n: {"model": "x" * n, "input": "x"}),
    (RESPONSE, MAX_MODEL_LENGTH, "model", lambda n: response(model="x" * n)),
    (CHAT, MAX_STRING_LENGTH, "messages[0].content", lambda n: said("x" * n)),
    (
        CHAT,
        MAX_STRING_LENGTH,
        "messages[0].content[0].text",
        lambda n: said([{**TEXT, "text": "x" * n}]),
    ),
    (CHAT, MAX_LABEL_LENGTH, "user", lambda n: chat(user="x" * n)),
    (CHAT, MAX_NAME_LENGTH, "messages[0].name", lambda n: chat(messages=[{**HI, "name": "x" * n}])),
    (CHAT, MAX_ID_LENGTH, "messages[1].tool_calls[0].id", lambda n: calling(1, id="x" * n)),
    (LEGACY, MAX_STRING_LENGTH, "prompt[1]", lambda n: legacy(["x", "x" * n])),
    (EMBEDDING, MAX_STRING_LENGTH, "input", lambda n: {"model": "m", "input": "x" * n}),
    (RESPONSE, MAX_STRING_LENGTH, "instructions", lambda n: response(instructions="x" * n)),
    (RESPONSE, MAX_STRING_LENGTH, "input", lambda n: response(input="x" * n)),
]


@pytest.mark.parametrize(
    ("kind", "sized"), [("array", s) for s in ARRAYS] + [("string", s) for s in STRINGS]
)
def test_what_is_too_long_is_refused(kind: str, sized: Sized) -> None:
    """The longest that is allowed is taken, and one more is refused as OpenAI refuses it."""
    model, most, param, make = sized
    parse_body(json.dumps(make(most)).encode(), model)
    error = error_of(make(most + 1), model)
    article = "an" if kind == "array" else "a"
    assert error.body.message == (
        f"Invalid '{param}': {kind} too long. Expected {article} {kind} with maximum length "
        f"{most}, but got {article} {kind} with length {most + 1} instead."
    )
    assert (error.body.param, error.body.code) == (param, f"{kind}_above_max_length")


def test_choices_of_all_prompts_are_bounded() -> None:
    """Prompts times n is at most so much, however it is made up."""
    parse_body(json.dumps(legacy(["x"] * (MAX_ALL_CHOICES // 128), n=128)).encode(), LEGACY)
    error = error_of(legacy(["x"] * (MAX_ALL_CHOICES // 128 + 1), n=128), LEGACY)
    assert (error.body.param, error.body.code) == ("n", "integer_above_max_value")
    assert f"at most {MAX_ALL_CHOICES}" in error.body.message


def test_token_ids_of_all_prompts_are_bounded() -> None:
    """Many lists of token ids hold no more of them than one."""
    error = error_of(legacy([[1] * (MAX_PROMPT_TOKENS // 2)] * 2 + [[1]]), LEGACY)
    assert (error.body.param, error.body.code) == ("prompt", "array_above_max_length")


def test_logit_biases_are_bounded() -> None:
    """There are so many of them at most, each for a token id."""
    error = error_of(chat(logit_bias={str(i): 1 for i in range(MAX_LOGIT_BIASES + 1)}), CHAT)
    assert (error.body.param, error.body.code) == ("logit_bias", "object_above_max_properties")
    error = error_of(chat(logit_bias={"1": 1, "hello": 1}), CHAT)
    assert error.body.message == (
        "Invalid key in 'logit_bias': hello. You should only be submitting non-negative integers."
    )


def test_breakpoint_has_a_mode() -> None:
    """A cache breakpoint without its mode is refused."""
    error = error_of(said([{**TEXT, "prompt_cache_breakpoint": {}}]), CHAT)
    name = "messages[0].content[0].prompt_cache_breakpoint.mode"
    assert (error.body.param, error.body.code) == (name, "missing_required_parameter")


def test_model_is_told_first() -> None:
    """However many messages are faulty, a missing model is told."""
    body: dict[str, Any] = {"messages": [{}] * 2000}
    assert error_of(body, CHAT).body.message == "you must provide a model parameter"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('"temperature": 1e999', "temperature"),
        ('"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": [1e999]}}}]',
         "tools[0].function.parameters.a[0]"),
        ('"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": '
         '{"const": -1e999}}}', "response_format.json_schema.schema.const"),
    ],
)  # fmt: skip
def test_numbers_beyond_a_double_are_refused_by_name(body: str, param: str) -> None:
    """A number that no double holds is told with its path."""
    whole = f'{{"model": "m", "messages": [{{"role": "user", "content": "x"}}], {body}}}'
    with pytest.raises(APIError) as caught:
        parse_body(whole.encode(), CHAT)
    assert (caught.value.body.param, caught.value.body.code) == (param, "invalid_value")


def test_texts_that_say_infinity_are_no_numbers() -> None:
    """A schema may speak of Infinity."""
    schema = {"type": "object", "description": "Infinity", "properties": {"Infinity": {}}}
    named = {"name": "x", "schema": schema}
    body = chat(response_format={"type": "json_schema", "json_schema": named})
    assert parse_body(json.dumps(body).encode(), CHAT)


def test_messages_of_errors_are_short() -> None:
    """What a client sent is told in short, however long it is."""
    for body in (
        chat(messages=[{"role": "x" * 10**6}]),
        chat(metadata={"x" * 10**6: 1}),
        chat(logit_bias={"x" * 10**6: 1}),
        chat(max_tokens=-(10**4000)),
    ):
        error = error_of(body, CHAT).body
        assert len(error.message) + len(error.param or "") < 2000


# --------------------------------------------------------------------------------------
# Costs
# --------------------------------------------------------------------------------------


def checking_s(model: type[RequestModel], body: bytes) -> float:
    """Return the CPU time that checking takes beyond parsing."""

    def check() -> None:
        with pytest.raises(APIError):
            parse_body(body, model)

    return cpu_s(check) - cpu_s(lambda: from_json(body))


@pytest.mark.parametrize(
    ("model", "start", "member", "end"),
    [
        (CHAT, '{"model":"m","messages":[', "{}", "]}"),
        (CHAT, '{"model":"m","messages":[', '{"role":"user","content":""}', "]}"),
        (CHAT, '{"model":"m","messages":[{"role":"user","content":[', "{}", "]}]}"),
        (CHAT, '{"model":"m","tools":[', "{}", "]}"),
        (LEGACY, '{"model":"m","prompt":[', '"x"', "]}"),
        (LEGACY, '{"model":"m","prompt":[', "[1]", "]}"),
        (RESPONSE, '{"model":"m","input":[', "{}", "]}"),
        (RESPONSE, '{"model":"m","input":"x","include":[', '""', "]}"),
        (RESPONSE, '{"model":"m","input":[{"type":"reasoning","summary":[', "1", "]}]}"),
    ],
)
def test_long_arrays_cost_no_more_than_to_parse(
    model: type[RequestModel], start: str, member: str, end: str
) -> None:
    """600 KB of faulty members, which took 0.6 s, are refused as soon as they are parsed."""
    body = (start + ",".join([member] * (600_000 // (len(member) + 1))) + end).encode()
    most_s = here_s(0.1)
    assert least(lambda: checking_s(model, body), below=most_s) < most_s


def test_faults_of_an_array_are_not_gathered() -> None:
    """The first of 2,000 faulty messages is told, and the others are not looked at."""
    body = json.dumps(chat(messages=[{}] * 2000)).encode()
    most_s = here_s(0.002)
    assert least(lambda: checking_s(CHAT, body), below=most_s) < most_s


# --------------------------------------------------------------------------------------
# Schemas
# --------------------------------------------------------------------------------------

FULL = {"type": "array", "minItems": 4900, "items": {"type": "integer"}}
OBJECT = {"type": "object", "properties": {"a": FULL}, "required": ["a"]}


@pytest.mark.parametrize(
    ("schema", "least"),
    [
        ({}, 1),
        (True, 1),
        (OBJECT, 4902),
        ({"type": ["array", "null"], "minItems": 5}, 1),
        ({"anyOf": [FULL, {"type": "null"}]}, 1),
        ({"allOf": [FULL, {}]}, 4901),
        ({"$ref": "#/$defs/x", "$defs": {"x": FULL}}, 4901),
        ({"$ref": "#"}, 1),
        ({"type": "array", "minItems": 3, "prefixItems": [FULL], "items": {}}, 4904),
        ({"type": "array", "minItems": "many"}, 1),
        ({"type": "array", "minItems": 10, "items": {"type": "array", "minItems": 10}}, 111),
    ],
)
def test_least_values(schema: dict[str, Any] | bool, least: int) -> None:
    """What each instance has is counted without making one."""
    assert least_values(schema) == least


def composed(**parameters: object) -> int:
    """Return how many choices a request gets."""
    named = {"name": "x", "schema": OBJECT}
    body = chat(response_format={"type": "json_schema", "json_schema": named}, **parameters)
    request = ChatCompletionRequest.model_validate(body)
    tokenizer.locate_vocabularies()
    plan, none = GenerationPlan(20, "stop", 0.1, 0.05), EmulationHeaders.model_validate({})
    composer = Composer(chat_ask(request), plan, Corpus(), [], none)
    return len(composer.compose())


def test_choices_times_instances_are_refused_before_they_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """128 instances of 4,900 items, which took seconds, are refused at once; two are made."""
    monkeypatch.setattr(
        "emulator.schema_instances.limits.MAX_INSTANCE_S", 10
    )  # a slow machine takes 0.3
    with pytest.raises(APIError) as caught:
        composed(n=128)

    def refuse() -> None:
        with pytest.raises(APIError):
            composed(n=128)

    most_s = here_s(0.2)
    assert least(lambda: cpu_s(refuse), below=most_s) < most_s
    assert (caught.value.body.param, caught.value.body.code) == ("n", "integer_above_max_value")
    assert str(MAX_VALUES_OF_ALL_CHOICES) in caught.value.body.message
    assert composed(n=2) == 2


@pytest.mark.parametrize("digits", [100, 299, 308])
def test_thousands_of_steps_cost_little(digits: int) -> None:
    """A schema of up to 0.95 MB with 3,000 multipleOf is refused or answered in no time."""
    rng = random.Random(1)
    steps = [{"multipleOf": rng.randrange(10**digits) + 1} for _ in range(3000)]

    def refuse() -> None:
        for schema in ({"allOf": steps}, {"allOf": [{"allOf": steps[i::4]} for i in range(4)]}):
            with pytest.raises(SchemaError):
                instance(schema, random.Random(1))

    assert least(lambda: cpu_s(refuse), below=1) < 1


# --------------------------------------------------------------------------------------
# What nobody thought of
# --------------------------------------------------------------------------------------

LARGE = [10**299, 10**308, 10**309, 10**4000, 2**63, float("inf"), -float("inf"), 1e308]
SMALL = [0, -1, 1, 3, 4900, 1.5, 5e-324, 1.234567e300, 1e-300]
NUMBERS = st.sampled_from([*LARGE, *SMALL])
LEAVES = st.none() | st.booleans() | NUMBERS | st.sampled_from(["", "x", "a-b", "1", "[", "\\p"])
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "x", "1", ""]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
SEEDS: list[tuple[type[RequestModel], dict[str, Any]]] = [
    (CHAT, chat(tools=[TOOL], tool_choice="auto", logit_bias={"1": 1}, stop=["a"], n=2)),
    (CHAT, said([TEXT, {"type": "image_url", "image_url": {"url": "http://x", "detail": "low"}}])),
    (CHAT, chat(messages=[HI, {"role": "assistant", "content": None, "tool_calls": [CALL]}])),
    (
        CHAT,
        chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}),
    ),
    (CHAT, chat(functions=[TOOL["function"]], function_call={"name": "f"}, metadata={"a": "b"})),
    (LEGACY, legacy([[1, 2], [3]], n=2, best_of=2, logprobs=1)),
    (LEGACY, legacy(["a", "b"], echo=True, suffix="x")),
    (EMBEDDING, {"model": "m", "input": [[1, 2]], "dimensions": 3}),
    (RESPONSE, response(input=[HI, {"type": "item_reference", "id": "x"}], include=[])),
    (
        RESPONSE,
        response(
            tools=[{"type": "function", "name": "f", "parameters": {}}, {"type": "mcp"}],
            text={"format": {"type": "json_schema", "name": "x", "schema": {}}},
            reasoning={"effort": "low"},
        ),
    ),
]


def mutated(value: Any, draw: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - any JSON
    """Return JSON with one value in it replaced, dropped or repeated."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 3)) == 0:
        return draw(JSON)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys))
    kind = draw(st.integers(0, 5))
    if isinstance(value, dict):
        if kind == 0:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: mutated(value[key], draw)}
    if kind == 0:
        return value * draw(st.sampled_from([0, 2, 200]))
    return [mutated(item, draw) if at == key else item for at, item in enumerate(value)]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SEEDS), st.data(), st.booleans())
def test_mutated_requests_are_valid_or_refused(
    seed: tuple[type[RequestModel], dict[str, Any]], data: st.DataObject, strict: bool
) -> None:
    """Whatever is changed in a good request, it is valid or gets an error of the envelope."""
    model, body = seed
    body = mutated(body, data.draw)
    text = json.dumps(body).replace("-Infinity", "-1e999").replace("Infinity", "1e999")
    try:
        request = parse_body(text.encode(), model, strict=strict)
    except APIError as error:
        fault = error
    else:
        assert isinstance(request, model)
        return
    assert fault.status == 400
    assert len(fault.body.message) < 2000


KEYWORDS = (
    "multipleOf",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "const",
    "minItems",
    "maxLength",
)
SCHEMAS = st.recursive(
    st.dictionaries(st.sampled_from(KEYWORDS), NUMBERS, max_size=3)
    | st.builds(lambda kind: {"type": kind}, st.sampled_from(["integer", "number", "array"])),
    lambda inner: (
        st.builds(
            lambda keyword, parts: {keyword: parts},
            st.sampled_from(["allOf", "anyOf", "oneOf"]),
            st.lists(inner, min_size=1, max_size=4),
        )
        | st.builds(lambda part: {"type": "array", "minItems": 2, "items": part}, inner)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(SCHEMAS)
def test_schemas_of_odd_numbers_have_an_instance_or_an_error(schema: dict[str, Any]) -> None:
    """Numbers at the ends of a double's range make an instance or an error, in little time."""

    def make() -> None:
        with suppress(SchemaError):
            json.loads(dumps(instance(schema, random.Random(1))))
        assert least_values(schema) >= 1

    took_s = cpu_s(make)
    assert took_s < 2 or least(lambda: cpu_s(make), below=2) < 2


# --------------------------------------------------------------------------------------
# On a server
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("padding", [0, 20_000])
def test_svg_under_a_pictures_type_is_refused(
    http: httpx.Client, padding: int, stream: bool
) -> None:
    """An SVG that calls itself a PNG is a 400, also where the prompt is counted later."""
    svg = base64.b64encode(SVG + b" " * padding).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{svg}"}}
    options = {"stream_options": {"include_usage": True}} if stream else {}
    answer = http.post("/v1/chat/completions", json=said([part]) | {"stream": stream, **options})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "image_parse_error"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat(stream=True)),
        ("/v1/completions", legacy("x")),
        ("/v1/responses", response()),
        ("/v1/responses/input_tokens", response()),
        ("/v1/embeddings", {"input": "x"}),
        ("/tokenize", {"prompt": "x"}),
        ("/tokenize", {"messages": [HI]}),
        ("/detokenize", {"tokens": [1]}),
    ],
)
def test_long_model_is_refused_everywhere(
    http: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    """A name of a model of 1 MB is a 400 wherever it stands."""
    error = http.post(path, json={**body, "model": "x" * 1_000_000})
    assert error.status_code == 400
    assert error.json()["error"]["code"] == "string_above_max_length"
    assert len(error.content) < 1000


def test_long_model_is_refused_in_a_path(http: httpx.Client) -> None:
    """The id of a model is as long as its name."""
    assert http.get(f"/v1/models/{'x' * MAX_MODEL_LENGTH}").status_code == 200
    error = http.get(f"/v1/models/{'x' * (MAX_MODEL_LENGTH + 1)}")
    assert (error.status_code, error.json()["error"]["param"]) == (400, "model")
