"""Bytes to a server and back, for what no HTTP client sends."""

import json
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Reply:
    """One HTTP answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error that OpenAI's envelope holds."""
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


def received(connection: socket.socket) -> bytes:
    """Return all that comes until the server ends the connection."""
    connection.settimeout(TIMEOUT_S)
    data = b""
    while part := connection.recv(65_536):
        data += part
    return data


def exchange(address: tuple[str, int], *parts: bytes) -> list[Reply]:
    """Send bytes, each part in a packet of its own, and return the answers to the last one."""
    with socket.create_connection(address, TIMEOUT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError):  # the server need not read all of it
            for part in parts:
                connection.sendall(part)
        return replies(received(connection))


@dataclass(frozen=True)
class Ended:
    """What came until the server ended a connection, and how long that took."""

    replies: list[Reply]
    after_s: float


def ended(address: tuple[str, int], data: bytes) -> Ended:
    """Send bytes and wait for the end of the connection."""
    with socket.create_connection(address, TIMEOUT_S) as connection:
        start_s = time.monotonic()
        connection.sendall(data)
        came = received(connection)
        return Ended(replies(came), time.monotonic() - start_s)


def replies(data: bytes) -> list[Reply]:
    """Take apart answers that follow each other, each with its length."""
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        size = int(fields.get("content-length", 0))
        found.append(Reply(int(first.split()[1]), fields, rest[:size]))
        data = rest[size:]
    return found


def request(method: str, path: str, *lines: str, body: bytes = b"", close: bool = True) -> bytes:
    """Return a request; with a body its length is told."""
    head = [f"{method} {path} HTTP/1.1", "Host: emulator.example", *lines]
    head += [f"Content-Length: {len(body)}"] if body else []
    head += ["Connection: close"] if close else []
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def statuses(answers: Sequence[Reply]) -> list[int]:
    """Return the statuses of answers."""
    return [answer.status for answer in answers]
