"""Helpers where the system has no processes for them: a thread of the worker for each job."""

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
    """Ends the thread of a job that nobody waits for any more."""


class Threads:
    """Makes helpers that are threads: one at a time, as work need not suit several threads."""

    places = 1
    can_end = False

    def __init__(self, work: Work) -> None:
        self._work = work
        self._latest: threading.Thread | None = None

    def start(self) -> None:
        """Warn of what threads cost."""
        logger.warning(
            "no helper processes on %s: what takes long is done in a thread of the worker, one "
            "request after the other. Tokens may be late meanwhile, and nothing bounds the memory "
            "that such a request takes",
            sys.platform,
        )

    async def fork(self) -> Helper:
        """Start a thread, once the one before it has ended."""
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
        ended.set_result(False)  # nobody can tell when it will have: it is not waited for
        return Helper(ours, partial(_end, thread), ended, version=UNKNOWN)

    async def close(self) -> None:
        """Leave a thread that is still at work to the end of the process."""

    def _serve(self, connection: socket.socket) -> None:
        """Do one job."""
        with contextlib.suppress(OSError, _GivenUp), connection:
            serve(connection, self._work, begin=lambda: None, is_used_up=lambda: True)


def _end(thread: threading.Thread) -> None:
    """End a thread at its next step in Python; a call into C goes on to its end."""
    if thread.is_alive():
        ident = ctypes.c_ulong(thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(_GivenUp))
