"""The connection below an ASGI request: to close it, or to reset it, within an answer."""

import asyncio
import socket
import struct
import sys
from time import monotonic
from typing import cast

from starlette.types import Receive, Scope

from emulator.timing.clock import sleep_until

# Where the outermost layer leaves uvicorn's own `receive`, if middleware wraps it.
RECEIVE = "emulator.receive"

_RST_ON_CLOSE = struct.pack("ii", 1, 0)
_SIOCOUTQNSD = 0x894B  # Linux: how many bytes the kernel has not sent for the first time
_LONGEST_FLUSH_S = 1.0
_FLUSH_CHECK_S = 0.001


class NoConnectionError(Exception):
    """The connection cannot be had."""


class Connection:
    """A client's connection; its methods end by being cancelled when the client is gone.

    Args:
        transport: What uvicorn writes to.
        timeout_s: How long what ends a connection waits for the client.
    """

    def __init__(self, transport: asyncio.Transport, timeout_s: float) -> None:
        self._transport = transport
        self._timeout_s = timeout_s

    @classmethod
    def of(cls, scope: Scope, receive: Receive, timeout_s: float) -> "Connection":
        """Return the connection of a request.

        Raises:
            NoConnectionError: The server is not uvicorn, or something wraps its `receive`.
        """
        cycle = getattr(scope.get(RECEIVE, receive), "__self__", None)
        transport = getattr(cycle, "transport", None)
        if not hasattr(transport, "abort"):  # uvloop's transports are no asyncio.Transport
            raise NoConnectionError("the connection can be had from uvicorn alone")
        return cls(cast("asyncio.Transport", transport), timeout_s)

    async def close(self) -> None:
        """Send FIN after the written data, and RST if the data does not leave in time."""
        self._transport.close()
        await self._until_gone()

    async def reset(self) -> None:
        """Send RST after what was written."""
        deadline_s = monotonic() + _LONGEST_FLUSH_S
        while self._has_unsent() and monotonic() < deadline_s:
            await sleep_until(monotonic() + _FLUSH_CHECK_S)
        connection: socket.socket = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        self._transport.abort()
        await self._until_gone()

    async def stay_silent(self) -> None:
        """Leave it open until the timeout is over or the answer is given up; then send FIN."""
        try:
            await asyncio.sleep(self._timeout_s)
        finally:
            self._transport.close()
        await self._until_gone()

    async def _until_gone(self) -> None:
        await asyncio.sleep(self._timeout_s)
        self._transport.abort()

    def _has_unsent(self) -> bool:
        """Tell whether RST would throw away something that was written."""
        if self._transport.get_write_buffer_size():
            return True
        if sys.platform != "linux":
            return False
        from fcntl import ioctl  # noqa: PLC0415 - not on every system

        fd = self._transport.get_extra_info("socket").fileno()
        return any(ioctl(fd, _SIOCOUTQNSD, bytes(4)))
