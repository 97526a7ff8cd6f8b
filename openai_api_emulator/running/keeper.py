"""A process of its own that runs a server until the last user of it has left or ended.

``python -m openai_api_emulator.running.keeper FOLDER LOCK COMMAND...``; LOCK is an open file, which
is locked as long as this process lives.
"""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from openai_api_emulator.running.sharing import SharedFolder

LOOK_EVERY_S = 0.1
STOP_TIMEOUT_S = 3.0


def keep(folder: SharedFolder, command: Sequence[str]) -> None:
    """Run a server, its output in ``server.log``, while anybody uses it."""
    with (folder.path / "server.log").open("ab") as log:
        server = subprocess.Popen(  # noqa: S603 - our own command line
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while server.poll() is None and _is_used(folder):
            _wait(server)
    finally:
        end(server)


def end(server: subprocess.Popen[bytes]) -> None:
    """Ask a server to end, and kill what is left of it and its processes after a while."""
    try:
        root = psutil.Process(server.pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        processes = []
    server.terminate()
    _, left = psutil.wait_procs(processes, STOP_TIMEOUT_S)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    server.wait()


def _is_used(folder: SharedFolder) -> bool:
    """Tell whether the server has users; nobody can join one that has none."""
    if folder.is_busy():  # somebody joins, or waits for it to be ready
        return True
    with folder.alone():
        if folder.has_users():
            return True
        folder.retract()
        return False


def _wait(server: subprocess.Popen[bytes]) -> None:
    try:
        server.wait(LOOK_EVERY_S)
    except subprocess.TimeoutExpired:
        return


def _stop(*_: object) -> None:
    sys.exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    keep(SharedFolder(Path(sys.argv[1])), sys.argv[3:])
