"""A worker's helpers: who does which job, for how long, and what becomes of one that dies."""

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeAlias

from emulator.helpers.free_memory import FreeMemory
from emulator.helpers.helper import Work
from emulator.helpers.nursery import FORK, KILL, fork_nursery
from emulator.helpers.spool import Spool
from emulator.helpers.wire import HEAD, PIECE, Kind, pack

# How long a job may wait for a helper, how long one that has time, and how many of each may wait.
MAX_WAIT_S = 4.0
MAX_LATER_WAIT_S = 20.0
MAX_WAITING = 2048
# How long a job may take until its first result, and in all. What looked short and takes longer
# than a moment waits again, with those that were known to be long.
MOMENT_S = 1.0
MAX_FIRST_S = 9.0
MAX_JOB_S = 20.0

# What the kernel ends a helper with when its job is to blame.
_OF_THE_JOB = (signal.SIGXCPU, signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS)


Pieces: TypeAlias = Sequence[bytearray]


class BusyError(Exception):
    """All helpers are busy for too long, or one was ended from outside."""


class TooMuchError(Exception):
    """A job takes more time or memory than it may."""


class FailedError(Exception):
    """A job failed by a fault of our own; the message is the traceback."""


class Lane(Enum):
    """How jobs wait: those that have time behind all others, and long ones not for all helpers."""

    SHORT = auto()
    LONG = auto()
    LATER = auto()


@dataclass(slots=True, eq=False)
class Job:
    """Some work, and its results as they come; each is an object, and bytes in pieces.

    Args:
        content: What is asked for: small plain data.
        body: The bytes that it is about.
        lane: How it waits; what is about a spool is long.
        version: The version of the state that it is done by.
        state: That state; a helper that has another version gets it with the job.
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
            BusyError: No helper had time.
            TooMuchError: It takes too much time or memory.
            FailedError: The work failed.
        """
        result = await self.results.get()
        if isinstance(result, Exception):
            raise result
        return result

    def cancel(self) -> None:
        """Give it up, and end the helper that is at it."""
        if self.task is not None:
            self.task.cancel()


@dataclass(slots=True, eq=False)
class _Helper:
    """A helper process, the connection to it, and the version of the state that it has."""

    connection: socket.socket
    pid: int
    ended: asyncio.Future[int]
    version: int = 0


