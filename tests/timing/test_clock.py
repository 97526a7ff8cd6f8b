"""The clock: never early, in order, bounded in memory, gone with its loop."""

import asyncio
import contextlib
import gc
import itertools
import os
import random
import statistics
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from emulator.timing import clock
from emulator.timing.clock import STEPS_TURN_S, Clock, running_clock, sleep_until
from tests.support.reference import least
from tests.support.simulated.loop import SimulatedLoop, run_on, simulated_clock

if sys.platform == "win32":
    new_event_loops: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop]
else:
    import uvloop

    new_event_loops = [asyncio.new_event_loop, uvloop.new_event_loop]

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=new_event_loops, ids=lambda new: new.__module__)
def run(request: pytest.FixtureRequest) -> Run:
    """Return what runs a coroutine on an asyncio loop, and then on a uvloop loop."""

    def run(coroutine: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(coroutine)

    return run


@pytest.fixture(params=["timerfd", "loop timers"])
def alarm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give each test the timerfd, and then the loop's timers in its place."""
    if request.param == "loop timers":
        monkeypatch.setattr(clock, "_alarm", lambda _, ring: clock._LoopAlarm(ring))
    elif sys.platform != "linux":
        pytest.skip("only Linux has timerfd")
    return str(request.param)


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> SimulatedLoop:
    """Return a loop whose time is simulated, which the clock goes by."""
    return simulated_clock(monkeypatch)


async def lateness_s(instant_s: float) -> float:
    """Sleep until `instant_s`, and return how much later it was then."""
    await sleep_until(instant_s)
    return time.monotonic() - instant_s


PATIENCE_S = 60


def takes_stop_iteration() -> bool:
    """Tell whether a future takes a StopIteration, as a RuntimeError; some releases of 3.12 do."""
    loop = asyncio.new_event_loop()
    try:
        loop.create_future().set_exception(StopIteration())
    except TypeError:
        return False
    finally:
        loop.close()
    return True


async def until(condition: Callable[[], bool]) -> None:
    """Look at a condition until it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.001)


@pytest.mark.usefixtures("alarm")
def test_never_early(run: Run) -> None:
    """No sleep ends before its instant, however many there are."""

    async def main() -> None:
        start_s = time.monotonic()
        late_s = await asyncio.gather(
            *(lateness_s(start_s + random.uniform(-0.01, 0.2)) for _ in range(2000))
        )
        assert min(late_s) >= 0

    run(main())


@pytest.mark.parametrize("distance_s", [1e-9, 1e-7, 1e-6, 1e-5, 1e-4])
def test_never_early_by_a_rounding(run: Run, distance_s: float) -> None:
    """Sleeps of nanoseconds end at their instant or later, and do end."""

    async def main() -> None:
        for _ in range(200):
            assert await lateness_s(time.monotonic() + distance_s) >= 0

    run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has timerfd")
def test_finer_than_the_loop(run: Run) -> None:
    """The median sleep ends within 0.4 ms of when the system lets a process wake that just sleeps.

    A loop that rounds to 1 ms ends sleeps of 2.3 ms 0.7 ms late.
    """

    def later_s() -> float:
        """Return by how much the loop's sleeps are later than the system's between them."""
        late_s, systems_s = [], []

        async def main() -> None:
            for _ in range(60):
                late_s.append(await lateness_s(time.monotonic() + 0.0023))
                due_s = time.monotonic() + 0.0023
                time.sleep(0.0023)  # noqa: ASYNC251 - the reference
                systems_s.append(time.monotonic() - due_s)

        run(main())
        return statistics.median(late_s) - statistics.median(systems_s)

    assert least(later_s, below=0.0004) < 0.0004


@pytest.mark.parametrize("new_loop", new_event_loops, ids=lambda new: new.__module__)
def test_thousands_at_once(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """1,000 sleeps end in the order of their instants, and leave nothing behind."""
    ended: list[float] = []

    async def sleep(instant_s: float) -> None:
        await sleep_until(instant_s)
        ended.append(instant_s)

    async def main() -> bool:
        """Return whether all sleeps had begun before the first had to end."""
        start_s = time.monotonic() + lead_s
        instants_s = [start_s + random.random() / 4 for _ in range(1000)]
        sleeps = [asyncio.create_task(sleep(instant_s)) for instant_s in instants_s]
        await asyncio.sleep(0)
        in_time = time.monotonic() < start_s
        await asyncio.gather(*sleeps)
        assert len(running_clock()) == 0
        return in_time

    def holds() -> bool:
        ended.clear()
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(main())

    lead_s = 0.1
    while not holds():
        lead_s *= 2
    assert ended == sorted(ended)
    assert len(ended) == 1000


def test_slack_lets_sleeps_end_together(simulated: SimulatedLoop) -> None:
    """With a slack of 20 ms sleeps end at its multiples, never early: a wake serves many."""
    slack_s = 0.02

    async def end_s(instant_s: float) -> float:
        """Sleep until an instant, and return when it ended."""
        await sleep_until(instant_s)
        assert simulated.time() >= instant_s
        return simulated.time()

    async def main() -> list[float]:
        running_clock().slacken(slack_s)
        return await asyncio.gather(*(end_s(random.uniform(0.001, 0.4)) for _ in range(500)))

    ends_s = run_on(simulated, main())
    assert {round(end_s / slack_s, 6) for end_s in ends_s} == set(range(1, 21))


@pytest.mark.usefixtures("alarm")
def test_steps_are_taken_when_they_are_due(run: Run) -> None:
    """Each step is taken at the instant that the one before returned, never early."""
    early_s: list[float] = []

    async def take(steps: int) -> None:
        due_s = time.monotonic() + random.uniform(0.001, 0.2)

        def step(now_s: float) -> object:
            nonlocal due_s, steps
            early_s.append(due_s - now_s)
            due_s += 0.01
            steps -= 1
            return due_s if steps else "over"

        while await running_clock().drive(due_s, step) != "over":
            pass  # it was behind

    async def main() -> None:
        await asyncio.gather(*(take(20) for _ in range(50)))
        assert len(running_clock()) == 0

    run(main())
    assert len(early_s) == 1000
    assert max(early_s) <= 0


def test_steps_end_with_the_past_or_a_fault(run: Run) -> None:
    """An instant that has passed is returned to whoever waits, and what a step raises is raised."""

    async def main() -> None:
        soon_s = time.monotonic() + 0.01
        past, fault = running_clock().drive(soon_s, lambda _: 1.0), ValueError("broken")

        def broken(_: float) -> object:
            raise fault

        raised = running_clock().drive(soon_s, broken)
        assert await lateness_s(soon_s) >= 0
        assert await past == 1.0
        with pytest.raises(ValueError, match="broken"):
            await raised
        assert len(running_clock()) == 0

    run(main())


def test_no_step_after_a_cancelled_one(run: Run) -> None:
    """Whoever is cancelled takes no further step, and the others go on."""
    taken: list[str] = []

    async def main() -> None:
        def begin(name: str) -> asyncio.Future[Any]:
            def step(now_s: float) -> float:
                taken.append(name)
                return now_s + 0.005

            return running_clock().drive(time.monotonic() + 0.005, step)

        going, ending = begin("going"), begin("ending")
        await until(lambda: "ending" in taken)
        before = len(taken)
        ending.cancel()
        running_clock().forget(ending)
        await until(lambda: len(taken) >= before + 5)
        assert set(taken[before:]) == {"going"}
        going.cancel()
        running_clock().forget(going)
        assert len(running_clock()) == 0

    run(main())


class Broken:
    """Waits, and fails when it may go on."""

    def done(self) -> bool:
        """Wait on."""
        return False

    def set_result(self, _: None, /) -> None:
        """Fail."""
        raise LookupError("broken")

    def set_exception(self, _: Exception, /) -> None:
        """Fail."""


def faults_of(loop: asyncio.AbstractEventLoop) -> list[object]:
    """Return where the faults that reach a loop will be."""
    faults: list[object] = []
    loop.set_exception_handler(lambda _, context: faults.append(context.get("exception")))
    return faults


def test_turns_go_on_after_one_that_fails(run: Run) -> None:
    """A callback that raises in its turn is told to the loop once; all others get their turns."""

    async def main() -> None:
        faults = faults_of(asyncio.get_running_loop())
        before = [running_clock().turn() for _ in range(3)]
        running_clock().wake_in_turn([Broken()])
        after = [running_clock().turn() for _ in range(3)]
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*before, *after)
            await running_clock().turn()
        assert [repr(fault) for fault in faults] == ["LookupError('broken')"]
        assert len(running_clock()) == 0

    run(main())


@pytest.mark.usefixtures("alarm")
def test_alarm_goes_on_after_a_step_that_fails_badly(run: Run) -> None:
    """What a step raises that no future takes is told to the loop once; other sleeps end."""
    is_taken = takes_stop_iteration()

    async def main() -> None:
        faults = faults_of(asyncio.get_running_loop())
        due_s = time.monotonic() + 0.01

        def broken(_: float) -> object:
            raise StopIteration

        waiter = running_clock().drive(due_s, broken)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(sleep_until(due_s), sleep_until(due_s + 0.02))
        if is_taken:
            with pytest.raises(RuntimeError):
                await waiter
        else:
            await until(lambda: len(faults) > 0)
        assert [type(fault) for fault in faults] == ([] if is_taken else [TypeError])
        assert len(running_clock()) == 0
        waiter.cancel()

    run(main())


@pytest.mark.usefixtures("alarm")
def test_step_may_give_up_its_own_sleep(run: Run) -> None:
    """A step that cancels its own waiter is the last one, and no fault."""

    async def main() -> None:
        faults = faults_of(asyncio.get_running_loop())
        due_s = time.monotonic() + 0.01
        waiter = running_clock().drive(due_s, lambda _: waiter.cancel())
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(sleep_until(due_s), sleep_until(due_s + 0.02))
        await until(waiter.done)
        assert waiter.cancelled()
        assert faults == []

    run(main())


STEP_S = 0.0002


def taken_between(loop: SimulatedLoop, steps: int, other_s: float) -> list[int]:
    """Let steps of `STEP_S` be due together beside what keeps the loop for `other_s` each turn.

    Returns how many had been taken before each turn of the other, and how many there are.
    """
    between: list[int] = []

    async def main() -> None:
        taken = 0

        def step(_: float) -> None:
            nonlocal taken
            taken += 1
            loop.work(STEP_S)

        waiters = [running_clock().drive(0.02, step) for _ in range(steps)]
        while not all(waiter.done() for waiter in waiters):
            between.append(taken)
            loop.work(other_s)
            await asyncio.sleep(0)

    run_on(loop, main())
    return [*between, steps]


def test_many_steps_let_the_loop_go_on(simulated: SimulatedLoop) -> None:
    """However many steps are due, the loop gets its turn after some 10 ms of them."""
    between = taken_between(simulated, 400, 0.001)
    most = max(later - earlier for earlier, later in itertools.pairwise(between))
    assert most == pytest.approx(STEPS_TURN_S / STEP_S, abs=2)


def test_steps_do_not_wait_for_other_work_again_and_again(simulated: SimulatedLoop) -> None:
    """Half a turn of steps is taken without a turn of other work between them."""
    steps = int(STEPS_TURN_S / STEP_S / 2)
    assert not any(0 < taken < steps for taken in taken_between(simulated, steps, 0.005))


def test_an_earlier_sleep_overtakes(run: Run) -> None:
    """A sleep that begins later and ends earlier is not held up by the one before it."""

    async def main() -> None:
        now_s = time.monotonic()
        long = asyncio.create_task(sleep_until(now_s + 60))
        await asyncio.sleep(0)
        await sleep_until(now_s + 0.01)
        assert not long.done()
        long.cancel()

    run(main())


@pytest.mark.usefixtures("alarm")
def test_cancelled_sleeps_are_purged(run: Run) -> None:
    """Cancelled sleeps never outnumber those that go on, and the others end in time."""

    async def main() -> None:
        now_s = time.monotonic()
        survivor = asyncio.create_task(lateness_s(now_s + 0.2))
        sleeps = [asyncio.create_task(sleep_until(now_s + 600 + i)) for i in range(2000)]
        await asyncio.sleep(0)
        assert len(running_clock()) == 2001
        for sleep in sleeps:
            sleep.cancel()
        await asyncio.wait(sleeps)
        assert len(running_clock()) <= 2
        assert await survivor >= 0

    run(main())


def test_cancelled_while_it_ends(run: Run) -> None:
    """A sleep that is cancelled after its instant has come is cancelled, and counted once."""

    async def main() -> None:
        now_s = time.monotonic()
        first, second = (asyncio.create_task(sleep_until(now_s + 0.01)) for _ in range(2))
        first.add_done_callback(lambda _: second.cancel())
        await asyncio.wait([first, second])
        others = [asyncio.create_task(sleep_until(now_s + 60)) for _ in range(3)]
        await asyncio.sleep(0)
        for other in others:
            other.cancel()
        await asyncio.wait(others)
        assert len(running_clock()) == 0

    run(main())


def test_the_past_gives_others_a_turn(run: Run) -> None:
    """A task that is always behind lets every other run."""

    async def main() -> None:
        async def behind() -> None:
            while True:
                await sleep_until(0)

        task = asyncio.create_task(behind())
        for _ in range(100):
            await asyncio.sleep(0)
        await sleep_until(time.monotonic() + 0.01)
        task.cancel()

    run(main())


def test_tasks_that_are_behind_share_evenly(simulated: SimulatedLoop) -> None:
    """Of tasks that are always behind, none gets more than a turn ahead of another."""
    counts = [0] * 50

    async def behind(index: int) -> None:
        while sum(counts) < 1500:
            await sleep_until(0)
            counts[index] += 1
            simulated.work(0.0002)

    async def main() -> None:
        await asyncio.gather(*(behind(index) for index in range(len(counts))))

    run_on(simulated, main())
    assert max(counts) - min(counts) <= 1


def test_tasks_in_time_come_before_those_behind(simulated: SimulatedLoop) -> None:
    """Of 50 tasks that are always behind, with 1 ms of work, 2 or so come before a punctual one."""
    turns: list[float] = []

    async def behind() -> None:
        while True:
            await sleep_until(0)
            turns.append(simulated.time())
            simulated.work(0.001)

    async def turns_after(instant_s: float) -> int:
        """Return how many turns began between an instant and the end of the sleep until then."""
        await sleep_until(instant_s)
        return len(turns) - bisect_left(turns, instant_s)

    async def main() -> None:
        greedy = [asyncio.create_task(behind()) for _ in range(50)]
        before = [await turns_after(simulated.time() + 0.0103) for _ in range(40)]
        for task in greedy:
            task.cancel()
        await asyncio.wait(greedy)
        await sleep_until(0)
        assert max(before[5:]) <= 4

    run_on(simulated, main())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc and timerfd")
def test_closed_with_the_loop(run: Run) -> None:
    """A loop's end closes its timerfd, and frees its clock, also when sleeps were cancelled."""

    async def main() -> None:
        sleep = asyncio.create_task(sleep_until(time.monotonic() + 600))
        await sleep_until(time.monotonic() + 0.001)
        sleep.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sleep

    gc.collect()
    gc.freeze()  # a collection would else look at all that the other tests hold
    try:
        before = timerfds()
        for _ in range(10):
            run(main())
        gc.collect()
        assert timerfds() <= before
        assert sum(isinstance(kept, Clock) for kept in gc.get_objects()) == 0
    finally:
        gc.unfreeze()


def timerfds() -> int:
    """Return how many timerfds this process has open."""
    return sum("timerfd" in os.readlink(entry) for entry in open_descriptors())


def open_descriptors() -> list[str]:
    """Return the links that stand for open descriptors, but for that of the look itself."""
    entries = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return [entry for entry in entries if os.path.lexists(entry)]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no timerfd to miss")
def test_no_timerfd(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If the system gives no timerfd the loop's timers take its place, and the log says so."""

    def refuse() -> None:
        raise OSError(24, "Too many open files")

    async def main() -> None:
        assert await lateness_s(time.monotonic() + 0.0123) >= 0

    monkeypatch.setattr(clock, "_timerfd", refuse)
    run(main())
    assert "Too many open files" in caplog.text
