"""A process of its own that runs a server until the last user of it has left or ended.

``python -m openai_api_emulator.running.keeper FOLDER COMMAND...`` returns at once. The lock that it
was given open, of `SharedFolder.keeper_lock`, stays locked until the keeper ends.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
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
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, STOP_TIMEOUT_S)
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
    if os.fork():  # whoever has started it may go, and has no child to wait for
        os._exit(0)
    signal.signal(signal.SIGTERM, _stop)
    keep(SharedFolder(Path(sys.argv[1])), sys.argv[2:])
