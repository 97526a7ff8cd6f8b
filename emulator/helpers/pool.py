"""A worker's pool of helpers: queues, timeouts, and replacement of helpers that died."""

import asyncio
import contextlib
import os
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from emulator.helpers.free_memory import FreeMemory
from emulator.helpers.spool import Spool, read_spool
from emulator.helpers.wire import PIECE, Kind, Work, pack, receive_async

if TYPE_CHECKING:
    from emulator.helpers.processes import Processes
    from emulator.helpers.threads import Threads

# The longest wait for a helper, of urgent and of deferrable jobs, and the most that wait of each.
MAX_WAIT_S = 4.0
MAX_LATER_WAIT_S = 20.0
MAX_WAITING = 2048
# The longest time to a job's first result, and to its end. A job of the short lane that takes
# longer than a moment is tried again in the long lane.
MOMENT_S = 1.0
MAX_FIRST_S = 9.0
MAX_JOB_S = 20.0


Pieces: TypeAlias = Sequence[bytearray]


class BusyError(Exception):
    """No helper was free in time, or the helper was killed by somebody else."""


class TooMuchError(Exception):
    """A job exceeded its limit of time or memory."""


class FailedError(Exception):
    """The work raised an exception; the message is its traceback."""


class Lane(Enum):
    """The queue of a job: LATER comes after the others, and LONG may not use the last helper."""

    SHORT = auto()
    LONG = auto()
    LATER = auto()


@dataclass(slots=True, eq=False)
class Job:
    """Work for a helper, and its results as they come: an object and bytes in pieces each.

    Args:
        content: The order: small plain data.
        body: The bytes that it is about.
        lane: The queue; LONG for a spool, which cannot be sent twice.
        version: The version of the state that the job needs.
        state: That state, which is sent to helpers with another version.
    """

    content: object
    body: bytes | bytearray | Spool
    lane: Lane
    version: int = 0
    state: object = None
    results: asyncio.Queue[tuple[Any, Pieces] | Exception] = field(default_factory=asyncio.Queue)
    task: asyncio.Task[None] | None = None
    has_result: bool = False

    async def next(self) -> tuple[Any, Pieces]:
        """Wait for the next result.

        Raises:
            BusyError: No helper was free.
            TooMuchError: The job exceeded a limit.
            FailedError: The work raised an exception.
        """
        result = await self.results.get()
        if isinstance(result, Exception):
            raise result
        return result

    def cancel(self) -> None:
        """Cancel the job, and kill the helper that does it."""
        if self.task is not None:
            self.task.cancel()


@dataclass(slots=True, eq=False)
class Helper:
    """A helper: its connection, how to kill it, and, once it died, whether its job was to blame.

    ``version`` is that of the state it has, 0 at the start.
    """

    connection: socket.socket
    kill: Callable[[], None]
    ended: asyncio.Future[bool]
    version: int = 0


class _Lanes:
    """The queues for a number of places: first come, first served, but LATER after all others.

    Long jobs may take all places but one, if there are several.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._free_for_long = max(places - 1, 1)
        self._waiting: deque[tuple[asyncio.Future[None], Lane]] = deque()
        self._later: deque[tuple[asyncio.Future[None], Lane]] = deque()

    def _queue(self, lane: Lane) -> deque[tuple[asyncio.Future[None], Lane]]:
        return self._later if lane is Lane.LATER else self._waiting

    def is_full(self, lane: Lane) -> bool:
        """Return whether the queue of a lane is full."""
        return len(self._queue(lane)) >= MAX_WAITING

    async def enter(self, lane: Lane) -> None:
        """Wait for a place, and take it."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue, entry = self._queue(lane), (turn, lane)
        queue.append(entry)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(lane)
            else:
                with contextlib.suppress(ValueError):
                    queue.remove(entry)
            raise

    def leave(self, lane: Lane) -> None:
        """Give a place back."""
        self._free += 1
        self._free_for_long += lane is Lane.LONG
        self._admit()

    def _admit(self) -> None:
        for queue in (self._waiting, self._later):
            passed: list[tuple[asyncio.Future[None], Lane]] = []
            while self._free and queue:
                turn, lane = queue.popleft()
                if turn.done():
                    continue
                if lane is Lane.LONG and not self._free_for_long:
                    passed.append((turn, lane))
                    continue
                self._free -= 1
                self._free_for_long -= lane is Lane.LONG
                turn.set_result(None)
            queue.extendleft(reversed(passed))


def has_processes() -> bool:
    """Return whether the system supports helper processes: /proc, and SOCK_SEQPACKET sockets."""
    if sys.platform != "linux" or not Path("/proc/self/statm").exists():
        return False
    try:
        for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET):
            end.close()
    except OSError:
        return False
    return True


