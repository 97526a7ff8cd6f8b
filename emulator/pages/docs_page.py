"""The OpenAPI document, generated from the pydantic models, and the page that shows it offline."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from emulator.apis.chat.answer import ChatCompletion, ChatCompletionChunk, CompletionList
from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.completions.schema import Completion, CompletionRequest
from emulator.apis.embeddings.schema import EmbeddingList, EmbeddingRequest
from emulator.apis.models.schema import Health, Model, ModelList
from emulator.apis.moderations.schema import ModerationList, ModerationRequest
from emulator.apis.responses.schema.answer import CompactedResponse, InputTokens, ResponseEvent
from emulator.apis.responses.schema.answer import Response as ResponseObject
from emulator.apis.responses.schema.request import (
    CompactRequest,
    InputTokensRequest,
    ResponsesRequest,
)
from emulator.contract.errors import ErrorEnvelope
from emulator.contract.headers import EmulationHeaders
from emulator.control.operations import NAME, Operation
from emulator.faults.asking import FaultHeaders
from emulator.transport.bentoml_seam import swagger_ui

_REF = "#/components/schemas/{model}"
_REQUESTS: list[type[BaseModel]] = [
    ChatCompletionRequest,
    CompactRequest,
    CompletionRequest,
    EmbeddingRequest,
    InputTokensRequest,
    ModerationRequest,
    ResponsesRequest,
]
_RESPONSES: list[type[BaseModel]] = [
    ChatCompletion,
    ChatCompletionChunk,
    CompactedResponse,
    Completion,
    CompletionList,
    EmbeddingList,
    ErrorEnvelope,
    Health,
    InputTokens,
    Model,
    ModelList,
    ModerationList,
    ResponseEvent,
    ResponseObject,
]

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <title>OpenAI API Emulator</title>
  <link rel="stylesheet" href="docs/assets/swagger-ui.css">
</head>
<body>
  <div id="ui"></div>
  <script src="docs/assets/swagger-ui-bundle.js"></script>
  <script>SwaggerUIBundle({url: "openapi.json", dom_id: "#ui", validatorUrl: null})</script>
</body>
</html>
"""


