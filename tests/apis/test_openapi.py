"""The OpenAPI document and its page, and the server held against the document."""

import copy
import re
from collections import Counter
from typing import Any
from urllib.parse import urljoin

import httpx
import jsonschema
import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

from emulator.apis.responses.schema.request import ResponsesRequest
from emulator.faults.asking import FaultHeaders
from schemas import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
    EmulationHeaders,
    ModerationRequest,
)
from tests.support.wire import CHAT_PATH, chat, headers

INSTANT = {"X-TTFT-MS": "0", "X-ITL-MS": "0", "X-OUTPUT-LENGTH": "2"}


@pytest.fixture(scope="module")
def document(http: httpx.Client) -> dict[str, Any]:
    """Return the server's OpenAPI document."""
    answer: dict[str, Any] = http.get("/openapi.json").json()
    return answer


# --------------------------------------------------------------------------------------
# The document
# --------------------------------------------------------------------------------------


def test_every_api_is_described(document: dict[str, Any]) -> None:
    """The document describes every API of the emulator."""
    paths = {path: item for path, item in document["paths"].items() if "/emulator" not in path}
    operations = {(method.upper(), path) for path, item in paths.items() for method in item}
    assert operations == {
        ("POST", CHAT_PATH),
        ("GET", CHAT_PATH),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/moderations"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/responses/compact"),
        ("POST", "/v1/responses/input_tokens"),
        ("GET", "/v1/responses/{id}"),
        ("DELETE", "/v1/responses/{id}"),
        ("GET", "/v1/responses/{id}/input_items"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/{model}"),
        ("GET", "/health"),
    }


@pytest.mark.parametrize(
    "model",
    [
        ChatCompletionRequest,
        CompletionRequest,
        EmbeddingRequest,
        ModerationRequest,
        ResponsesRequest,
    ],
)
def test_every_parameter_is_described(document: dict[str, Any], model: type[Any]) -> None:
    """The document has every parameter of a request."""
    described = document["components"]["schemas"][model.__name__]["properties"]
    assert set(described) == {field.alias or name for name, field in model.model_fields.items()}


@pytest.mark.parametrize(
    "path", [CHAT_PATH, "/v1/completions", "/v1/embeddings", "/v1/moderations", "/v1/responses"]
)
def test_every_header_is_described(document: dict[str, Any], path: str) -> None:
    """The document has every X-* header with what it is for, and every number with its range."""
    described = {p["name"]: p for p in document["paths"][path]["post"]["parameters"]}
    fields = [*EmulationHeaders.model_fields.values(), *FaultHeaders.model_fields.values()]
    assert set(described) == {field.alias for field in fields}
    schemas = [parameter["schema"] for parameter in described.values()]
    numbers = [schema for schema in schemas if schema["type"] in ("integer", "number")]
    assert len(numbers) == 8 + 7
    assert all({"minimum", "maximum"} <= set(schema) for schema in numbers)
    assert all(p["in"] == "header" and p["description"] for p in described.values())


def test_document_describes_the_example(document: dict[str, Any], http: httpx.Client) -> None:
    """A request is valid for the document's request, and its answer for the document's answer."""
    parts = {"components": document["components"]}
    response = {"model": "gpt-4", "input": "hi"}
    answers = [
        http.post(path, json=body, headers=headers()).json()
        for path, body in ((CHAT_PATH, chat()), ("/v1/responses", response))
    ]
    for name, value in (
        ("ChatCompletionRequest", chat()),
        ("ChatCompletion", answers[0]),
        ("ResponsesRequest", response),
        ("Response", answers[1]),
    ):
        schema = {"$ref": f"#/components/schemas/{name}", **parts}
        jsonschema.Draft202012Validator(schema).validate(value)


# --------------------------------------------------------------------------------------
# The page
# --------------------------------------------------------------------------------------


def test_page_is_served_with_its_assets(http: httpx.Client) -> None:
    """/docs is a page whose style, script and document are served from this machine."""
    page = http.get("/docs")
    assets = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    answers = [http.get(urljoin("/docs", asset)) for asset in [*assets, "openapi.json"]]
    assert page.headers["content-type"].startswith("text/html")
    assert len(assets) == 2
    assert [answer.status_code for answer in answers] == [200] * 3
    assert [answer.headers["content-type"].partition(";")[0] for answer in answers] == [
        "text/css",
        "text/javascript",
        "application/json",
    ]


def test_page_needs_no_internet(http: httpx.Client) -> None:
    """The page names no other machine."""
    assert not re.search(r"https?:|//\w", http.get("/docs").text)


