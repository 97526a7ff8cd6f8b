"""Deadlines: each member in its time, in simulated time."""

import asyncio
import random
from typing import Any

import pytest

from emulator.timing.deadlines import Deadlines
from tests.support.simulated.loop import SimulatedLoop, run_on


class CountingLoop(SimulatedLoop):
    """A loop in simulated time that counts its timers, and keeps the errors that reach it."""

    def __init__(self) -> None:
        self.timers = 0
        self.errors: list[BaseException] = []
        super().__init__()
        self.set_exception_handler(lambda _, context: self.errors.append(context["exception"]))

    def call_at(self, *arguments: Any, **options: Any) -> asyncio.TimerHandle:  # type: ignore[override]  # noqa: ANN401
        """Count the timers, those of `call_later` too."""
        self.timers += 1
        return super().call_at(*arguments, **options)


@pytest.fixture
def loop() -> CountingLoop:
    """Return a loop in simulated time."""
    return CountingLoop()


def test_members_end_in_order_and_in_time(loop: CountingLoop) -> None:
    """Each member expires once, when its time is over; one that was discarded never does."""
    ended: list[tuple[int, float]] = []
    deadlines = Deadlines[int](10, lambda member: ended.append((member, loop.time())), loop.time)
    chance, expected = random.Random(1), []

    async def main() -> None:
        for member in range(100):
            deadlines.add(member)
            if member % 3:
                expected.append((member, loop.time() + 10))
            await asyncio.sleep(chance.choice([0, 0.5, 7]))
            if not member % 3:
                assert deadlines.discard(member)
                assert member not in deadlines
        await asyncio.sleep(20)

    run_on(loop, main())
    assert [member for member, _ in ended] == [member for member, _ in expected]
    assert [end_s for _, end_s in ended] == pytest.approx([end_s for _, end_s in expected])


def test_member_that_has_ended_is_not_in(loop: CountingLoop) -> None:
    """A member is in until its time is over, and discarding it later tells that it was late."""
    deadlines = Deadlines[str](10, lambda _: None, loop.time)

    async def main() -> None:
        deadlines.add("a")
        await asyncio.sleep(9)
        assert "a" in deadlines
        await asyncio.sleep(2)
        assert "a" not in deadlines
        assert not deadlines.discard("a")

    run_on(loop, main())


def test_member_that_is_added_again_has_its_time_again(loop: CountingLoop) -> None:
    """A member that comes again is behind those that came meanwhile."""
    ended: list[tuple[str, int]] = []
    deadlines = Deadlines[str](
        10, lambda member: ended.append((member, round(loop.time()))), loop.time
    )

    async def main() -> None:
        deadlines.add("a")
        await asyncio.sleep(4)
        deadlines.add("b")
        await asyncio.sleep(4)
        deadlines.add("a")
        await asyncio.sleep(20)

    run_on(loop, main())
    assert ended == [("b", 14), ("a", 18)]


def test_one_timer_serves_all(loop: CountingLoop) -> None:
    """However many members there are, the loop has one timer for them, also after a quiet time."""
    ended: list[int] = []
    deadlines = Deadlines[int](10, ended.append, loop.time)

    async def main() -> None:
        for first in (0, 1000):
            before = loop.timers
            for member in range(first, first + 1000):
                deadlines.add(member)
            assert loop.timers == before + 1
            await asyncio.sleep(50)
            assert ended == [*range(first + 1000)]

    run_on(loop, main())


def test_one_that_fails_keeps_nobody_waiting(loop: CountingLoop) -> None:
    """What a callback raises goes to the loop, once, and the others expire all the same."""
    ended: list[int] = []

    def expire(member: int) -> None:
        if member == 1:
            raise LookupError(member)
        ended.append(member)

    deadlines = Deadlines[int](10, expire, loop.time)

    async def main() -> None:
        for member in range(4):
            deadlines.add(member)
        await asyncio.sleep(11)
        deadlines.add(4)
        await asyncio.sleep(11)

    run_on(loop, main())
    assert ended == [0, 2, 3, 4]
    assert [repr(error) for error in loop.errors] == ["LookupError(1)"]
