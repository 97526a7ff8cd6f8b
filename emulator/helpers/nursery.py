"""The nursery: a single-threaded child of a worker that forks its helpers, and exits with it.

The worker forks it at the start, so that all helpers share the memory of what is loaded by then.
A worker has threads later, and must not fork any more.
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
# Helpers are the first that the kernel kills when memory is short.
OOM_SCORE = 500

FORK, KILL = b"F", b"K"
_PR_SET_NAME = 15
_COMMAND = 32


def fork_nursery(work: Work, prepare: Callable[[], None]) -> tuple[int, socket.socket]:
    """Fork a nursery; return its process id, and the socket for commands to it.

    Args:
        work: Does a job.
        prepare: Called in each helper before its first job.
    """
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # BentoML has started threads
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
    """Drop what was inherited from the worker: descriptors, signal handlers, priority."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it exits with the worker
    _close_all_but(commands.fileno())
    gc.freeze()
    os.nice(NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, b"helper", 0, 0, 0)


def _close_all_but(kept: int) -> None:
    """Close all descriptors from 3 on but `kept`; the limit may be 2**30, so only open ones."""
    os.closerange(3, kept)  # frees some for listdir, which needs one
    for name in os.listdir("/proc/self/fd"):
        if int(name) > kept:
            with contextlib.suppress(OSError):  # the one that listdir used
                os.close(int(name))


class _Nursery:
    """Forks and kills helpers on command, and reports how they exited."""

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
        """Serve until the worker has exited."""
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
        """Execute one command; return false when the worker has exited."""
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
        """Report the helpers that exited: the signal that killed each, or 0."""
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._children.discard(pid)
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            with contextlib.suppress(OSError):
                self._commands.send(b"%d ended %d" % (pid, number))
