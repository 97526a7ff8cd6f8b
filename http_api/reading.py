"""From a request's bytes to its body and its X-* headers, checked."""

import asyncio
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from faults.asking import FaultHeaders
from http_api.errors import header_error, request_error, unknown_parameter
from http_api.sending import Deadline
from prompts.attachments import shorten_attachments
from schemas import APIError, EmulationHeaders, GenerationRequest
from settings import Settings

# Larger requests are read in a thread, so that other streams go on.
MAX_BYTES_READ_INLINE = 65_536

EMULATION_HEADERS = {
    str(field.alias).lower().encode(): str(field.alias)
    for field in EmulationHeaders.model_fields.values()
}

FAULT_HEADERS = {
    str(field.alias).lower().encode(): str(field.alias)
    for field in FaultHeaders.model_fields.values()
}
HEADER_NAMES = EMULATION_HEADERS | FAULT_HEADERS
_FAULT_NAMES = frozenset(FAULT_HEADERS.values())

AnyRequest = TypeVar("AnyRequest", bound=GenerationRequest)


class RequestReader:
    """Reads and checks the bodies of requests, each within the time that a body has to arrive."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._deadline = Deadline(settings.timeout_s)

    async def read(self, request: Request, model: type[AnyRequest]) -> AnyRequest:
        """Read and check the body of a request.

        Raises:
            APIError: Too large, too slow, malformed, or for a model that does not exist.
            ClientDisconnect: The client went away.
        """
        settings = self._settings
        try:
            with self._deadline:
                body = await read_body(request, int(settings.max_body_mb * 1_000_000))
        except TimeoutError:
            raise APIError(
                f"The request body did not arrive within {settings.timeout_s:g} s.",
                status=408,
                code="request_timeout",
            ) from None
        request.scope["size"] = len(body)
        strict = settings.strict_parameters
        if is_large(request):
            parsed = await asyncio.to_thread(parse_large_body, body, model, strict=strict)
        else:
            parsed = parse_body(body, model, strict=strict)
        if settings.strict_models and parsed.model not in settings.models:
            raise APIError(
                f"The model `{parsed.model}` does not exist or you do not have access to it.",
                status=404,
                code="model_not_found",
            )
        return parsed


async def read_body(request: Request, limit: int) -> bytearray:
    """Return the request's body.

    Raises:
        APIError: The body is, or says that it is, larger than `limit` bytes.
        ClientDisconnect: The client went away.
    """
    declared = next((int(v) for k, v in request.scope["headers"] if k == b"content-length"), 0)
    body = bytearray()
    while max(declared, len(body)) <= limit:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if not message.get("more_body", False) and len(body) <= limit:
            return body
    raise APIError(
        f"The request body is too large. Expected at most {limit} bytes, "
        f"but got {max(declared, len(body))} or more.",
        status=413,
        code="request_too_large",
    )


def parse_body(
    body: bytes | bytearray, model: type[AnyRequest], *, strict: bool = False
) -> AnyRequest:
    """Check a request; where it is `strict`, for parameters that OpenAI does not have too.

    Raises:
        APIError: Not JSON, or not what the schema asks for.
    """
    try:
        data = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise APIError("We could not parse the JSON body of your request.") from None
    try:
        request = model.model_validate(data, extra="forbid" if strict else "ignore")
    except ValidationError as error:
        raise request_error(error) from None
    if strict and request.extensions:
        raise unknown_parameter(request.extensions[0])
    return request


def parse_large_body(body: bytearray, model: type[AnyRequest], *, strict: bool) -> AnyRequest:
    """Check a request in a thread, where no step may keep the streams waiting.

    Raises:
        APIError: Not JSON, or not what the schema asks for.
    """
    return parse_body(shorten_attachments(body), model, strict=strict)


def is_large(request: Request) -> bool:
    """Tell whether to look through a request whose body has been read takes long."""
    return bool(request.scope["size"] > MAX_BYTES_READ_INLINE)


def parse_headers(request: Request) -> EmulationHeaders:
    """Read and check the X-* headers; those of failures are left in the request's scope.

    Raises:
        APIError: A header is not a number or out of its range.
    """
    given = {
        HEADER_NAMES[name]: value.decode("latin-1")
        for name, value in request.scope["headers"]
        if name in HEADER_NAMES
    }
    if not _FAULT_NAMES.isdisjoint(given):
        faults = {name: value for name, value in given.items() if name in _FAULT_NAMES}
        request.scope["fault_headers"] = faults
    try:
        return EmulationHeaders.model_validate(given)
    except ValidationError as error:
        raise header_error(error, EmulationHeaders) from None
