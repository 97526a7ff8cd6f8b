"""Changes that hold for all workers or for none, in one process that plays several."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from emulator.contract.errors import APIError
from emulator.control.changes import alterations
from emulator.control.changes.document import MAX_DOCUMENT_BYTES, NOTHING, Changes
from emulator.control.truth import Truth, Unchanged
from emulator.settings import Settings
from emulator.shared_memory.document import SharedDocument
from emulator.shared_memory.files import create
from emulator.shared_memory.members import Members
from emulator.state import LiveState, State, read_state

pytestmark = pytest.mark.anyio


@pytest.fixture
def files() -> tuple[str, str]:
    """Return what the workers share."""
    return create("document"), create("members")


def worker(files: tuple[str, str], **settings: Any) -> Truth:  # noqa: ANN401 - settings
    """Return what one worker has."""
    document, members = files
    live = LiveState(read_state(Settings(**settings)))
    return Truth(live, SharedDocument(document, MAX_DOCUMENT_BYTES), Members(members))


def itl(value: float | None) -> Callable[[Changes], Changes]:
    """Return what gives the ITL a value."""
    return lambda changes: alterations.patch_settings(changes, {"itl_ms": value})


async def test_a_change_holds_for_each_look_after_it(files: tuple[str, str]) -> None:
    """Every worker has it with its next look; a snapshot that was taken before stays."""
    one, other = worker(files), worker(files)
    before = other.live.current
    changes = await one.change(itl(7))
    assert changes.revision == 1
    for each in (one, other):
        assert (each.live.current.version, each.live.current.settings.itl_ms) == (1, 7)
    assert (before.version, before.settings.itl_ms) == (0, 50)
    assert other.live.current is other.live.current


async def test_what_is_not_good_changes_nothing(files: tuple[str, str]) -> None:
    """A change that is refused leaves revision and state as they were, for all."""
    one, other = worker(files), worker(files)
    await one.change(itl(7))
    with pytest.raises(APIError):
        await other.change(itl(-7))
    assert [each.live.current.version for each in (one, other)] == [1, 1]
    assert other.changes == one.changes


async def test_nothing_to_change_makes_no_revision(files: tuple[str, str]) -> None:
    """Who finds nothing to do leaves the revision as it was."""

    def nothing(_: Changes) -> Changes:
        raise Unchanged

    one = worker(files)
    with pytest.raises(Unchanged):
        await one.change(nothing)
    assert one.live.current.version == 0


async def test_a_worker_that_starts_later_has_it(files: tuple[str, str]) -> None:
    """Who opens the memory later begins with what holds."""
    await worker(files).change(itl(7))
    late = worker(files)
    assert late.live.current.settings.itl_ms == 7
    late.look()
    assert late.changes.revision == 1


async def test_changes_at_once_take_turns(files: tuple[str, str]) -> None:
    """Of changes at once by several workers none is lost, and revisions rise by one."""
    workers = [worker(files) for _ in range(4)]
    lengths = range(1, 101)

    def one_more(changes: Changes, each: int) -> Changes:
        return alterations.patch_settings(changes, {"reasoning_lengths": {f"n{each}": each}})

    made = await asyncio.gather(
        *(workers[each % 4].change(partial(one_more, each=each)) for each in lengths)
    )
    assert sorted(changes.revision for changes in made) == [*lengths]
    for each in workers:
        assert each.live.current.settings.reasoning_lengths == {f"n{n}": n for n in lengths}


async def test_an_answer_waits_for_all_workers(files: tuple[str, str]) -> None:
    """Who has made a change is told when the others have seen it, and how many those are."""
    one = worker(files)
    one.join()
    await one.change(itl(7))
    assert await one.applied() == "1 of 1"


async def test_listeners_hear_of_each_state_once(files: tuple[str, str]) -> None:
    """What runs beside requests is told the state at the start, and each that follows."""
    one, other = worker(files), worker(files)
    heard: list[State] = []
    one.listen(heard.append)
    for value in (1, 2):
        await other.change(itl(value))
        one.look()
        one.look()
    assert [state.settings.itl_ms for state in heard] == [50, 1, 2]


async def test_too_much_is_refused(files: tuple[str, str]) -> None:
    """All changes together have a bound, beyond which nothing changes."""
    one = worker(files)
    with pytest.raises(APIError) as error:
        await one.change(lambda changes: changes._replace(schedule=b"x" * MAX_DOCUMENT_BYTES))
    assert error.value.status == 413
    assert one.live.current.version == 0


async def test_changes_of_another_start_may_not_fit(files: tuple[str, str]) -> None:
    """A change that is not good over this worker's own start leaves it as it was, and is told."""
    one, other = worker(files, engine="paper"), worker(files)
    await one.change(
        lambda changes: alterations.patch_settings(changes, {"engine": {"step_base_ms": 3}})
    )
    assert other.live.current.version == 0
    assert "engine" in other.problem
    await one.change(itl(7))
    assert other.live.current.version == 0
    await one.change(lambda changes: changes._replace(settings=NOTHING.settings))
    assert other.live.current.version == 3
    assert other.problem == ""


async def test_later_changes_of_other_hosts_win(files: tuple[str, str]) -> None:
    """What comes from other hosts holds if it is later, or of another history."""
    one = worker(files)
    first = await one.change(itl(1))
    second = await one.change(itl(2))
    await one.adopt(first)
    assert one.live.current.settings.itl_ms == 2
    await one.adopt(second._replace(mark=5, settings=b'{"itl_ms":3}'))
    assert one.live.current.settings.itl_ms == 3
    await one.adopt(second._replace(revision=9, settings=b'{"itl_ms":4}'))
    assert (one.live.current.version, one.live.current.settings.itl_ms) == (9, 4)
