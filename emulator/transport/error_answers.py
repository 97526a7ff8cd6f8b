"""Every failure as an answer in OpenAI's envelope."""

import logging

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from emulator import metrics
from emulator.contract.error_words import PLACES, placed, server_error
from emulator.contract.errors import APIError, ErrorEnvelope
from emulator.metrics import TALLY
from emulator.transport.sending import CLIENT_CLOSED_REQUEST, json_response

COMPLETION_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings")

_ENDS = ("/chat/completions", "/completions", "/responses", "/embeddings", "/models")

logger = logging.getLogger("bentoml.openai_emulator")


def to_api_error(request: Request, error: Exception) -> APIError:
    """Say in OpenAI's words what went wrong; anything unforeseen is a 500."""
    match error:
        case APIError():
            return placed(error, request.scope.get(PLACES, {}))
        case HTTPException(status_code=404):
            url = f"Invalid URL ({request.method} {request.scope['path']})"
            return APIError(url + _right_url(request), status=404)
        case HTTPException(status_code=405):
            return APIError(
                f"Not allowed to {request.method} on {request.scope['path']}.",
                status=405,
                code="method_not_supported",
            )
        case _:
            return server_error()


def _right_url(request: Request) -> str:
    """Say what base URL is right, where a client seems to have a wrong one; else nothing."""
    if not request.scope["path"].endswith(_ENDS):
        return ""
    host, port = request.scope.get("server") or ("localhost", None)
    named = request.headers.get("host") or (f"{host}:{port}" if port else host)
    return f". Did you mean the base URL {request.scope['scheme']}://{named}/v1?"


async def handle_error(request: Request, error: Exception) -> Response:
    """Answer every failure with OpenAI's envelope."""
    api_error = to_api_error(request, error)
    if request.scope["path"] in COMPLETION_PATHS:
        code = api_error.body.code or api_error.body.type
        TALLY.add(metrics.ERRORS.labels(api_error.status, code))
        logger.info("completion status=%d error=%s", api_error.status, code)
    response = json_response(request, ErrorEnvelope(error=api_error.body), api_error.status)
    if api_error.status in (408, 413) or not isinstance(error, APIError | HTTPException):
        # What is left of the body would be read, and thrown away, for as long as it comes. After
        # a fault of our own the server ends the connection, which the client has to know.
        response.headers["connection"] = "close"
    response.headers.update(api_error.headers)
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)
    return response


async def handle_disconnect(_: Request, __: Exception) -> Response:
    """End the exchange with a client that went away before its answer began."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer any failure, for what does not go through Starlette."""
    handle = handle_disconnect if isinstance(error, ClientDisconnect) else handle_error
    return await handle(request, error)
