"""The document in shared memory: read whole, whoever writes or is killed meanwhile."""

import itertools
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.connection import Connection

import pytest

from emulator.shared_memory.document import SharedDocument, TooLargeError
from emulator.shared_memory.files import create

SPAWN = multiprocessing.get_context("spawn")
ROOM = 100_000

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no file locks on Windows")


@pytest.fixture
def path() -> str:
    """Return a file in memory."""
    return create("test")


def text_of(number: int) -> bytes:
    """Return a document that shows whether all of it is of one writing."""
    return b"%d," % number * (1 + number * 7919 % 10_000)


def test_nothing_is_there_at_first(path: str) -> None:
    """Before the first writing there is no document."""
    assert SharedDocument(path, ROOM).read() == (0, b"")


def test_another_process_reads_what_was_written(path: str) -> None:
    """What one writes the other reads, and sees by one integer that it is new."""
    one, other = SharedDocument(path, ROOM), SharedDocument(path, ROOM)
    for number, text in enumerate((b"first", b"", b"third" * 1000), 1):
        with one.locked() as is_locked:
            assert is_locked
            one.write(text)
        assert other.number[0] == number
        assert other.read() == (number, text)


def test_too_large_a_document_changes_nothing(path: str) -> None:
    """What has no room is refused, and the last document stays."""
    document = SharedDocument(path, 10)
    document.write(b"0123456789")
    with pytest.raises(TooLargeError, match="at most 10 bytes, but got 11"):
        document.write(b"01234567890")
    assert document.read() == (1, b"0123456789")


def test_writers_exclude_each_other(path: str) -> None:
    """While one writes another is told so, and does not wait."""
    one, other = SharedDocument(path, ROOM), SharedDocument(path, ROOM)
    with one.locked(), other.locked() as is_locked:
        assert not is_locked
    with other.locked() as is_locked:
        assert is_locked


def write_on(path: str, ready: Connection) -> None:
    """Write documents until killed."""
    document = SharedDocument(path, ROOM)
    ready.send(None)
    for number in itertools.count(1):
        with document.locked() as is_locked:
            if is_locked:
                document.write(text_of(number))


def test_a_reader_never_sees_a_mix(path: str) -> None:
    """While another process writes on and on each document that is read is one of those written."""
    ours, theirs = SPAWN.Pipe()
    writer = SPAWN.Process(target=write_on, args=(path, theirs), daemon=True)
    writer.start()
    ours.recv()
    seen: set[int] = set()
    document, deadline_s = SharedDocument(path, ROOM), time.monotonic() + 20
    while len(seen) < 200 and time.monotonic() < deadline_s:
        number, text = document.read()
        if number:
            first = int(text.partition(b",")[0])
            assert text == text_of(first)
            seen.add(first)
    writer.kill()
    writer.join()
    assert len(seen) >= 200


def test_a_writer_that_is_killed_leaves_a_whole_document_and_no_lock(path: str) -> None:
    """After kill -9 at any moment the document is one of those written, and can be written."""
    document = SharedDocument(path, ROOM)
    for _ in range(5):
        ours, theirs = SPAWN.Pipe()
        writer = SPAWN.Process(target=write_on, args=(path, theirs), daemon=True)
        writer.start()
        ours.recv()
        before = document.number[0]
        while document.number[0] == before:
            pass
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
        _, text = document.read()
        assert text == text_of(int(text.partition(b",")[0]))
        with document.locked() as is_locked:
            assert is_locked
