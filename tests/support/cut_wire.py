"""A client for answers that are cut: all bytes, their times, and how the connection ended."""

import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from tests.support.wire import CHAT_PATH, chat

HeadersOf = Mapping[str, str]

PATIENCE_S = 60.0
# How long nothing comes of an answer that is to stall before others are asked, and how many.
STALL_S, OTHERS = 0.05, 5
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Endpoint:
    """One API: how it is asked, and what of its stream is a token.

    ``last`` is what the last event holds; without a seed each answer has other words.
    ``error_events`` end a stream that fails with the kind error; `error` reads the first of them.
    """

    path: str
    body: Callable[[bool], dict[str, Any]]
    is_token: Callable[[dict[str, Any]], bool]
    last: str
    error: Callable[[bytes], dict[str, Any]]
    has_seed: bool = True
    error_events: int = 1

    def __str__(self) -> str:
        """Name it in a test's id."""
        return self.path.removeprefix("/v1/").replace("/", "-")


def envelope(event: bytes) -> dict[str, Any]:
    """Return the error of an event that holds OpenAI's envelope and nothing else."""
    (name,) = parsed = json.loads(event.removeprefix(b"data: "))
    assert name == "error"
    error: dict[str, Any] = parsed[name]
    return error


def _choice(event: dict[str, Any]) -> dict[str, Any]:
    choice: dict[str, Any] = (event.get("choices") or [{}])[0]
    return choice


CHAT = Endpoint(
    CHAT_PATH,
    lambda stream: chat(stream=stream, seed=7),
    lambda event: bool(_choice(event).get("delta", {}).get("content")),
    last="[DONE]",
    error=envelope,
)
LEGACY = Endpoint(
    "/v1/completions",
    lambda stream: {"model": "gpt-4", "prompt": "Hello!", "stream": stream, "seed": 7},
    lambda event: bool(_choice(event).get("text")),
    last="[DONE]",
    error=envelope,
)


def _error_of_response(event: bytes) -> dict[str, Any]:
    """Return the error of an event named error."""
    name, _, payload = event.partition(b"\ndata: ")
    assert name == b"event: error"
    error: dict[str, Any] = json.loads(payload)
    return error


RESPONSES = Endpoint(
    "/v1/responses",
    lambda stream: {"model": "gpt-4", "input": "Hello!", "stream": stream},
    lambda event: event.get("type") == "response.output_text.delta",
    last="response.completed",
    error=_error_of_response,
    has_seed=False,
    error_events=2,
)
EMBEDDINGS = Endpoint(
    "/v1/embeddings",
    lambda _: {"model": "text-embedding-3-small", "input": "Hello!"},
    lambda _: False,
    last="",
    error=envelope,
)
# An API whose answers can fail is one entry here; embeddings are never streamed.
ENDPOINTS: Sequence[Endpoint] = (CHAT, LEGACY, RESPONSES)
WHOLE_ENDPOINTS: Sequence[Endpoint] = (*ENDPOINTS, EMBEDDINGS)


@dataclass
class Exchange:
    """What came, and how it ended: properly or not is in the bytes."""

    raw: bytes = b""
    end: Literal["FIN", "RST", "open"] = "open"
    reads: list[tuple[float, bytes]] = field(default_factory=list)
    ended_s: float = 0.0

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self.raw.split(b" ", 2)[1])

    @cached_property
    def headers(self) -> dict[str, str]:
        """The response's headers, in small letters."""
        lines = self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return dict(line.lower().split(": ", 1) for line in lines)

    @property
    def after_head(self) -> bytes:
        """The body as it came, with the chunks of the transfer encoding."""
        return self.raw.partition(b"\r\n\r\n")[2]

    @cached_property
    def chunks(self) -> list[bytes]:
        """The chunks of the transfer encoding; the last is empty if the body ended properly."""
        rest, chunks = self.after_head, []
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            assert rest[length : length + 2] == b"\r\n", "a chunk is not whole"
            chunks.append(rest[:length])
            rest = rest[length + 2 :]
        return chunks

    @property
    def is_complete(self) -> bool:
        """Whether a chunked body came with its last chunk."""
        return bool(self.chunks) and not self.chunks[-1]

    @property
    def body(self) -> bytes:
        """The body."""
        return b"".join(self.chunks) if "transfer-encoding" in self.headers else self.after_head

    @property
    def events(self) -> list[bytes]:
        """The events of a stream, without their ends."""
        return self.body.split(b"\n\n")[:-1]

    @property
    def torn(self) -> bytes:
        """What came after the last whole event."""
        return self.body.split(b"\n\n")[-1]

    def tokens(self, endpoint: Endpoint) -> int:
        """Return how many events of content came before the first that is no JSON or no chunk."""
        count = 0
        for event in self.events:
            payload = event.partition(b"data: ")[2]
            if payload == b"[DONE]" or not (parsed := _json(payload)) or "error" in parsed:
                break
            count += endpoint.is_token(parsed)
        return count


def _json(payload: bytes) -> dict[str, Any] | None:
    try:
        parsed: dict[str, Any] = json.loads(payload)
    except ValueError:
        return None
    return parsed


def request(path: str, body: Mapping[str, Any], headers: HeadersOf) -> bytes:
    """Return an HTTP request after which the server closes the connection."""
    content = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        f"Content-Length: {len(content)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def exchange(
    address: tuple[str, int],
    path: str,
    body: Mapping[str, Any],
    headers: HeadersOf,
    *,
    stalls: bool = False,
) -> Exchange:
    """Send one request, and read until the connection ends.

    Of one that is to stall all is read that is due at once: the server answers others after it.
    """
    came = Exchange()
    with socket.create_connection(address) as connection:
        connection.settimeout(STALL_S if stalls else PATIENCE_S)
        start_s = time.monotonic()
        connection.sendall(request(path, body, headers))
        try:
            _read(connection, came, start_s)
        except ConnectionResetError:
            came.end = "RST"
        except TimeoutError:
            if not stalls:
                raise
            for _ in range(OTHERS):
                _wait_for_another(address)
            with suppress(TimeoutError):
                _read(connection, came, start_s)
        came.ended_s = time.monotonic() - start_s
    came.raw = b"".join(data for _, data in came.reads)
    return came


def _wait_for_another(address: tuple[str, int]) -> None:
    """Send a request of no importance, and return when it is answered."""
    with socket.create_connection(address, PATIENCE_S) as connection:
        connection.sendall(HEALTH)
        while connection.recv(65536):
            pass


def _read(connection: socket.socket, came: Exchange, start_s: float) -> None:
    """Read to the end."""
    while data := connection.recv(65536):
        came.reads.append((time.monotonic() - start_s, data))
    came.end = "FIN"
