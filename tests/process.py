"""Free ports, and the end of processes that serve; the standard library alone."""

import os
import signal
import socket
import subprocess


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def stop(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Ask a process that leads its own group to end; kill the group if it has not in time."""
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
