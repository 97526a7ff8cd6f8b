"""The messages between a worker and its helpers: a kind, a pickled object and bytes.

Objects are small plain data, as unpickling holds the GIL. Bytes may be many, and go in pieces.
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
    """Does jobs."""

    def __call__(self, content: Any, body: bytearray, /) -> Iterator[tuple[object, bytes]]:  # noqa: ANN401
        """Do a job: take an object and bytes, and yield results of the same types."""

    def adopt(self, state: Any) -> None:  # noqa: ANN401 - the pool carries anything
        """Do the next jobs with another state."""


class Kind(IntEnum):
    """The kind of a message."""

    JOB = 0
    RESULT = 1
    DONE = 2
    # The helper exits after these.
    LEAVING = 3  # the job is done, and the helper exits to free its memory
    FAILED = 4  # the object is the traceback
    TOO_LARGE = 5  # the job exceeded the limit on memory


def pack(kind: Kind, content: object, size: int = 0) -> bytes:
    """Return a message without the `size` bytes that follow it."""
    pickled = pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
    return HEAD.pack(kind, len(pickled), size) + pickled


def send(connection: socket.socket, kind: Kind, content: object, blob: bytes = b"") -> None:
    """Send a message, blocking."""
    connection.sendall(pack(kind, content, len(blob)))
    connection.sendall(blob)


def receive(connection: socket.socket) -> tuple[Any, bytearray] | None:
    """Receive a message, blocking; return its object and bytes, or None at the end of the stream.

    The bytes follow the message, or are in a spool whose descriptor comes with it.
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


async def receive_async(connection: socket.socket) -> tuple[Kind, Any, list[bytearray]]:
    """Receive a message on the event loop; its bytes come in pieces.

    Raises:
        ConnectionResetError: The connection has ended.
    """
    kind, pickled_size, size = HEAD.unpack(await _exactly_async(connection, HEAD.size))
    content = pickle.loads(await _exactly_async(connection, pickled_size))  # noqa: S301 - of our helpers
    # In pieces, because the kernel clears each new page: one large buffer would block for long.
    sizes = (min(PIECE, size - at) for at in range(0, size, PIECE))
    return Kind(kind), content, [await _exactly_async(connection, piece) for piece in sizes]


async def _exactly_async(connection: socket.socket, size: int) -> bytearray:
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
