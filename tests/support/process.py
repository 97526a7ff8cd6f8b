"""Free ports, the end of processes that serve, and who comes first; the standard library alone."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
from pathlib import Path

NICENESS = 10


def free_port() -> int:
    """Return a port that nobody listens on, and that no client is given meanwhile.

    Clients get ports from 32768 on by Linux's default, and other systems' are higher.
    """
    while True:
        port = secrets.choice(range(20_000, 32_768))
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def stop(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Ask a process that leads its own group to end; kill the group if it has not in time."""
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def step_back() -> None:
    """Let what this process measures come first: a client elsewhere would not take its processor.

    Linux shares a processor out among sessions first, so that a nice value counts only within one;
    where it does so, sched(7), /proc/self/autogroup sets that of the session.
    """
    os.nice(NICENESS)
    with contextlib.suppress(OSError):
        os.setsid()
        Path("/proc/self/autogroup").write_text(str(NICENESS))
