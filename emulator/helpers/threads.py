"""Threads in place of helper processes, for systems that do not support these."""

import asyncio
import contextlib
import ctypes
import logging
import socket
import sys
import threading
from functools import partial

from emulator.helpers import pool
from emulator.helpers.helper import serve
from emulator.helpers.pool import BusyError, Helper
from emulator.helpers.wire import Work

# The work of all threads is one, by whatever state the last job was done.
UNKNOWN = -1

logger = logging.getLogger("bentoml.openai_emulator")


class _GivenUp(BaseException):
    """Raised in the thread of a job that was cancelled."""


class Threads:
    """Starts a thread for each job, one at a time: the work need not be thread-safe."""

    places = 1
    can_end = False

    def __init__(self, work: Work) -> None:
        self._work = work
        self._latest: threading.Thread | None = None

    def start(self) -> None:
        """Warn of the disadvantages."""
        logger.warning(
            "no helper processes on %s: large requests are processed in a thread of the worker, "
            "one after the other. Tokens may be late meanwhile, and the memory that such a request "
            "takes is not limited",
            sys.platform,
        )

    async def fork(self) -> Helper:
        """Start a thread once the previous one has ended.

        Raises:
            BusyError: The previous one does not end.
        """
        if self._latest is not None:
            await asyncio.to_thread(self._latest.join, pool.MAX_WAIT_S)
            if self._latest.is_alive():
                raise BusyError
        ours, its = socket.socketpair()
        ours.setblocking(False)
        thread = self._latest = threading.Thread(
            target=self._serve, args=(its,), name="helper", daemon=True
        )
        thread.start()
        ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        ended.set_result(False)  # it may take long to end, and is not waited for
        return Helper(ours, partial(_end, thread), ended, version=UNKNOWN)

    async def close(self) -> None:
        """Do nothing: daemon threads end with the process."""

    def _serve(self, connection: socket.socket) -> None:
        """Do one job in the thread."""
        with contextlib.suppress(OSError, _GivenUp), connection:
            serve(connection, self._work, begin=lambda: None, is_used_up=lambda: True)


def _end(thread: threading.Thread) -> None:
    """Raise an exception in a thread, which has an effect after the current call into C."""
    if thread.is_alive():
        ident = ctypes.c_ulong(thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(_GivenUp))
