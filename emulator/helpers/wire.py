"""What a worker and its helpers say to each other: a kind, an object and some bytes.

An object is small plain data, because to unpickle it holds the interpreter's lock. Bytes may be
many, and travel in pieces.
"""

import asyncio
import pickle
import socket
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Protocol

from emulator.helpers.spool import read_spool

HEAD = struct.Struct("!BQQ")
PIECE = 1 << 16


class Work(Protocol):
    """What does the jobs."""

    def __call__(self, content: Any, body: bytearray, /) -> Iterator[tuple[object, bytes]]:  # noqa: ANN401
        """Do a job: take an object and bytes, and yield results of the same form."""

    def adopt(self, state: Any) -> None:  # noqa: ANN401 - the pool carries anything
        """Do jobs by another state from now on."""


class Kind(IntEnum):
    """What a message is."""

    JOB = 0
    RESULT = 1
    DONE = 2
    # The helper ends too, after these.
    LEAVING = 3  # done: the memory that the job took is given back
    FAILED = 4  # the object is the traceback
    TOO_LARGE = 5  # the job takes more memory than it may


def pack(kind: Kind, content: object, size: int = 0) -> bytes:
    """Return a message, but for the `size` bytes that follow it."""
    pickled = pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
    return HEAD.pack(kind, len(pickled), size) + pickled


def send(connection: socket.socket, kind: Kind, content: object, blob: bytes = b"") -> None:
    """Send a message, and wait until it has left."""
    connection.sendall(pack(kind, content, len(blob)))
    connection.sendall(blob)


def receive(connection: socket.socket) -> tuple[Any, bytearray] | None:
    """Wait for a message; return its object and its bytes, or None at the end of the connection.

    The bytes follow, or lie in the spool whose descriptor comes with the message.
    """
    if hasattr(socket, "recv_fds"):
        head, fds, _, _ = socket.recv_fds(connection, HEAD.size, 1)
    else:
        head, fds = connection.recv(HEAD.size), []
    rest = _exactly(connection, HEAD.size - len(head)) if head else None
    if rest is None:
        return None
    _, pickled_size, size = HEAD.unpack(head + rest)
    pickled = _exactly(connection, pickled_size)
    blob = read_spool(fds[0], size) if fds else _exactly(connection, size)
    if pickled is None or blob is None:
        return None
    return pickle.loads(pickled), blob  # noqa: S301 - of our own processes


def _exactly(connection: socket.socket, size: int) -> bytearray | None:
    buffer = bytearray(size)
    view, at = memoryview(buffer), 0
    while at < size:
        received = connection.recv_into(view[at : at + PIECE])
        if not received:
            return None
        at += received
    return buffer


async def receive_soon(connection: socket.socket) -> tuple[Kind, Any, list[bytearray]]:
    """Return the next message, without blocking; its bytes come in pieces.

    Raises:
        ConnectionResetError: The connection has ended.
    """
    kind, pickled_size, size = HEAD.unpack(await _exactly_soon(connection, HEAD.size))
    content = pickle.loads(await _exactly_soon(connection, pickled_size))  # noqa: S301 - of our helpers
    # In one piece they would take a while: the kernel takes up to 10 us for each page that is new.
    sizes = (min(PIECE, size - at) for at in range(0, size, PIECE))
    return Kind(kind), content, [await _exactly_soon(connection, piece) for piece in sizes]


async def _exactly_soon(connection: socket.socket, size: int) -> bytearray:
    """Return the next `size` bytes.

    Raises:
        ConnectionResetError: The connection has ended.
    """
    loop = asyncio.get_running_loop()
    buffer = bytearray(size)
    view, at = memoryview(buffer), 0
    while at < size:
        received = await loop.sock_recv_into(connection, view[at : at + PIECE])
        if not received:
            raise ConnectionResetError
        at += received
    return buffer
