"""The nursery: a process with one thread that forks a worker's helpers, and ends with the worker.

It is a fork of the worker at its start, so that all share the memory of what they have loaded and
it costs a few milliseconds. From then on the worker itself, with its threads, forks no more.
"""

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from emulator.helpers.bounds import Bounds
from emulator.helpers.helper import serve
from emulator.helpers.wire import Work

NICENESS = 10
# The kernel looks here first for what to end when memory is short.
OOM_SCORE = 500

FORK, KILL = b"F", b"K"
_PR_SET_NAME = 15
_COMMAND = 32


def fork_nursery(work: Work, prepare: Callable[[], None]) -> tuple[int, socket.socket]:
    """Start a nursery; return its process id, and the socket that commands it.

    Args:
        work: Does the jobs of its helpers.
        prepare: Is called in each helper before its first job.
    """
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the worker has threads by now
        pid = os.fork()
    if pid:
        its.close()
        return pid, ours
    try:
        _become_nursery(its)
        _Nursery(its, work, prepare).run()
    finally:
        os._exit(0)


def _become_nursery(commands: socket.socket) -> None:
    """Let go of all that is the worker's: its sockets, its signals, its rank."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when the worker does
    _close_all_but(commands.fileno())
    gc.freeze()
    os.nice(NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, b"helper", 0, 0, 0)


def _close_all_but(kept: int) -> None:
    """Close all descriptors but the first three and `kept`; there may be a billion of them."""
    os.closerange(3, kept)  # leaves room for the one that lists them
    for name in os.listdir("/proc/self/fd"):
        if int(name) > kept:
            with contextlib.suppress(OSError):  # it was the one of the list
                os.close(int(name))


class _Nursery:
    """Forks and ends helpers as it is told, and tells how they ended."""

    def __init__(self, commands: socket.socket, work: Work, prepare: Callable[[], None]) -> None:
        self._commands = commands
        self._work = work
        self._prepare = prepare
        self._children: set[int] = set()
        self._ended, wakeup = socket.socketpair()
        self._wakeup = wakeup
        self._ended.setblocking(False)
        wakeup.setblocking(False)

    def run(self) -> None:
        """Serve until the worker is gone."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        while True:
            readable, _, _ = select.select([self._commands, self._ended], [], [])
            if self._ended in readable:
                with contextlib.suppress(BlockingIOError):
                    self._ended.recv(4096)
                self._reap()
            if self._commands in readable and not self._obey():
                break
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)

    def _obey(self) -> bool:
        """Take one command; return whether there is still a worker."""
        command, fds, _, _ = socket.recv_fds(self._commands, _COMMAND, 1)
        if not command:
            return False
        if command[:1] == FORK:
            self._fork(socket.socket(fileno=fds[0]))
        elif (pid := int(command[1:])) in self._children:
            os.kill(pid, signal.SIGKILL)
        return True

    def _fork(self, connection: socket.socket) -> None:
        pid = os.fork()
        if pid:
            connection.close()
            self._children.add(pid)
            self._commands.send(b"%d started" % pid)
            return
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for own in (self._commands, self._ended, self._wakeup):
                own.close()
            self._prepare()
            with contextlib.suppress(ConnectionError):
                bounds = Bounds()
                serve(connection, self._work, bounds.begin, bounds.are_outgrown)
        finally:
            os._exit(0)

    def _reap(self) -> None:
        """Tell of the helpers that ended: the number of the signal, 0 if it was none."""
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._children.discard(pid)
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            with contextlib.suppress(OSError):
                self._commands.send(b"%d ended %d" % (pid, number))