class HelperPool:
    """The helpers of a worker, started when they are first needed.

    Args:
        helpers: The most there may be.
        work: Does a job; ``adopt`` gives it another state.
        prepare: Called in each process before its first job.
        processes: Whether helpers are processes; else a thread does one job at a time, without a
            limit on memory. By default processes where the system supports them.
    """

    _source: "Processes | Threads"

    def __init__(
        self,
        helpers: int,
        work: Work,
        prepare: Callable[[], None],
        *,
        processes: bool | None = None,
    ) -> None:
        if has_processes() if processes is None else processes:
            from emulator.helpers.processes import Processes  # noqa: PLC0415 - needs Linux

            self._source = Processes(helpers, work, prepare)
        else:
            from emulator.helpers.threads import Threads  # noqa: PLC0415 - needs this module

            self._source = Threads(work)
        self._lanes = _Lanes(self._source.places)
        self._memory = FreeMemory()
        self._idle: list[Helper] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Prepare to start helpers, which share the memory of what is loaded by now."""
        self._source.start()

    async def close(self) -> None:
        """Cancel all jobs, and stop the helpers."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._end_all()

    async def _end_all(self) -> None:
        for helper in self._idle:
            helper.connection.close()
        self._idle.clear()
        await self._source.close()

    def submit(
        self,
        content: object,
        body: bytes | bytearray | Spool,
        lane: Lane,
        version: int = 0,
        state: object = None,
    ) -> Job:
        """Queue a job; a spool is closed in any case.

        Args:
            content: What is asked for: small plain data.
            body: The bytes that it is about.
            lane: How it waits.
            version: The version of the state that it is done by; 0 is that of the start.
            state: That state.

        Raises:
            BusyError: The queue of the lane is full.
        """
        if self._lanes.is_full(lane):
            close(body)
            raise BusyError
        job = Job(content, body, lane, version, state)
        job.task = asyncio.get_running_loop().create_task(self._do(job))
        self._tasks.add(job.task)
        job.task.add_done_callback(self._tasks.discard)
        return job

    async def _do(self, job: Job) -> None:
        size = 0 if isinstance(job.body, Spool) else len(job.body)
        self._memory.note(size)
        try:
            while not await self._attempt(job):
                job.lane = Lane.LONG
            job.results.put_nowait(FailedError("there are no more results"))
        except (BusyError, TooMuchError, FailedError) as error:
            job.results.put_nowait(error)
        except Exception:  # noqa: BLE001 - raised by Job.next()
            job.results.put_nowait(FailedError(traceback.format_exc()))
        finally:
            close(job.body)
            job.body = b""
            self._memory.note(size)

    async def _attempt(self, job: Job) -> bool:
        """Try to do a job; return false if it has to be tried again in the long lane."""
        lane = job.lane
        try:
            async with asyncio.timeout(MAX_LATER_WAIT_S if lane is Lane.LATER else MAX_WAIT_S):
                await self._lanes.enter(lane)
        except TimeoutError:
            raise BusyError from None
        try:
            helper = await self._take()
            try:
                is_whole = await self._converse(helper, job)
            except TimeoutError:
                await self._end(helper)
                if self._looks_short(job) and not job.has_result:
                    return False
                raise TooMuchError from None
            except asyncio.CancelledError:
                self._kill(helper)
                raise
            except OSError:
                raise await self._cause(helper) from None
            if is_whole:
                self._idle.append(helper)
            else:
                helper.connection.close()
            return True
        finally:
            self._lanes.leave(lane)

    def _looks_short(self, job: Job) -> bool:
        """Return whether a job gets MOMENT_S at first: threads cannot be killed for a retry."""
        return self._source.can_end and job.lane is not Lane.LONG

    async def _converse(self, helper: Helper, job: Job) -> bool:
        """Have a helper do a job; return whether it can do another.

        Raises:
            TimeoutError: The job takes too long.
            OSError: The helper died.
        """
        loop = asyncio.get_running_loop()
        first_s = MOMENT_S if self._looks_short(job) else MAX_FIRST_S
        async with asyncio.timeout(first_s) as time_left:
            await self._send(helper, job)
            while True:
                kind, content, blob = await receive_async(helper.connection)
                self._memory.note(sum(map(len, blob)))
                match kind:
                    case Kind.RESULT:
                        if not job.has_result:
                            job.has_result = True
                            time_left.reschedule(loop.time() + MAX_JOB_S)
                        job.results.put_nowait((content, blob))
                    case Kind.FAILED:
                        job.results.put_nowait(FailedError(content))
                        return False
                    case Kind.TOO_LARGE:
                        job.results.put_nowait(TooMuchError())
                        return False
                    case _:
                        return kind is Kind.DONE

    async def _send(self, helper: Helper, job: Job) -> None:
        """Send a job, and its body in short pieces or as the spool's descriptor."""
        loop, connection = asyncio.get_running_loop(), helper.connection
        state = None if helper.version == job.version else job.state
        helper.version = job.version
        body, message = job.body, pack(Kind.JOB, (job.content, state), len(job.body))
        if isinstance(body, Spool) and self._source.can_end:
            sent = socket.send_fds(connection, [message], [body.fd])
            await loop.sock_sendall(connection, message[sent:])
            close(body)
            job.body = b""
            return
        if isinstance(body, Spool):
            job.body = b""  # read_spool closes it
            body = await asyncio.to_thread(read_spool, body.fd, len(body))
        await loop.sock_sendall(connection, message)
        view = memoryview(body)
        for at in range(0, len(view), PIECE):
            await loop.sock_sendall(connection, view[at : at + PIECE])

    async def _take(self) -> Helper:
        """Return an idle helper, or a new one."""
        while self._idle:
            helper = self._idle.pop()
            if not helper.ended.done():
                return helper
            helper.connection.close()
        for _ in range(2):
            try:
                return await self._source.fork()
            except OSError:  # somebody killed the nursery
                await self._end_all()
                self._source.start()
        raise BusyError

    def _kill(self, helper: Helper) -> None:
        helper.connection.close()
        helper.kill()

    async def _end(self, helper: Helper) -> None:
        """Kill a helper, and wait until it has exited."""
        self._kill(helper)
        with contextlib.suppress(OSError):
            await helper.ended

    async def _cause(self, helper: Helper) -> Exception:
        """Return the error for a job whose helper died: by a limit, or by somebody else."""
        helper.connection.close()
        try:
            return TooMuchError() if await helper.ended else BusyError()
        except OSError:
            return BusyError()


def close(body: bytes | bytearray | Spool) -> None:
    """Close a spool, if it is one, in a thread: freeing much memory takes long."""
    if isinstance(body, Spool):
        asyncio.get_running_loop().run_in_executor(None, os.close, body.fd)
