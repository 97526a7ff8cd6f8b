"""From a request's bytes to its body and its X-* headers, checked."""

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from http_api.errors import PLACES, request_error, unknown_parameter
from http_api.header_fields import (
    FAULT_NAMES,
    body_headers,
    check_headers,
    field_name,
    given_headers,
)
from http_api.profiles import Profiles
from http_api.sending import Deadline
from prompts.attachments import shorten_attachments
from schemas import APIError, EmulationHeaders, ModelRequest, RequestModel
from settings import Settings

# Larger requests are read in a thread, so that other streams go on.
MAX_BYTES_READ_INLINE = 65_536

AnyRequest = TypeVar("AnyRequest", bound=RequestModel)


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
        try:
            if is_large(request):
                parsed = await asyncio.to_thread(parse_large_body, body, model, strict=strict)
            else:
                parsed = parse_body(body, model, strict=strict)
        except APIError:
            request.scope["model"] = named_model(body)
            raise
        served = parsed.served_model
        request.scope["model"] = served or ""
        if settings.strict_models and served is not None and served not in settings.models:
            raise APIError(
                f"The model `{served}` does not exist or you do not have access to it.",
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
        if body:  # it comes in parts, maybe slowly
            request.scope["body_s"] = monotonic()
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


def named_model(body: bytearray) -> str:
    """Return the model of a body that was refused; empty if it names none or is large."""
    try:
        data = from_json(body) if len(body) <= MAX_BYTES_READ_INLINE else None
    except ValueError:
        return ""
    name = data.get("model") if isinstance(data, dict) else None
    return name if isinstance(name, str) else ""


def is_large(request: Request) -> bool:
    """Tell whether to look through a request whose body has been read takes long."""
    return bool(request.scope["size"] > MAX_BYTES_READ_INLINE)


def parse_headers(
    request: Request, asked: ModelRequest, profiles: Profiles | None = None
) -> EmulationHeaders:
    """Read and check the X-* headers, what the body says in their place, and the profile's.

    Those of failures are left in the request's scope.

    Raises:
        APIError: One of them is not a number or out of its range, or the body names no header.
    """
    given = given_headers(request.scope["headers"])
    if profiles is not None or asked.emulation:
        given = with_defaults(request, given, asked, profiles)
    if not FAULT_NAMES.isdisjoint(given):
        request.scope["fault_headers"] = {n: v for n, v in given.items() if n in FAULT_NAMES}
        given = {name: value for name, value in given.items() if name not in FAULT_NAMES}
    return check_headers(given)


def with_defaults(
    request: Request,
    given: Mapping[str, str],
    asked: ModelRequest,
    profiles: Profiles | None,
) -> dict[str, str]:
    """Return the headers with those that the body or the profile stands in for.

    The request's scope keeps where each of these came from, for errors that name it.

    Raises:
        APIError: The body names no header, or gives one a list or an object.
    """
    profile = profiles.of(asked.model) if profiles is not None else {}
    body = body_headers(asked.emulation or {})
    places = {name: f"profile.{field_name(name)}" for name in profile}
    places |= {name: f"emulation.{field_name(name)}" for name in body}
    request.scope[PLACES] = {name: at for name, at in places.items() if name not in given}
    return {**profile, **body, **given}
