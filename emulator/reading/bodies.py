"""The bodies of requests: taken within bounds, parsed and checked."""

import asyncio
import os
import re
from time import monotonic
from typing import Literal, TypeGuard, TypeVar

import numpy as np
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect

from emulator.contract.bodies import RequestModel
from emulator.contract.bounds import MAX_MODEL_LENGTH
from emulator.contract.error_words import overloaded, unknown_parameter
from emulator.contract.errors import APIError
from emulator.dialects.dialect import OPENAI, Dialect
from emulator.helpers.pool import close
from emulator.helpers.spool import Spool
from emulator.prompts.attachments import shorten_attachments
from emulator.reading.encodings import (
    MAX_BYTES_DECODED_INLINE,
    decoded,
    encoding_of,
    refuse_other_types,
    too_large,
)
from emulator.timing.clock import running_clock
from emulator.transport.direct_write import arrived_body
from emulator.transport.exchange import Exchange

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
# What the journal keeps of a body, where it keeps any.
MAX_BYTES_KEPT = 65_536
MAX_BYTES_HELD = 512_000_000

_COUNTED_AT_ONCE = 1 << 17  # bytes
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)

AnyRequest = TypeVar("AnyRequest", bound=RequestModel)


class ReceivedBody:
    """The body of one request, and its share of the memory for all bodies.

    ``encoding`` is how it is encoded, None for plain JSON.
    """

    __slots__ = ("_held", "_reader", "content", "encoding")

    def __init__(self, reader: "BodyReader") -> None:
        self._reader = reader
        self._held = 0
        self.content: bytes | bytearray | Spool = b""
        self.encoding: str | None = None

    def decode(self) -> None:
        """Decode the content if that takes but a moment; what has to be done yet is `encoding`.

        Raises:
            APIError: It is not encoded as it says.
        """
        content = self.content
        if self.encoding is None or isinstance(content, Spool):
            return
        if len(content) <= MAX_BYTES_DECODED_INLINE:
            plain = decoded(content, self.encoding, MAX_BYTES_DECODED_INLINE)
            if plain is not None:
                self.content, self.encoding = plain, None

    def hold(self, size: int) -> None:
        """Take more room.

        Raises:
            APIError: There is none.
        """
        self._held += size
        self._reader.held += size
        if self._reader.held > MAX_BYTES_HELD:
            raise overloaded(in_body=True)

    def release(self) -> None:
        """Give the room back: the content is read, or is a helper's by now."""
        self._reader.held -= self._held
        self._held = 0

    def give_up(self) -> None:
        """Let go of a body that nobody will read."""
        self.release()
        if isinstance(self.content, Spool):
            close(self.content)


def _beginning(body: ReceivedBody) -> bytes:
    """Return the beginning of a body, for the journal; nothing of one that is encoded."""
    if body.encoding is not None:
        return b""
    if isinstance(body.content, Spool):
        return os.pread(body.content.fd, MAX_BYTES_KEPT, 0)
    return bytes(body.content[:MAX_BYTES_KEPT])


class BodyReader:
    """Takes the bodies of requests, each within the time and the size that a body may have.

    ``held`` is how many bytes have arrived in part, or wait for a helper.

    Args:
        limit: The most bytes of a body.
        timeout_s: The longest that one may take to arrive.
    """

    def __init__(self, limit: int, timeout_s: float) -> None:
        self._limit = limit
        self._timeout_s = timeout_s
        self.held = 0

    async def read(self, exchange: Exchange) -> ReceivedBody:
        """Return the body of a request; one that comes in parts takes room until its `release`.

        Raises:
            APIError: Too large, too slow, or too much beside those of others.
            ClientDisconnect: The client went away.
        """
        body = ReceivedBody(self)
        try:
            content = arrived_body(exchange.receive)
            if content is not None and len(content) <= self._limit:
                body.content = content
            else:
                async with asyncio.timeout(self._timeout_s):
                    await self._read(exchange, body, content or b"")
            exchange.state.dialect.refuse_head(exchange.fields)
            refuse_other_types(exchange.fields)
            body.encoding = encoding_of(exchange.fields)
            body.decode()
            exchange.size = size = len(body.content)
            if exchange.state.settings.journal_bodies:
                exchange.body = _beginning(body)
            if MAX_BYTES_SURELY_LIGHT < size <= MAX_BYTES_READ_INLINE:
                # Of many that come at once, as many are read in one go as take a millisecond.
                await running_clock().turn()
        except TimeoutError:
            body.give_up()
            raise APIError(
                f"The request body did not arrive within {self._timeout_s:g} s.",
                status=408,
                code="request_timeout",
            ) from None
        except BaseException:
            body.give_up()
            raise
        return body

    async def _read(self, exchange: Exchange, body: ReceivedBody, begun: bytes) -> None:
        """Take a body part by part; too much of it may have `begun`."""
        limit = self._limit
        declared = int(exchange.fields.get(b"content-length", len(begun)))
        if declared > limit:
            raise too_large(limit, declared)
        content: bytearray | Spool | None = None
        while True:
            message = await exchange.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part, is_last = message.get("body", b""), not message.get("more_body", False)
            size = len(part) if content is None else len(content) + len(part)
            if size > limit:
                raise too_large(limit, size)
            if content is None:
                if is_last:
                    body.content = part
                    return
                content = body.content = bytearray()
            else:  # it comes in parts, maybe slowly
                exchange.arrival_s = monotonic()
            if isinstance(content, bytearray) and max(declared, size) > MAX_BYTES_KEPT:
                content = body.content = Spool(content)
            content += part
            if is_last:
                return
            body.hold(len(part))


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
    body: bytes | bytearray,
    model: type[AnyRequest],
    *,
    path: str = "",
    dialect: Dialect = OPENAI,
    strict: bool = False,
    default_model: str = "",
) -> AnyRequest:
    """Check a request; where it is `strict`, for parameters that OpenAI does not have too.

    A request whose API lets it leave out its model gets the `default_model`. The `dialect` may
    refuse it by rules of its own, by the `path` that it came to.

    Raises:
        APIError: Not JSON, or not what the schema asks for.
    """
    try:
        data = parse_json(body)
    except APIError as error:
        raise dialect.unreadable(body, error) from None
    data = dialect.prepared(path, data)
    try:
        extra: Literal["forbid", "ignore"] = "forbid" if strict else "ignore"
        request = model.model_validate(data, extra=extra, context=default_model)
    except ValidationError as error:
        raise dialect.invalid(error, data) from None
    if strict and request.extensions:
        raise unknown_parameter(request.extensions[0])
    return request


def parse_any_body(
    body: bytes | bytearray,
    model: type[AnyRequest],
    *,
    path: str = "",
    dialect: Dialect = OPENAI,
    strict: bool = False,
    default_model: str = "",
) -> AnyRequest:
    """Check a request of any size, whose attachments are cut out first.

    Raises:
        APIError: Not JSON, more of it than a request may have, or not what the schema asks for.
    """
    if len(body) > MAX_BYTES_READ_INLINE:
        body = shorten_attachments(body)
    return parse_body(
        body, model, path=path, dialect=dialect, strict=strict, default_model=default_model
    )


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
