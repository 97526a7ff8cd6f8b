"""Helper processes, which the worker's nursery forks, kills and waits for."""

import asyncio
import contextlib
import os
import signal
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from emulator.helpers.nursery import FORK, KILL, fork_nursery
from emulator.helpers.pool import Helper
from emulator.helpers.wire import Work

# Signals that end a helper because of its job: the kernel's limits, and crashes.
_OF_THE_JOB = (signal.SIGXCPU, signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS)


class Processes:
    """Starts helper processes, at most `places` at a time."""

    can_end = True  # killing one has an immediate effect

    def __init__(self, places: int, work: Work, prepare: Callable[[], None]) -> None:
        self.places = places
        self._work = work
        self._prepare = prepare
        self._ended: dict[int, asyncio.Future[bool]] = {}
        self._started: deque[asyncio.Future[int]] = deque()
        self._nursery_pid = 0
        self._commands: socket.socket | None = None
        self._reader: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Fork the nursery."""
        self._nursery_pid, self._commands = fork_nursery(self._work, self._prepare)
        self._commands.setblocking(False)
        self._reader = asyncio.get_running_loop().create_task(self._listen(self._commands))

    async def close(self) -> None:
        """Stop the nursery, which kills the helpers."""
        if self._commands is None or self._reader is None:
            return
        commands, self._commands = self._commands, None
        self._reader.cancel()
        await asyncio.wait([self._reader])
        commands.close()
        with contextlib.suppress(ChildProcessError):
            await asyncio.to_thread(os.waitpid, self._nursery_pid, 0)

    async def fork(self) -> Helper:
        """Start a helper.

        Raises:
            OSError: The nursery has exited.
        """
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
        return Helper(ours, partial(self._kill, pid), self._ended[pid])

    async def _listen(self, commands: socket.socket) -> None:
        """Receive the nursery's reports of helpers that started or exited."""
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
                    ended.set_result(int(number[0]) in _OF_THE_JOB)
        finally:
            futures: list[asyncio.Future[Any]] = [*self._started, *self._ended.values()]
            for waiting in futures:
                if not waiting.done():
                    waiting.set_exception(BrokenPipeError())
                    waiting.exception()
            self._started.clear()
            self._ended.clear()

    def _kill(self, pid: int) -> None:
        if self._commands is not None and pid in self._ended:
            with contextlib.suppress(OSError):
                self._commands.send(KILL + b"%d" % pid)
