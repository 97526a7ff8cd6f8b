"""From a request's bytes to its body and its X-* headers, checked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import TypeGuard, TypeVar

import numpy as np
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from emulator.contract.bodies import ModelRequest, RequestModel
from emulator.contract.bounds import MAX_MODEL_LENGTH
from emulator.contract.error_words import overloaded, placed, request_error, unknown_parameter
from emulator.contract.errors import APIError
from emulator.contract.headers import EmulationHeaders
from emulator.emulation.header_fields import (
    FAULT_NAMES,
    body_headers,
    check_headers,
    field_name,
    header_fields,
)
from emulator.emulation.profiles import Profiles
from emulator.helpers.pool import close
from emulator.helpers.spool import Spool
from emulator.prompts.attachments import shorten_attachments
from emulator.settings import Settings
from emulator.timing.clock import running_clock
from emulator.transport.sending import Deadline

# To parse and to check what has no more bytes, or these with no more values, keys and escapes,
# takes under 0.5 ms whatever it holds. An escape takes a sixteenth of what a value does.
MAX_BYTES_SURELY_LIGHT = 4096
MAX_BYTES_READ_INLINE = 131_072
MAX_NODES_READ_INLINE = 1024
ESCAPES_OF_A_NODE = 16

MAX_JSON_NODES = 1_250_000
# A larger body goes into a spool as it comes, which a helper reads.
MAX_BYTES_KEPT = 1 << 20
# What the bodies that have arrived in part, or wait for a helper, may take in a worker.
MAX_BYTES_HELD = 512_000_000

_COUNTED_AT_ONCE = 1 << 17  # bytes
_HELD = "emulator.held"
_SPOOL = "emulator.spool"
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOWHERE: Mapping[str, str] = {}

AnyRequest = TypeVar("AnyRequest", bound=RequestModel)


class BodyReader:
    """Takes the bodies of requests, each within the time and the size that a body may have."""

    def __init__(self, settings: Settings) -> None:
        self._limit = int(settings.max_body_mb * 1_000_000)
        self._timeout_s = settings.timeout_s
        self._deadline = Deadline(settings.timeout_s)
        self._held = 0

    async def read(self, request: Request) -> bytes | bytearray | Spool:
        """Return the body of a request; one that comes in parts takes room until its `release`.

        Raises:
            APIError: Too large, too slow, or too much beside those of others.
            ClientDisconnect: The client went away.
        """
        try:
            with self._deadline:
                body = await self._read(request)
            request.scope["size"] = len(body)
            if MAX_BYTES_SURELY_LIGHT < len(body) <= MAX_BYTES_READ_INLINE:
                # Of many that come at once, as many are read in one go as take a millisecond.
                await running_clock().turn()
        except TimeoutError:
            self.give_up(request)
            raise APIError(
                f"The request body did not arrive within {self._timeout_s:g} s.",
                status=408,
                code="request_timeout",
            ) from None
        except BaseException:
            self.give_up(request)
            raise
        return body

    def release(self, request: Request) -> None:
        """Note that the body of a request is not needed any more."""
        if _HELD in request.scope:
            self._held -= request.scope.pop(_HELD)

    async def _read(self, request: Request) -> bytes | bytearray | Spool:
        scope, limit = request.scope, self._limit
        declared = int(header_fields(scope).get(b"content-length", 0))
        if declared > limit:
            raise _too_large(limit, declared)
        body: bytearray | Spool = bytearray()
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part, is_last = message.get("body", b""), not message.get("more_body", False)
            size = len(body) + len(part)
            if size > limit:
                raise _too_large(limit, size)
            if body:  # it comes in parts, maybe slowly
                scope["body_s"] = monotonic()
            elif is_last:
                return bytes(part)
            if isinstance(body, bytearray) and max(declared, size) > MAX_BYTES_KEPT:
                body = scope[_SPOOL] = Spool(body)
            body += part
            if is_last:
                return body
            self._hold(request, len(part))

    def give_up(self, request: Request) -> None:
        """Let go of what has come of a body that nobody will read."""
        self.release(request)
        spool = request.scope.get(_SPOOL)
        if spool is not None:
            close(spool)

    def _hold(self, request: Request, size: int) -> None:
        self._held += size
        request.scope[_HELD] = request.scope.get(_HELD, 0) + size
        if self._held > MAX_BYTES_HELD:
            raise overloaded(in_body=True)


def _too_large(limit: int, size: int) -> APIError:
    return APIError(
        f"The request body is too large. Expected at most {limit} bytes, but got {size} or more.",
        status=413,
        code="request_too_large",
    )


def parse_json(body: bytes | bytearray) -> object:
    """Return what JSON says.

    Raises:
        APIError: It is none, or has more values than a request may have.
    """
    refuse_many_nodes(body)
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError:
        raise APIError("We could not parse the JSON body of your request.") from None


def parse_body(
    body: bytes | bytearray, model: type[AnyRequest], *, strict: bool = False
) -> AnyRequest:
    """Check a request; where it is `strict`, for parameters that OpenAI does not have too.

    Raises:
        APIError: Not JSON, or not what the schema asks for.
    """
    data = parse_json(body)
    try:
        request = model.model_validate(data, extra="forbid" if strict else "ignore")
    except ValidationError as error:
        raise request_error(error) from None
    if strict and request.extensions:
        raise unknown_parameter(request.extensions[0])
    return request


def parse_any_body(
    body: bytes | bytearray, model: type[AnyRequest], *, strict: bool = False
) -> AnyRequest:
    """Check a request of any size, whose attachments are cut out first.

    Raises:
        APIError: Not JSON, more of it than a request may have, or not what the schema asks for.
    """
    if len(body) > MAX_BYTES_READ_INLINE:
        body = shorten_attachments(body)
    return parse_body(body, model, strict=strict)


def refuse_many_nodes(body: bytes | bytearray) -> None:
    """Refuse JSON of more values and keys than a request may have: each takes memory.

    Raises:
        APIError: It has more.
    """
    if len(body) <= MAX_JSON_NODES or count_nodes(body) <= MAX_JSON_NODES:
        return
    if count_nodes(_STRING.sub(b"", body)) <= MAX_JSON_NODES:
        return
    raise APIError(
        f"Invalid body: too many values. Expected JSON with at most {MAX_JSON_NODES} values and "
        "keys, but got more instead.",
        code="json_too_large",
    )


def count_nodes(body: bytes | bytearray) -> int:
    """Return at least how many values and keys some JSON has; marks in its texts count too."""
    return _count(body, b",:[{")


def _count(body: bytes | bytearray, marks: bytes) -> int:
    """Return how often some bytes stand in a body, in a third of the time of `bytes.count`."""
    content = np.frombuffer(body, np.uint8)
    pieces = [content[at : at + _COUNTED_AT_ONCE] for at in range(0, len(body), _COUNTED_AT_ONCE)]
    return sum(int(np.count_nonzero(piece == mark)) for piece in pieces for mark in marks)


def is_light(body: bytes | bytearray | Spool) -> TypeGuard[bytes | bytearray]:
    """Tell whether to parse and to check a body takes but a moment, whatever it holds."""
    size = len(body)
    if size <= MAX_BYTES_SURELY_LIGHT:
        return True  # no spool is so small
    if isinstance(body, Spool) or size > MAX_BYTES_READ_INLINE:
        return False
    return count_nodes(body) + _count(body, b"\\") // ESCAPES_OF_A_NODE <= MAX_NODES_READ_INLINE


def named_model(body: bytes | bytearray) -> str:
    """Return the model of a body that was refused; empty if it names none or either is large."""
    try:
        data = from_json(body) if is_light(body) else None
    except ValueError:
        return ""
    name = data.get("model") if isinstance(data, dict) else None
    return name if isinstance(name, str) and len(name) <= MAX_MODEL_LENGTH else ""


# --------------------------------------------------------------------------------------
# Headers
# --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Asked:
    """What is asked for by X-* headers, by the body or by a profile in their place.

    Args:
        emulation: The checked headers, but for those of failures.
        faults: Those of failures, if there are any.
        places: Where those stand that did not come as headers, for errors that name them.
    """

    emulation: EmulationHeaders
    faults: Mapping[str, str] | None
    places: Mapping[str, str]

    @property
    def says_no_time(self) -> bool:
        """Whether it asks for no time, so that an engine may make the times."""
        return self.emulation.ttft_ms is None and self.emulation.itl_ms is None


def parse_headers(
    given: Mapping[str, str], body: ModelRequest, profiles: Profiles | None = None
) -> Asked:
    """Read and check the X-* headers, what the body says in their place, and the profile's.

    Raises:
        APIError: One of them is not a number or out of its range, or the body names no header.
    """
    places: Mapping[str, str] = _NOWHERE
    if profiles is not None or body.emulation:
        given, places = with_defaults(given, body, profiles)
    faults = None
    if not FAULT_NAMES.isdisjoint(given):
        faults = {name: value for name, value in given.items() if name in FAULT_NAMES}
        given = {name: value for name, value in given.items() if name not in FAULT_NAMES}
    try:
        return Asked(check_headers(given), faults, places)
    except APIError as error:
        raise placed(error, places) from None


def with_defaults(
    given: Mapping[str, str], asked: ModelRequest, profiles: Profiles | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the headers with those that the body or the profile stands in for, and their places.

    Raises:
        APIError: The body names no header, or gives one a list or an object.
    """
    profile = profiles.of(asked.model) if profiles is not None else {}
    body = body_headers(asked.emulation or {})
    places = {name: f"profile.{field_name(name)}" for name in profile}
    places |= {name: f"emulation.{field_name(name)}" for name in body}
    return {**profile, **body, **given}, {n: at for n, at in places.items() if n not in given}
