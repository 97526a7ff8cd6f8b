"""Helpers where the system has no processes for them: one thread of the worker itself."""

import asyncio
import ctypes
import logging
import sys
import threading
import traceback
from typing import Any

from emulator.helpers import pool
from emulator.helpers.pool import BusyError, Job, Pieces
from emulator.helpers.spool import Spool, read_spool
from emulator.helpers.wire import Kind, Work

logger = logging.getLogger("bentoml.openai_emulator")


class _GivenUp(BaseException):
    """Ends the thread of a job that nobody waits for any more."""


class _Thread:
    """A helper for one job, which it does in a thread of its own."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[tuple[Kind, Any, Pieces]] = asyncio.Queue()
        self._thread: threading.Thread | None = None
        self._is_over = False

    async def send(self, job: Job) -> None:
        """Start the job."""
        body = job.body
        if isinstance(body, Spool):
            job.body = b""  # to read it closes it
            body = await asyncio.to_thread(read_spool, body.fd, len(body))
        self._thread = threading.Thread(
            target=self._run, args=(job.content, bytearray(body)), name="helper", daemon=True
        )
        self._thread.start()

    async def receive(self) -> tuple[Kind, Any, Pieces]:
        """Return the next message."""
        return await self._messages.get()

    def release(self) -> None:
        """Do nothing: the thread ends with its job."""

    def kill(self) -> None:
        """End the thread at its next step in Python; a call into C goes on to its end."""
        if self._thread is not None and self._thread.ident is not None and not self._is_over:
            ident = ctypes.c_ulong(self._thread.ident)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(_GivenUp))

    async def end(self) -> None:
        """End the thread; how soon it does is not certain."""
        self.kill()

    async def cause(self) -> Exception:
        """Return an error: threads do not die."""
        return BusyError()

    def join(self, timeout_s: float) -> bool:
        """Wait until the thread has ended; return whether it has."""
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self, content: object, body: bytearray) -> None:
        """Do the job."""
        kind, last = Kind.DONE, ""
        try:
            for result, blob in self._work(content, body):
                self._tell(Kind.RESULT, result, [bytearray(blob)])
        except MemoryError:
            kind = Kind.TOO_LARGE
        except Exception:  # noqa: BLE001 - whoever waits is told
            kind, last = Kind.FAILED, traceback.format_exc()
        except _GivenUp:
            return
        finally:
            self._is_over = True
        self._tell(kind, last, [])

    def _tell(self, *message: Any) -> None:  # noqa: ANN401
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._messages.put_nowait, message)


class Threads:
    """The helper of a worker; one does a job at a time, as `work` need not suit several threads."""

    places = 1

    def __init__(self, work: Work) -> None:
        self._work = work
        self._latest: _Thread | None = None

    def start(self) -> None:
        """Warn of what it costs."""
        logger.warning(
            "no helper processes on %s: what takes long is done in a thread of the worker, one "
            "request after the other. Tokens may be late meanwhile, and nothing bounds the memory "
            "that such a request takes",
            sys.platform,
        )

    async def close(self) -> None:
        """Leave a thread that is still at work to the end of the process."""

    async def take(self) -> _Thread:
        """Return a helper, once the one before it has ended.

        Raises:
            BusyError: It goes on for too long, though its job was given up.
        """
        if self._latest and not await asyncio.to_thread(self._latest.join, pool.MAX_WAIT_S):
            raise BusyError
        self._latest = _Thread(self._work)
        return self._latest
