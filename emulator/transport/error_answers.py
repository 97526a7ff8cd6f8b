"""Every failure before an answer as an answer of its own, in the API's envelope."""

import logging

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from emulator.contract.absent import absent_endpoint
from emulator.contract.error_words import placed, server_error
from emulator.contract.errors import APIError
from emulator.rules.scripting import ScriptError
from emulator.transport.exchange import Exchange
from emulator.transport.sending import CLIENT_CLOSED_REQUEST, Reply, whole_reply

_ENDS = (
    "/chat/completions",
    "/completions",
    "/responses",
    "/embeddings",
    "/moderations",
    "/models",
)
_NO_PLACES: dict[str, str] = {}

logger = logging.getLogger("bentoml.openai_emulator")


def to_api_error(exchange: Exchange, error: Exception) -> APIError:
    """Say in OpenAI's words what went wrong; anything unforeseen is a 500."""
    match error:
        case APIError():
            return placed(error, exchange.asked.places if exchange.asked else _NO_PLACES)
        case HTTPException(status_code=404) if what := absent_endpoint(exchange.path):
            return APIError(
                f"This emulator has no such endpoint ({exchange.method} {exchange.path}): it does "
                f"not have OpenAI's {what}.",
                status=404,
                code="unsupported_endpoint",
            )
        case HTTPException(status_code=404):
            url = f"Invalid URL ({exchange.method} {exchange.path})"
            return APIError(url + _right_url(exchange), status=404)
        case HTTPException(status_code=405):
            return APIError(
                f"Not allowed to {exchange.method} on {exchange.path}.",
                status=405,
                code="method_not_supported",
            )
        case _:
            return server_error()


def _right_url(exchange: Exchange) -> str:
    """Say what base URL is right, where a client seems to have a wrong one; else nothing."""
    if not exchange.path.endswith(_ENDS):
        return ""
    host, port = exchange.scope.get("server") or ("localhost", None)
    named = exchange.header(b"host") or (f"{host}:{port}" if port else host)
    return f". Did you mean the base URL {exchange.scope['scheme']}://{named}/v1?"


def error_reply(exchange: Exchange, error: Exception) -> Reply:
    """Return the answer to a failure; a fault of our own is logged with its traceback."""
    if isinstance(error, ClientDisconnect):
        exchange.status = CLIENT_CLOSED_REQUEST
        return Reply(CLIENT_CLOSED_REQUEST, [])
    if isinstance(error, ScriptError):
        logger.error("the rule %r failed: %s", error.rule, error.why)
    is_known = isinstance(error, APIError | HTTPException)
    if not is_known:
        logger.error("a request failed", exc_info=error)
    found = to_api_error(exchange, error)
    exchange.status = found.status
    exchange.code = found.body.code or found.body.type
    is_of_route = isinstance(error, HTTPException)
    content = exchange.state.dialect.error(found.body, found.status, is_of_route=is_of_route)
    reply = whole_reply(exchange, content or exchange.envelope(found.body), found.status)
    headers = dict(found.headers)
    if isinstance(error, HTTPException) and error.headers:
        headers |= error.headers
    if found.status in (408, 413) or not is_known:
        # What is left of the body would be read, and thrown away, for as long as it comes. After
        # a fault of our own the server ends the connection, which the client has to know.
        headers["connection"] = "close"
    reply.headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
    ]
    return reply