# --------------------------------------------------------------------------------------
# The server held against the document
# --------------------------------------------------------------------------------------


def without_failures(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document without the headers that ask the server to fail."""
    harmless = copy.deepcopy(document)
    for item in harmless["paths"].values():
        for operation in item.values():
            parameters = operation.get("parameters", [])
            operation["parameters"] = [p for p in parameters if "X-FAULT" not in p["name"]]
    return harmless


@pytest.mark.parametrize("examples", [4, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("method", "path", "mode", "expected"),
    [
        ("POST", CHAT_PATH, GenerationMode.POSITIVE, 200),
        ("POST", CHAT_PATH, GenerationMode.NEGATIVE, 400),
        ("POST", "/v1/completions", GenerationMode.POSITIVE, 200),
        ("POST", "/v1/completions", GenerationMode.NEGATIVE, 400),
        ("POST", "/v1/responses", GenerationMode.POSITIVE, 200),
        ("POST", "/v1/responses", GenerationMode.NEGATIVE, 400),
        ("POST", "/v1/responses/compact", GenerationMode.POSITIVE, 200),
        ("POST", "/v1/responses/input_tokens", GenerationMode.POSITIVE, 200),
        ("POST", "/v1/embeddings", GenerationMode.POSITIVE, 200),
        ("POST", "/v1/embeddings", GenerationMode.NEGATIVE, 400),
        ("POST", "/v1/moderations", GenerationMode.POSITIVE, 200),
        ("POST", "/v1/moderations", GenerationMode.NEGATIVE, 400),
        ("GET", "/v1/models/{model}", GenerationMode.POSITIVE, 200),
    ],
)
def test_no_request_breaks_the_server(
    document: dict[str, Any],
    base_url: str,
    method: str,
    path: str,
    mode: GenerationMode,
    expected: int,
    examples: int,
) -> None:
    """Whatever valid or invalid request comes, the answer is no 5xx and as the document says."""
    statuses: Counter[int] = Counter()
    api = schemathesis.openapi.from_dict(without_failures(document))
    api.config.update(base_url=base_url)
    operation = api[path][method]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def answers_as_described(case: schemathesis.Case[Any]) -> None:
        response = case.call(headers=INSTANT, timeout=300)
        statuses[response.status_code] += 1
        assert response.status_code < 500, response.text
        if "text/event-stream; charset=utf-8" not in response.headers["content-type"]:
            operation.validate_response(response)

    answers_as_described()
    assert statuses[expected] >= examples / 15


# --------------------------------------------------------------------------------------
# The rest of the client
# --------------------------------------------------------------------------------------


def test_raw_responses(client: openai.OpenAI) -> None:
    """with_raw_response gives OpenAI's headers beside the parsed answer."""
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-4", messages=[{"role": "user", "content": "hi"}], extra_headers=headers()
    )
    answer = raw.parse()
    assert raw.headers["openai-version"] == "2020-10-01"
    assert int(raw.headers["openai-processing-ms"]) >= 0
    assert raw.headers["x-request-id"] == answer._request_id
    assert answer.choices[0].message.content


def test_stream_helper_events(client: openai.OpenAI) -> None:
    """The stream helper tells of each token, of the end of the text, and of each chunk."""
    with client.chat.completions.stream(
        model="gpt-4",
        messages=[{"role": "user", "content": "hi"}],
        extra_headers=headers(output_length=7),
    ) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    deltas = [e.delta for e in events if e.type == "content.delta" and e.delta]
    [done] = [e.content for e in events if e.type == "content.done"]
    assert len(deltas) == 7
    assert done == "".join(deltas) == final.choices[0].message.content
    assert final.choices[0].finish_reason == "stop"


@pytest.mark.anyio
async def test_asynchronous_stream_helper(async_client: openai.AsyncOpenAI) -> None:
    """The asynchronous client's stream helper does the same."""
    async with async_client.chat.completions.stream(
        model="gpt-4",
        messages=[{"role": "user", "content": "hi"}],
        extra_headers=headers(output_length=7),
    ) as stream:
        deltas = [e.delta async for e in stream if e.type == "content.delta" and e.delta]
    assert len(deltas) == 7


@pytest.mark.anyio
async def test_asynchronous_errors(async_client: openai.AsyncOpenAI) -> None:
    """The asynchronous client raises the same errors."""
    with pytest.raises(openai.BadRequestError) as caught:
        await async_client.chat.completions.create(
            model="gpt-4", messages=[{"role": "user", "content": "hi"}], n=0
        )
    assert (caught.value.param, caught.value.code) == ("n", "integer_below_min_value")
