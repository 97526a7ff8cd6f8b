"""One request on its way, and what is known of it by now."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from starlette.types import Receive, Scope

from emulator.contract.errors import ErrorBody, ErrorEnvelope
from emulator.emulation.asked import Asked
from emulator.emulation.header_fields import header_fields
from emulator.limits.keys import Caller
from emulator.state import State
from emulator.transport.ending import Delivery

Envelope: TypeAlias = Callable[[ErrorBody], bytes]
"""Writes an error as the body of an answer, in the form of one API."""


def openai_envelope(error: ErrorBody) -> bytes:
    """Return an error in OpenAI's envelope."""
    return ErrorEnvelope(error=error).model_dump_json().encode()


@dataclass(slots=True, eq=False)
class Exchange:
    """One request and its answer. Each step adds what the later ones need.

    Args:
        scope: The request, as ASGI has it.
        receive: Takes the body, and tells when the client goes away.
        state: The snapshot that answers the request.
        envelope: Writes errors.
        start_s: When the request's headers arrived, on ``time.monotonic()``.
        caller: Who asks, where keys or limits are set.
        model: The model that is asked for, as soon as it is known.
        asked: The X-* headers, as soon as they are read.
        size: The bytes of the body.
        body: The beginning of the body, where the journal keeps it.
        arrival_s: When the last part of the body came, where it came in parts.
        limits_left: Of each limit that it was counted against the kind, what is left, and all.
        limit_lines: The x-ratelimit-* headers, as ready lines.
        rules: The names of the rules that decided something.
        told_lines: More headers of the answer, as ready lines.
        status: The status that the client got; 499 if it went away before its end.
        code: The error's code or type, if there is one.
        request_id: The number in the answer's x-request-id, once that is drawn.
        left_s: When an answer that is not streamed left, on ``time.monotonic()``.
        ended_s: When all was over, on ``time.monotonic()``.
        delivery: The answer, once it is decided on.
        fields: The headers by name; of several of a name the first.
    """

    scope: Scope
    receive: Receive
    state: State
    envelope: Envelope = openai_envelope
    start_s: float = field(default_factory=time.monotonic)
    caller: Caller | None = None
    model: str = ""
    asked: Asked | None = None
    size: int = 0
    body: bytes = b""
    arrival_s: float = 0.0
    limits_left: Sequence[tuple[str, int, int]] = ()
    limit_lines: bytes = b""
    rules: Sequence[str] = ()
    told_lines: bytes = b""
    status: int = 0
    code: str = ""
    request_id: int = 0
    left_s: float = 0.0
    ended_s: float = 0.0
    delivery: Delivery | None = None
    fields: dict[bytes, bytes] = field(init=False)

    def __post_init__(self) -> None:
        """Sort the headers."""
        self.fields = header_fields(self.scope["headers"])

    @property
    def path(self) -> str:
        """The path of the URL."""
        return str(self.scope["path"])

    @property
    def method(self) -> str:
        """The method, in capitals."""
        return str(self.scope["method"])

    def header(self, name: bytes) -> str | None:
        """Return the text of a header, None if it is not there."""
        value = self.fields.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def elapsed_s(self) -> float:
        """The seconds since the start."""
        return time.monotonic() - self.start_s
