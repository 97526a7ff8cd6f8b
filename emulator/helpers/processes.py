"""Helpers that are processes of their own, which a nursery forks; on Linux only."""

import asyncio
import contextlib
import os
import pickle
import signal
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emulator.helpers.nursery import FORK, KILL, fork_nursery
from emulator.helpers.pool import BusyError, Job, Pieces, TooMuchError, close
from emulator.helpers.spool import Spool
from emulator.helpers.wire import HEAD, PIECE, Kind, Work, pack

# What the kernel ends a helper with when its job is to blame.
_OF_THE_JOB = (signal.SIGXCPU, signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS)


@dataclass(slots=True, eq=False)
class _Process:
    """A helper process.

    Args:
        connection: Leads to it.
        commands: Leads to the nursery, which can end it.
        pid: Its process id.
        ended: Is done when it has ended, with the signal that ended it, or 0.
        idle: Holds the processes that wait for a job.
    """

    connection: socket.socket
    commands: socket.socket
    pid: int
    ended: asyncio.Future[int]
    idle: "list[_Process]"

    async def send(self, job: Job) -> None:
        """Send a job; its body leaves in pieces, so that no step takes long, or is in a spool."""
        loop, connection = asyncio.get_running_loop(), self.connection
        body, message = job.body, pack(Kind.JOB, job.content, len(job.body))
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

    async def receive(self) -> tuple[Kind, Any, Pieces]:
        """Return the next message."""
        kind, pickled_size, size = HEAD.unpack(await self._exactly(HEAD.size))
        content = pickle.loads(await self._exactly(pickled_size))  # noqa: S301 - of our helpers
        # In one piece they would take a while: the kernel takes up to 10 us for each new page.
        sizes = (min(PIECE, size - at) for at in range(0, size, PIECE))
        return Kind(kind), content, [await self._exactly(piece) for piece in sizes]

    async def _exactly(self, size: int) -> bytearray:
        """Return the next `size` bytes.

        Raises:
            ConnectionResetError: The connection has ended.
        """
        loop = asyncio.get_running_loop()
        buffer = bytearray(size)
        view, at = memoryview(buffer), 0
        while at < size:
            received = await loop.sock_recv_into(self.connection, view[at : at + PIECE])
            if not received:
                raise ConnectionResetError
            at += received
        return buffer

    def release(self) -> None:
        """Wait for the next job."""
        self.idle.append(self)

    def kill(self) -> None:
        """End the process."""
        self.connection.close()
        if not self.ended.done():
            with contextlib.suppress(OSError):
                self.commands.send(KILL + b"%d" % self.pid)

    async def end(self) -> None:
        """End the process, and wait until it has."""
        self.kill()
        with contextlib.suppress(OSError):
            await self.ended

    async def cause(self) -> Exception:
        """Return why the process ended."""
        self.connection.close()
        try:
            number = await self.ended
        except OSError:
            return BusyError()
        return TooMuchError() if number in _OF_THE_JOB else BusyError()


class Processes:
    """The helper processes of a worker, and the nursery that forks them.

    Args:
        places: How many there may be.
        work: What does the jobs.
        prepare: Is called in each before its first job.
    """

    def __init__(self, places: int, work: Work, prepare: Callable[[], None]) -> None:
        self.places = places
        self._work = work
        self._prepare = prepare
        self._idle: list[_Process] = []
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._started: deque[asyncio.Future[int]] = deque()
        self._nursery_pid = 0
        self._commands: socket.socket | None = None
        self._reader: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the nursery, which shares the memory of what is loaded by now."""
        self._nursery_pid, self._commands = fork_nursery(self._work, self._prepare)
        self._commands.setblocking(False)
        self._reader = asyncio.get_running_loop().create_task(self._listen(self._commands))

    async def close(self) -> None:
        """End the nursery, and with it the helpers."""
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

    async def take(self) -> _Process:
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
                await self.close()
                self.start()
        raise BusyError

    async def _fork(self) -> _Process:
        commands = self._commands
        if commands is None:
            raise BrokenPipeError
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        ours, its = socket.socketpair()
        ours.setblocking(False)
        try:
            socket.send_fds(commands, [FORK], [its.fileno()])
            self._started.append(started)
            pid = await started
        except BaseException:
            ours.close()
            raise
        finally:
            its.close()
        return _Process(ours, commands, pid, self._ended[pid], self._idle)

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
