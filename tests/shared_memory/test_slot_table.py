"""The table of slots in shared memory: exact over processes, and safe to be killed in."""

import hashlib
import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from emulator.shared_memory import slot_table
from emulator.shared_memory.files import create
from emulator.shared_memory.slot_table import SLOTS_PER_SET, SlotTable

SPAWN = multiprocessing.get_context("spawn")
Pair = tuple[int, int]


def digest(name: object) -> bytes:
    """Return the digest of a name."""
    return hashlib.blake2b(str(name).encode(), digest_size=16).digest()


def add(pair: Pair, amount: int) -> tuple[Pair, Pair]:
    """Add to both integers; the result is what they were."""
    return (pair[0] + amount, pair[1] + amount), pair


def opened(path: str | Path, *, alone: bool = False, sets: int = 64) -> SlotTable[Pair]:
    """Return a table of pairs."""
    return SlotTable[Pair](path, 2, sets, alone=alone)


@pytest.fixture
def path() -> str:
    """Return a file in memory."""
    return create("test")


@pytest.mark.parametrize("alone", [True, False])
def test_a_value_is_kept_under_its_digest(path: str, *, alone: bool) -> None:
    """A value starts with zeros, becomes what each change makes of it, and leaves others alone."""
    table = opened(path, alone=alone)
    assert [table.update(digest("a"), add, amount) for amount in (1, 2)] == [(0, 0), (1, 1)]
    assert table.update(digest("b"), add, 5) == (0, 0)
    assert (table.read(digest("a")), table.read(digest("b"))) == ((3, 3), (5, 5))


def test_reading_changes_nothing(path: str) -> None:
    """To read what is not there gives zeros, and takes no slot from anybody."""
    table = opened(path, sets=1)
    for name in range(SLOTS_PER_SET):
        table.update(digest(name), add, 1)
    assert table.read(digest("another")) == (0, 0)
    assert [table.read(digest(name)) for name in range(SLOTS_PER_SET)] == [(1, 1)] * SLOTS_PER_SET


def test_the_lowest_gives_way(path: str) -> None:
    """In a full set the value whose first integer is the lowest makes room, and starts anew."""
    table = opened(path, sets=1)
    for name in range(SLOTS_PER_SET):
        table.update(digest(name), add, 10 + (name * 7) % SLOTS_PER_SET)
    table.update(digest("new"), add, 100)
    assert table.read(digest(0)) == (0, 0)
    assert all(table.read(digest(name)) > (10, 10) for name in range(1, SLOTS_PER_SET))
    assert table.read(digest("new")) == (100, 100)


def test_a_change_that_fails_changes_nothing(path: str) -> None:
    """What a change raises is raised, the value stays, and nothing is left locked."""
    table, other = opened(path), opened(path)
    table.update(digest("a"), add, 1)

    def fail(_: Pair) -> tuple[Pair, None]:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        table.update(digest("a"), fail)
    assert other.update(digest("a"), add, 1) == (1, 1)


def count(path: str, begin: Connection, times: int) -> None:
    """Count in a process of its own, and tell what was seen."""
    table = opened(path)
    begin.recv()
    begin.send([table.update(digest("shared"), add, 1)[0] for _ in range(times)])


def test_processes_count_exactly(path: str) -> None:
    """However many processes change a value at once, no change is lost or made twice."""
    times, running = 5000, []
    for _ in range(4):
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=count, args=(path, theirs, times))
        process.start()
        running.append((process, ours))
    for _, pipe in running:
        pipe.send("begin")
    seen = sorted(before for _, pipe in running for before in pipe.recv())
    for process, _ in running:
        process.join()
    assert seen == [*range(4 * times)]


def count_for_ever(path: str, begun: Connection) -> None:
    """Count until killed."""
    table = opened(path)
    begun.send("begun")
    while True:
        table.update(digest("shared"), add, 1)


def test_a_killed_process_leaves_no_lock_and_no_half(path: str) -> None:
    """A process that is killed at any moment blocks nobody, and leaves whole values."""
    table = opened(path)
    for _ in range(3):
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=count_for_ever, args=(path, theirs))
        process.start()
        ours.recv()
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        first, second = table.update(digest("shared"), add, 1)
        assert first == second


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """A table is never made by mistake."""
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "none")


def test_without_locks_each_table_is_its_own(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the system has no file locks nothing is shared, and a warning says so."""
    monkeypatch.setattr(slot_table, "fcntl", None)
    one, other = opened(path), opened(path)
    assert [table.update(digest("a"), add, 1) for table in (one, one, other)] == [
        (0, 0),
        (1, 1),
        (0, 0),
    ]
    assert "each worker counts for itself" in caplog.messages[0]
    caplog.clear()
    opened(path, alone=True)
    assert caplog.messages == []


def test_files_elsewhere_are_temporary_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memfd a table lies in a file that is deleted at the exit of its maker."""
    monkeypatch.setattr(sys, "platform", "darwin")
    file = Path(create("test"))
    monkeypatch.undo()
    try:
        assert opened(file).update(digest("a"), add, 1) == (0, 0)
        assert opened(file).read(digest("a")) == (1, 1)
    finally:
        file.unlink()
