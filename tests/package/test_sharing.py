"""The folder of a server that several processes share."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from openai_api_emulator.running.sharing import SharedFolder
from tests.support.server import REPOSITORY

JOIN = """
import sys
from pathlib import Path
from openai_api_emulator.running.sharing import SharedFolder

folder = SharedFolder(Path(sys.argv[1]))
with folder.alone():
    folder.join()
print("joined", flush=True)
sys.stdin.read()
"""


@contextmanager
def user(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that uses the server of a folder."""
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", JOIN, str(path)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"joined\n"
        yield process
        process.kill()


def test_user_is_one_until_it_leaves(tmp_path: Path) -> None:
    """A folder has users from when one joins to when the last has left."""
    first, second = SharedFolder(tmp_path), SharedFolder(tmp_path)
    assert not first.has_users()
    first.join()
    second.join()
    first.leave()
    assert first.has_users()
    second.leave()
    assert not first.has_users()


def test_user_that_was_killed_is_none(tmp_path: Path) -> None:
    """A user that was killed is no user any more, though it could not leave."""
    folder = SharedFolder(tmp_path)
    with user(tmp_path) as process:
        assert folder.has_users()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not folder.has_users()


def test_child_is_no_user(tmp_path: Path) -> None:
    """A process that a user has started does not use the server in its place."""
    folder = SharedFolder(tmp_path)
    folder.join()
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        folder.leave()
        assert not folder.has_users()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_server_without_keeper_is_none(tmp_path: Path) -> None:
    """A server is published as long as its keeper lives."""
    folder = SharedFolder(tmp_path)
    lock = folder.keeper_lock()
    folder.publish(port=1)
    assert SharedFolder(tmp_path).published() == {"port": 1}
    os.close(lock)
    assert folder.published() is None


def test_one_is_alone(tmp_path: Path) -> None:
    """While one is alone the folder is busy, and it is no more after it, whatever happens."""
    folder = SharedFolder(tmp_path)

    def fail() -> None:
        with folder.alone():
            assert folder.is_busy()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not folder.is_busy()