def openapi(version: str, control: Sequence[Operation] = ()) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of this version.

    Args:
        version: The emulator's.
        control: What can be asked to control it.
    """
    bodies = dict.fromkeys(each.body for each in control if each.body is not None)
    answers = dict.fromkeys(each.answer for each in control)
    models = [(model, "validation") for model in (*_REQUESTS, *bodies)]
    models += [(model, "serialization") for model in (*_RESPONSES, *answers)]
    _, schemas = models_json_schema(models, ref_template=_REF)  # type: ignore[arg-type]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OpenAI API Emulator",
            "version": version,
            "description": "OpenAI's API with no model behind it, on a clock that you set.",
        },
        "paths": {
            "/v1/chat/completions": {
                "post": _generation(
                    "Create a chat completion",
                    ChatCompletionRequest,
                    ChatCompletion,
                    _chunks(ChatCompletionChunk),
                ),
                "get": _lookup("List the stored chat completions: none", CompletionList),
            },
            "/v1/completions": {
                "post": _generation(
                    "Create a legacy completion",
                    CompletionRequest,
                    Completion,
                    _chunks(Completion),
                )
            },
            "/v1/responses": {
                "post": _generation(
                    "Create a response", ResponsesRequest, ResponseObject, _RESPONSE_STREAM
                )
            },
            "/v1/responses/compact": {
                "post": _posted("Compact a conversation", CompactRequest, CompactedResponse)
                | {"parameters": _headers()}
            },
            "/v1/responses/input_tokens": {
                "post": _posted("Count the input of a response", InputTokensRequest, InputTokens)
            },
            "/v1/responses/{id}": {
                "get": _stored("Find a stored response: there is none"),
                "delete": _stored("Delete a stored response: there is none"),
            },
            "/v1/responses/{id}/input_items": {
                "get": _stored("List the input of a stored response: there is none")
            },
            "/v1/embeddings": {
                "post": _posted("Embed texts", EmbeddingRequest, EmbeddingList)
                | {"parameters": _headers()}
            },
            "/v1/moderations": {
                "post": _posted("Moderate texts and pictures", ModerationRequest, ModerationList)
                | {"parameters": _headers()}
            },
            "/v1/models": {"get": _lookup("List the models", ModelList)},
            "/v1/models/{model}": {
                "get": {
                    **_lookup("Describe one model", Model),
                    "parameters": [_path_parameter("model")],
                }
            },
            "/health": {"get": _lookup("Tell that the service is up", Health)},
            **_controlling(control),
        },
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"control_key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}


def _json(description: str, model: type[BaseModel]) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": _ref(model)}},
    }


def _lookup(summary: str, answer: type[BaseModel]) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {
            "200": _json("The answer", answer),
            "default": _json("What went wrong", ErrorEnvelope),
        },
    }


def _controlling(operations: Sequence[Operation]) -> dict[str, dict[str, Any]]:
    """Describe the operations below /emulator."""
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        found = (
            _lookup(each.summary, each.answer)
            if each.body is None
            else _posted(each.summary, each.body, each.answer)
        )
        content = found["responses"]["200"]["content"]
        content[each.media_type] = content.pop("application/json")
        parameters = [_path_parameter("name")] if NAME in each.path else []
        parameters += [
            {"name": name, "in": "query", "description": what, "schema": {"type": "string"}}
            for name, what in each.query.items()
        ]
        if each.method != "GET":
            revision = {"type": "string", "description": "the revision that is expected to hold"}
            parameters.append({"name": "If-Match", "in": "header", "schema": revision})
        if not each.is_open:
            found["security"] = [{}, {"control_key": []}]
        paths.setdefault(each.path, {})[each.method.lower()] = found | (
            {"parameters": parameters} if parameters else {}
        )
    return paths


def _path_parameter(name: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _stored(summary: str) -> dict[str, Any]:
    """Describe an operation on what is not stored."""
    return {
        "summary": summary,
        "parameters": [_path_parameter("id")],
        "responses": {"default": _json("What went wrong", ErrorEnvelope)},
    }


def _posted(summary: str, request: type[BaseModel], answer: type[BaseModel]) -> dict[str, Any]:
    operation = _lookup(summary, answer)
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": _ref(request)}},
    }
    return operation


def _chunks(model: type[BaseModel]) -> str:
    return f"Events of the form 'data: ' and a {model.__name__}, then 'data: [DONE]'."


_RESPONSE_STREAM = "Events of the form 'event: ' and a type, then 'data: ' and a ResponseEvent."


def _generation(
    summary: str, request: type[BaseModel], answer: type[BaseModel], stream: str
) -> dict[str, Any]:
    operation = _posted(summary, request, answer)
    events = {"schema": {"type": "string", "description": stream}}
    operation["responses"]["200"]["content"]["text/event-stream"] = events
    operation["parameters"] = _headers()
    return operation


def _headers() -> list[dict[str, Any]]:
    """Describe the X-* headers."""
    parameters = []
    models: tuple[type[BaseModel], ...] = (EmulationHeaders, FaultHeaders)
    properties = [model.model_json_schema()["properties"].items() for model in models]
    for name, schema in chain.from_iterable(properties):
        # A header is absent rather than null.
        [kind] = [option for option in schema.pop("anyOf", [{}]) if option.get("type") != "null"]
        if schema.get("default") is None:
            schema.pop("default", None)
        description = schema.pop("description")
        schema.pop("title")
        parameters.append(
            {"name": name, "in": "header", "description": description, "schema": schema | kind}
        )
    return parameters


def routes(version: str, control: Sequence[Operation]) -> list[BaseRoute]:
    """Return the routes of /openapi.json and /docs."""
    document = openapi(version, control)

    async def serve_document(_: Request) -> Response:
        return JSONResponse(document)

    async def serve_page(_: Request) -> Response:
        return HTMLResponse(_PAGE, headers={"content-security-policy": _POLICY})

    # BentoML ships Swagger UI, so that the page needs nothing from the internet.
    assets = swagger_ui()
    if assets is None:
        return [Route("/openapi.json", serve_document)]
    return [
        Route("/openapi.json", serve_document),
        Route("/docs", serve_page),
        Mount("/docs/assets", StaticFiles(directory=assets)),
    ]
