"""What has ended is told soon, many requests at once, and whoever asks gets all of it."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from emulator.serving import backlog as module
from emulator.serving.backlog import LONGEST_WAIT_S, TOLD_AT_ONCE, WORDS_VARIABLE, Backlog
from emulator.transport.exchange import Exchange


def numbered(number: int) -> Exchange:
    """Return a request, which nobody looks at."""
    return cast("Exchange", number)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers share their words."""
    path = tmp_path / "words"
    path.touch()
    monkeypatch.setenv(WORDS_VARIABLE, str(path))


async def until(condition: Callable[[], bool]) -> None:
    """Return when something holds."""
    while not condition():  # noqa: ASYNC110 - nothing tells it
        await asyncio.sleep(0)


def opened(worker: int) -> Backlog:
    """Return the backlog of a worker that has started."""
    backlog = Backlog()
    backlog.open(worker)
    return backlog


@pytest.mark.anyio
async def test_each_is_told_once_and_in_order() -> None:
    """As many as are told at once are told at once; the others when their time is over."""
    backlog, told = Backlog(), list[object]()
    for number in range(TOLD_AT_ONCE + 3):
        backlog.add(told.append, numbered(number))
    assert told == [*range(TOLD_AT_ONCE)]
    await until(lambda: len(told) >= TOLD_AT_ONCE + 3)
    assert told == [*range(TOLD_AT_ONCE + 3)]


@pytest.mark.anyio
async def test_whoever_asks_gets_all() -> None:
    """To wait for what is told tells it."""
    backlog, told = Backlog(), list[object]()
    backlog.add(told.append, numbered(1))
    assert told == []
    await backlog.told()
    assert told == [1]


@pytest.mark.anyio
async def test_one_that_cannot_be_told_keeps_nothing_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its failure is in the log."""
    backlog, told = Backlog(), list[object]()

    def fail(_: Exchange) -> None:
        raise ValueError("no such thing")

    backlog.add(fail, numbered(1))
    backlog.add(told.append, numbered(2))
    with caplog.at_level(logging.ERROR):
        backlog.flush()
    assert told == [2]
    assert "no such thing" in caplog.text


@pytest.mark.anyio
@pytest.mark.usefixtures("shared")
async def test_other_workers_are_waited_for() -> None:
    """What another worker has still to tell is told before it is asked for."""
    one, other, told = opened(1), opened(2), list[object]()
    other.add(told.append, numbered(1))
    assert told == []
    await one.told()
    assert told == [1]


@pytest.mark.anyio
@pytest.mark.usefixtures("shared")
async def test_what_comes_later_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that always has something to tell holds up nobody."""
    monkeypatch.setattr(module, "LONGEST_WAIT_S", 1e9)
    one, other, told = opened(1), opened(2), list[object]()
    other.add(told.append, numbered(1))
    waiting = asyncio.create_task(one.told())
    await until(lambda: bool(told))
    for number in range(2, 5):
        other.add(told.append, numbered(number))
    await waiting
    assert told == [1]


@pytest.mark.anyio
@pytest.mark.usefixtures("shared")
async def test_a_killed_worker_is_not_waited_for_long() -> None:
    """Nor at all once its successor has started."""
    one, killed = opened(1), opened(2)
    killed.add(lambda _: None, numbered(1))
    killed._words = bytearray(2)  # type: ignore[assignment]  # it writes nothing any more
    now_s = asyncio.get_running_loop().time
    began_s = now_s()
    await one.told()
    assert now_s() - began_s >= LONGEST_WAIT_S
    opened(2)
    waiting = asyncio.create_task(one.told())
    await asyncio.sleep(0)
    assert waiting.done()
