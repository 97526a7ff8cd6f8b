"""Who shares the memory: those that are alive, told apart from those that were killed."""

import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection

import pytest

from emulator.shared_memory.files import create
from emulator.shared_memory.members import Members

SPAWN = multiprocessing.get_context("spawn")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no file locks on Windows")


@pytest.fixture
def path() -> str:
    """Return a file in memory."""
    return create("test")


def join(path: str, connection: Connection) -> None:
    """Be a member, and tell what comes over the connection."""
    members = Members(path)
    members.join()
    connection.send(None)
    while True:
        members.tell(connection.recv())
        connection.send(None)


class Other:
    """A member in another process.

    Args:
        path: The file in memory.
    """

    def __init__(self, path: str) -> None:
        self._ours, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=join, args=(path, theirs), daemon=True)
        self.process.start()
        self._ours.recv()

    def tell(self, value: int) -> None:
        """Have it tell a value."""
        self._ours.send(value)
        self._ours.recv()

    def kill(self) -> None:
        """Kill it; it is a zombie until it is reaped, as a worker is for a while."""
        os.kill(self.process.pid or 0, signal.SIGKILL)


def test_who_has_told_less_is_behind(path: str) -> None:
    """A change waits for each member that has not seen it."""
    own, other = Members(path), Other(path)
    own.join()
    own.tell(3)
    other.tell(2)
    assert own.lagging(3)
    other.tell(3)
    assert not own.lagging(3)
    assert sorted(member.value for member in own.alive()) == [3, 3]
    other.kill()
    other.process.join()


def test_who_was_killed_counts_no_more(path: str) -> None:
    """Nobody waits for a member that was killed, though it is not reaped yet."""
    other, own = Other(path), Members(path)
    own.join()
    own.tell(1)
    assert not own.is_first()
    other.kill()
    os.waitid(os.P_PID, other.process.pid or 0, os.WEXITED | os.WNOWAIT)
    assert not own.lagging(1)
    assert own.is_first()
    assert [member.pid for member in own.alive()] == [os.getpid()]
    other.process.join()


def test_a_successor_takes_the_place(path: str) -> None:
    """However many come and go, the memory has room: places are taken again."""
    for _ in range(3):
        other = Other(path)
        other.kill()
        other.process.join()
    own = Members(path)
    own.join()
    assert own.is_first()
    assert len(own._slots()) == 1


def test_who_has_not_joined_is_no_member(path: str) -> None:
    """Who only looks is waited for by nobody, and is never the first."""
    looking = Members(path)
    looking.tell(5)
    assert looking.alive() == []
    assert not looking.is_first()
