"""Every failure as an answer in OpenAI's envelope."""

import logging

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

import metrics
from http_api.errors import PLACES, placed, server_error
from http_api.sending import CLIENT_CLOSED_REQUEST, json_response
from metrics import TALLY
from schemas import APIError, ErrorEnvelope

COMPLETION_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings")

logger = logging.getLogger("bentoml.openai_emulator")


def to_api_error(request: Request, error: Exception) -> APIError:
    """Say in OpenAI's words what went wrong; anything unforeseen is a 500."""
    match error:
        case APIError():
            return placed(error, request.scope.get(PLACES, {}))
        case HTTPException(status_code=404):
            return APIError(f"Invalid URL ({request.method} {request.url.path})", status=404)
        case HTTPException(status_code=405):
            return APIError(
                f"Not allowed to {request.method} on {request.url.path}.",
                status=405,
                code="method_not_supported",
            )
        case _:
            return server_error()


async def handle_error(request: Request, error: Exception) -> Response:
    """Answer every failure with OpenAI's envelope."""
    api_error = to_api_error(request, error)
    if request.url.path in COMPLETION_PATHS:
        code = api_error.body.code or api_error.body.type
        TALLY.add(metrics.ERRORS.labels(api_error.status, code))
        logger.info("completion status=%d error=%s", api_error.status, code)
    response = json_response(request, ErrorEnvelope(error=api_error.body), api_error.status)
    if api_error.status in (408, 413):
        # What is left of the body would be read, and thrown away, for as long as it comes.
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
