"""The OpenAPI document, generated from the pydantic models, and the page that shows it offline."""

from itertools import chain
from pathlib import Path
from typing import Any

import bentoml
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from faults.asking import FaultHeaders
from schemas import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    Completion,
    CompletionRequest,
    EmulationHeaders,
    ErrorEnvelope,
    Health,
    Model,
    ModelList,
)

_REF = "#/components/schemas/{model}"
_REQUESTS: list[type[BaseModel]] = [ChatCompletionRequest, CompletionRequest]
_RESPONSES: list[type[BaseModel]] = [
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    ErrorEnvelope,
    Health,
    Model,
    ModelList,
]

# BentoML ships Swagger UI, so that the page needs nothing from the internet.
_SWAGGER_UI = Path(bentoml.__file__).parent / "_internal" / "server" / "static_content"
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
  <script>SwaggerUIBundle({url: "openapi.json", dom_id: "#ui"})</script>
</body>
</html>
"""


def openapi(version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of this version."""
    models = [(model, "validation") for model in _REQUESTS]
    models += [(model, "serialization") for model in _RESPONSES]
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
                    ChatCompletionChunk,
                )
            },
            "/v1/completions": {
                "post": _generation(
                    "Create a legacy completion", CompletionRequest, Completion, Completion
                )
            },
            "/v1/models": {"get": _lookup("List the models", ModelList)},
            "/v1/models/{model}": {
                "get": {
                    **_lookup("Describe one model", Model),
                    "parameters": [
                        {
                            "name": "model",
                            "in": "path",
                            "required": True,
                            "schema": {"type": "string", "minLength": 1},
                        }
                    ],
                }
            },
            "/health": {"get": _lookup("Tell that the service is up", Health)},
        },
        "components": {"schemas": schemas["$defs"]},
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


def _generation(
    summary: str, request: type[BaseModel], answer: type[BaseModel], chunk: type[BaseModel]
) -> dict[str, Any]:
    operation = _lookup(summary, answer)
    stream = {
        "schema": {
            "type": "string",
            "description": f"Events of the form 'data: ' and a {chunk.__name__}, "
            "then 'data: [DONE]'.",
        }
    }
    operation["responses"]["200"]["content"]["text/event-stream"] = stream
    operation["parameters"] = _headers()
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": _ref(request)}},
    }
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


def routes(version: str) -> list[BaseRoute]:
    """Return the routes of /openapi.json and /docs."""
    document = openapi(version)

    async def serve_document(_: Request) -> Response:
        return JSONResponse(document)

    async def serve_page(_: Request) -> Response:
        return HTMLResponse(_PAGE)

    return [
        Route("/openapi.json", serve_document),
        Route("/docs", serve_page),
        Mount("/docs/assets", StaticFiles(directory=_SWAGGER_UI)),
    ]
