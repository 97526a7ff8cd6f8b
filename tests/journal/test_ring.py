"""A ring of records in shared memory: what is kept, what is torn, and who was killed."""

import mmap
import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection

import pytest

from emulator.journal.ring import ROOM, Ring, Sizes, TooLongError, reserve
from emulator.shared_memory.files import create

SPAWN = multiprocessing.get_context("spawn")
SIZES = Sizes(arena=4096, rows=8)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes share no memory there")


@pytest.fixture
def path() -> str:
    """Return a file with room for two small rings."""
    made = create("test")
    reserve(made, 2, SIZES)
    return made


def numbers(ring: Ring, first: int = 0) -> list[int]:
    """Return the first value of each record."""
    return [row[0] for _, row in ring.rows(first)]


def test_records_are_read_by_others_in_their_order(path: str) -> None:
    """What one writes another reads, the first record first, and no ring holds those of another."""
    own, other = Ring(path, 0, SIZES), Ring(path, 1, SIZES)
    for number in range(3):
        own.write((number, "text", None, 0.5, True, ("a",)))
    other.write((7,))

    seen = Ring(path, 0, SIZES)
    assert [row for _, row in seen.rows()] == [
        (number, "text", None, 0.5, True, ("a",)) for number in range(3)
    ]
    assert numbers(Ring(path, 1, SIZES)) == [7]


def test_ring_turns_over(path: str) -> None:
    """Of more records than there is room for the last are kept, under the numbers that they had."""
    ring = Ring(path, 0, SIZES)
    for number in range(20):
        ring.write((number,))
    assert [(number, row[0]) for number, row in ring.rows()] == [(n, n) for n in range(12, 20)]
    assert numbers(ring, first=18) == [18, 19]
    assert ring.written == 20


def test_a_torn_record_is_left_out(path: str) -> None:
    """A record whose number is odd, or another's, is not read; those beside it are."""
    ring = Ring(path, 0, SIZES)
    for number in range(3):
        ring.write((number,))
    slot = (mmap.PAGESIZE + 1024) // 8
    ring._words[slot] += 1
    assert numbers(ring) == [0, 2]
    ring._words[slot] += 15
    assert numbers(ring) == [0, 2]


def test_a_record_that_changes_while_it_is_copied_is_left_out(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads looks at the number after the copy too."""
    ring = Ring(path, 0, SIZES)
    ring.write((1,))

    class Torn:
        def __getitem__(self, index: int) -> int:
            found: int = memory[index]
            if index == slot + 1:  # between the number and the copy
                memory[slot] += 1
            return found

    memory, slot = ring._words, mmap.PAGESIZE // 8
    monkeypatch.setattr(ring, "_words", Torn())
    assert ring.read(0) is None


def test_too_long_a_record_changes_nothing(path: str) -> None:
    """A record without room is refused, and what was there stays."""
    ring = Ring(path, 0, SIZES)
    ring.write((1,))
    with pytest.raises(TooLongError, match=str(ROOM)):
        ring.write(("x" * ROOM,))
    assert numbers(ring) == [1]


def test_arena_tells_what_was_overwritten(path: str) -> None:
    """Bytes are there until others took their room, and are never in two parts."""
    ring = Ring(path, 0, SIZES)
    places = [ring.keep(bytes([index]) * 1500) for index in range(5)]
    found = [ring.kept(place, 1500) for place in places]
    assert found[:2] == [None, None]
    assert found[-1] == b"\4" * 1500
    assert all(place % 4096 + 1500 <= 4096 for place in places)
    with pytest.raises(TooLongError):
        ring.keep(bytes(4097))


def write_for_ever(path: str, begun: Connection) -> None:
    """Write records until this process is killed."""
    ring = Ring(path, 0, SIZES)
    number = 0
    while True:
        ring.write((number, "x" * (number % 500), number))
        number += 1
        if number == 100:
            begun.send(None)


def test_records_of_a_killed_process_are_there_and_its_successor_goes_on(path: str) -> None:
    """After kill -9 whole records alone are read, and the next ones come after them."""
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=write_for_ever, args=(path, there))
    process.start()
    here.recv()
    ring = Ring(path, 0, SIZES)
    for _ in range(2000):  # while it writes
        assert all(row[0] == row[2] == number for number, row in ring.rows())
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()

    written = ring.written
    assert len(numbers(ring)) >= SIZES.rows - 1
    Ring(path, 0, SIZES).write((-1, "", written))
    assert [*ring.rows(written)] == [(written, (-1, "", written))]