class _Lanes:
    """Lets jobs through in the order of their coming, those that have time after the others.

    One place at least is not for long ones.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._free_for_long = max(places - 1, 1)
        self._waiting: deque[tuple[asyncio.Future[None], Lane]] = deque()
        self._later: deque[tuple[asyncio.Future[None], Lane]] = deque()

    def _queue(self, lane: Lane) -> deque[tuple[asyncio.Future[None], Lane]]:
        return self._later if lane is Lane.LATER else self._waiting

    def is_full(self, lane: Lane) -> bool:
        """Whether as many wait as may."""
        return len(self._queue(lane)) >= MAX_WAITING

    async def enter(self, lane: Lane) -> None:
        """Wait for a place."""
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


class HelperPool:
    """A worker's helpers, which are forked when they are first needed.

    Args:
        helpers: How many there may be.
        work: What does the jobs; the same in all. It is told of another state by ``adopt``.
        prepare: Is called in each before its first job.
    """

    def __init__(self, helpers: int, work: Work, prepare: Callable[[], None]) -> None:
        self._work = work
        self._prepare = prepare
        self._lanes = _Lanes(helpers)
        self._memory = FreeMemory()
        self._idle: list[_Helper] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._started: deque[asyncio.Future[int]] = deque()
        self._nursery_pid = 0
        self._commands: socket.socket | None = None
        self._reader: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the nursery, as early as can be: it shares what is loaded by now."""
        self._nursery_pid, self._commands = fork_nursery(self._work, self._prepare)
        self._commands.setblocking(False)
        self._reader = asyncio.get_running_loop().create_task(self._listen(self._commands))

    async def close(self) -> None:
        """Give up all jobs, and end the nursery, and with it the helpers."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._end_nursery()

    async def _end_nursery(self) -> None:
        if self._commands is None or self._reader is None:
            return
        commands, self._commands = self._commands, None
        self._reader.cancel()
        await asyncio.wait([self._reader])
        commands.close()
        for helper in self._idle:
            helper.connection.close()
        self._idle.clear()
        with contextlib.suppress(ChildProcessError):
            await asyncio.to_thread(os.waitpid, self._nursery_pid, 0)

    def submit(
        self,
        content: object,
        body: bytes | bytearray | Spool,
        lane: Lane,
        version: int = 0,
        state: object = None,
    ) -> Job:
        """Ask for some work; a spool is closed, whatever becomes of it.

        Args:
            content: What is asked for: small plain data.
            body: The bytes that it is about.
            lane: How it waits.
            version: The version of the state that it is done by; 0 is that of the start.
            state: That state.

        Raises:
            BusyError: Too many jobs wait.
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
        except Exception:  # noqa: BLE001 - whoever waits is told
            job.results.put_nowait(FailedError(traceback.format_exc()))
        finally:
            close(job.body)
            job.body = b""
            self._memory.note(size)

    async def _attempt(self, job: Job) -> bool:
        """Do a job; return false if it only looked short and took its helper too long."""
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
                if lane is not Lane.LONG and not job.has_result:
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

    async def _converse(self, helper: _Helper, job: Job) -> bool:
        """Do a job with a helper; return whether it can do another.

        Raises:
            TimeoutError: It takes too long.
            OSError: The helper died.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(MAX_FIRST_S if job.lane is Lane.LONG else MOMENT_S) as time_left:
            await _send(helper, job)
            while True:
                kind, content, blob = await _receive(helper.connection)
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

    async def _take(self) -> _Helper:
        """Return a helper that has nothing to do."""
        while self._idle:
            helper = self._idle.pop()
            if not helper.ended.done():
                return helper
            helper.connection.close()
        for _ in range(2):
            try:
                return await self._fork()
            except OSError:  # the nursery itself was ended from outside
                await self._end_nursery()
                self.start()
        raise BusyError

    async def _fork(self) -> _Helper:
        if self._commands is None:
            raise BrokenPipeError
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        ours, its = socket.socketpair()
        ours.setblocking(False)
        try:
            socket.send_fds(self._commands, [FORK], [its.fileno()])
            self._started.append(started)
            pid = await started
        except BaseException:
            ours.close()
            raise
        finally:
            its.close()
        return _Helper(ours, pid, self._ended[pid])

    async def _listen(self, commands: socket.socket) -> None:
        """Note what the nursery tells of its helpers."""
        loop = asyncio.get_running_loop()
        try:
            while message := await loop.sock_recv(commands, 64):
                pid, word, *number = message.split()
                if word == b"started":
                    self._ended[int(pid)] = loop.create_future()
                    started = self._started.popleft()
                    if not started.done():
                        started.set_result(int(pid))
                elif (ended := self._ended.pop(int(pid), None)) is not None:
                    ended.set_result(int(number[0]))
        finally:
            for waiting in (*self._started, *self._ended.values()):
                if not waiting.done():
                    waiting.set_exception(BrokenPipeError())
                    waiting.exception()
            self._started.clear()
            self._ended.clear()

    def _kill(self, helper: _Helper) -> None:
        helper.connection.close()
        if self._commands is not None and not helper.ended.done():
            with contextlib.suppress(OSError):
                self._commands.send(KILL + b"%d" % helper.pid)

    async def _end(self, helper: _Helper) -> None:
        """End a helper, and wait until it has."""
        self._kill(helper)
        with contextlib.suppress(OSError):
            await helper.ended

    async def _cause(self, helper: _Helper) -> Exception:
        """Return why a helper died: its job is to blame, or somebody else."""
        helper.connection.close()
        try:
            number = await helper.ended
        except OSError:
            return BusyError()
        return TooMuchError() if number in _OF_THE_JOB else BusyError()


def close(body: bytes | bytearray | Spool) -> None:
    """Let go of a spool, in a thread: to free what it takes may take long."""
    if isinstance(body, Spool):
        asyncio.get_running_loop().run_in_executor(None, os.close, body.fd)


async def _send(helper: _Helper, job: Job) -> None:
    """Send a job; its body leaves in pieces, so that no step takes long, or lies in a spool."""
    loop, connection = asyncio.get_running_loop(), helper.connection
    state = None if helper.version == job.version else job.state
    helper.version = job.version
    body, message = job.body, pack(Kind.JOB, (job.content, state), len(job.body))
    if isinstance(body, Spool):
        sent = socket.send_fds(connection, [message], [body.fd])
        await loop.sock_sendall(connection, message[sent:])
        close(body)
        job.body = b""
        return
    await loop.sock_sendall(connection, message)
    view = memoryview(body)
    for at in range(0, len(view), PIECE):
        await loop.sock_sendall(connection, view[at : at + PIECE])


async def _receive(connection: socket.socket) -> tuple[Kind, Any, Pieces]:
    kind, pickled_size, size = HEAD.unpack(await _exactly(connection, HEAD.size))
    content = pickle.loads(await _exactly(connection, pickled_size))  # noqa: S301 - of our helpers
    # In one piece they would take a while: the kernel takes up to 10 us for each page that is new.
    sizes = (min(PIECE, size - at) for at in range(0, size, PIECE))
    return Kind(kind), content, [await _exactly(connection, piece) for piece in sizes]


async def _exactly(connection: socket.socket, size: int) -> bytearray:
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
