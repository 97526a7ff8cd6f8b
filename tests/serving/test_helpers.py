"""Helper processes: what they do, how long, and what becomes of those that die."""

import asyncio
import contextlib
import hashlib
import os
import platform
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import uvloop

from emulator.helpers import bounds, pool
from emulator.helpers.free_memory import FreeMemory
from emulator.helpers.pool import BusyError, FailedError, HelperPool, Lane, TooMuchError
from emulator.helpers.spool import Spool
from tests.support.server import Server, eventually, is_alive, running_server

Order = tuple[str, float]


class Work:
    """Does what an order says, and tells the state that it has."""

    state: object = "the start's"

    def adopt(self, state: object) -> None:
        """Do it by another state."""
        self.state = state

    def __call__(self, order: Order, body: bytearray) -> Iterator[tuple[object, bytes]]:
        """Do it."""
        if order[0] == "state":
            yield self.state, b""
        yield from work(order, body)


def work(order: Order, body: bytearray) -> Iterator[tuple[object, bytes]]:  # noqa: C901 - flat
    """Do what an order says."""
    what, amount = order
    match what:
        case "digest":
            yield hashlib.sha256(body).hexdigest(), bytes(body[:3])
        case "pid":
            yield os.getpid(), b""
            time.sleep(amount)
        case "descriptors":
            yield [str(path.resolve()) for path in Path("/proc/self/fd").iterdir()], b""
        case "niceness":
            yield os.nice(0), b""
        case "sleep":
            time.sleep(amount)
            yield "slept", b""
        case "two":
            yield 1, b""
            while not Path(bytes(body).decode()).exists():
                time.sleep(0.01)
            yield 2, b""
        case "spin":
            while True:
                pass
        case "hoard":
            yield len(bytearray(int(amount))), b""
        case "fail":
            raise LookupError("no such thing")


NewLoop = Callable[[], asyncio.AbstractEventLoop]
Run = Callable[[Callable[[HelperPool], Awaitable[None]]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> NewLoop:
    """Return what makes an event loop, of either kind."""
    return request.param  # type: ignore[no-any-return]


def runner_of(new_loop: NewLoop, *, processes: bool) -> Run:
    """Return what runs a function with a pool of two helpers, or of one thread."""

    def runs(function: Callable[[HelperPool], Awaitable[None]]) -> None:
        async def with_pool() -> None:
            helpers = HelperPool(2, Work(), lambda: None, processes=processes)
            helpers.start()
            try:
                async with asyncio.timeout(120):
                    await function(helpers)
            finally:
                await helpers.close()

        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(with_pool())

    return runs


@pytest.fixture
def run(new_loop: NewLoop) -> Run:
    """Return what runs a function with helper processes, on either event loop."""
    return runner_of(new_loop, processes=True)


@pytest.fixture(params=[True, False], ids=["processes", "thread"])
def run_either(request: pytest.FixtureRequest, new_loop: NewLoop) -> Run:
    """Return what runs a function with helper processes, and then with a thread instead."""
    return runner_of(new_loop, processes=request.param)


async def ask(
    helpers: HelperPool, what: str, amount: float = 0, body: bytes = b"", lane: Lane = Lane.SHORT
) -> object:
    """Return the first result of a job."""
    return (await helpers.submit((what, amount), body, lane).next())[0]


def test_a_large_body_arrives_whole(run_either: Run) -> None:
    """A helper gets every byte of a body, and its bytes come back."""
    body = os.urandom(30_000_000)

    async def check(helpers: HelperPool) -> None:
        result, blob = await helpers.submit(("digest", 0), body, Lane.LONG).next()
        assert (result, b"".join(blob)) == (hashlib.sha256(body).hexdigest(), body[:3])

    run_either(check)


def test_a_spool_arrives_whole(run_either: Run) -> None:
    """A helper gets every byte of a spool; the worker keeps none of it, and no descriptor."""
    parts = [os.urandom(size) for size in (1, 70_000, 5_000_000)]

    async def check(helpers: HelperPool) -> None:
        spool = Spool(parts[0])
        for part in parts[1:]:
            spool += part
        assert len(spool) == sum(map(len, parts))
        result, blob = await helpers.submit(("digest", 0), spool, Lane.LONG).next()
        body = b"".join(parts)
        assert (result, b"".join(blob)) == (hashlib.sha256(body).hexdigest(), body[:3])
        assert await asyncio.to_thread(eventually, lambda: not is_open(spool.fd))

    run_either(check)


def test_a_spool_that_finds_no_helper_is_closed(
    run_either: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is refused leaves no descriptor."""
    monkeypatch.setattr(pool, "MAX_WAITING", 0)

    async def check(helpers: HelperPool) -> None:
        spool = Spool(b"refused")
        with pytest.raises(BusyError):
            helpers.submit(("digest", 0), spool, Lane.LONG)
        assert await asyncio.to_thread(eventually, lambda: not is_open(spool.fd))

    run_either(check)


def is_open(fd: int) -> bool:
    """Tell whether a descriptor is one of a spool."""
    try:
        return "memfd:request" in os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return False


def test_results_come_one_after_the_other(run_either: Run, tmp_path: Path) -> None:
    """A job's first result comes while the job goes on."""
    goes_on = tmp_path / "goes on"

    async def check(helpers: HelperPool) -> None:
        job = helpers.submit(("two", 0), str(goes_on).encode(), Lane.LONG)
        assert (await job.next())[0] == 1
        goes_on.touch()
        assert (await job.next())[0] == 2

    run_either(check)


def test_a_helper_gives_way(run: Run) -> None:
    """A helper has a higher niceness than the worker, so that the clock comes first."""

    async def check(helpers: HelperPool) -> None:
        assert await ask(helpers, "niceness") == os.nice(0) + 10

    run(check)


def test_a_helper_has_no_descriptor_of_the_worker(run: Run, tmp_path: Path) -> None:
    """A helper keeps nothing open that is the worker's, wherever its descriptors lie."""
    file = tmp_path / "of the worker"
    file.touch()
    descriptors = [os.open(file, os.O_RDONLY) for _ in range(100)]
    descriptors += [os.dup2(descriptors[0], number) for number in (800, 999)]

    async def check(helpers: HelperPool) -> None:
        found = await ask(helpers, "descriptors")
        assert isinstance(found, list)
        assert len(found) >= 4  # the three of every process, and the connection
        assert str(file) not in found

    try:
        run(check)
    finally:
        for number in descriptors:
            os.close(number)


def test_helpers_start_where_many_descriptors_are_allowed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start does not try to close as many descriptors as there may be, of which there are few."""

    def closerange(low: int, high: int) -> None:
        """Close one after the other, as without close_range(2)."""
        for number in range(low, high):
            with contextlib.suppress(OSError):
                os.close(number)

    monkeypatch.setattr(os, "closerange", closerange)
    monkeypatch.setattr(os, "sysconf", lambda _: 1 << 30)

    async def check(helpers: HelperPool) -> None:
        assert await ask(helpers, "niceness") == os.nice(0) + 10

    run(check)


def test_helpers_do_many_jobs(run_either: Run) -> None:
    """There are no more helpers than there may be, however many jobs they do."""

    async def check(helpers: HelperPool) -> None:
        assert len({await ask(helpers, "pid") for _ in range(20)}) <= 2

    run_either(check)


def test_a_fault_of_the_work_is_told(run_either: Run) -> None:
    """An exception comes back as its traceback, and the next job is done."""

    async def check(helpers: HelperPool) -> None:
        with pytest.raises(FailedError, match=r"LookupError: no such thing"):
            await ask(helpers, "fail")
        assert await ask(helpers, "pid")

    run_either(check)


def test_memory_is_limited(run: Run) -> None:
    """A job that takes too much memory is refused, and the next one is done."""

    async def check(helpers: HelperPool) -> None:
        with pytest.raises(TooMuchError):
            await ask(helpers, "hoard", 2 * bounds.MAX_MEMORY)
        assert await ask(helpers, "hoard", 1000) == 1000

    run(check)


def test_processor_time_is_limited(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel ends a job that takes too much processor time, and the next one is done."""
    monkeypatch.setattr(bounds, "MAX_CPU_S", 0)

    async def check(helpers: HelperPool) -> None:
        with pytest.raises(TooMuchError):
            await ask(helpers, "spin", lane=Lane.LONG)
        assert await ask(helpers, "niceness")

    run(check)


def test_time_is_limited(run_either: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that takes too long is ended, though it takes no processor time."""
    monkeypatch.setattr(pool, "MOMENT_S", 0.1)
    monkeypatch.setattr(pool, "MAX_FIRST_S", 0.3)

    async def check(helpers: HelperPool) -> None:
        with pytest.raises(TooMuchError):
            await ask(helpers, "sleep", 60)

    run_either(check)


def test_what_takes_longer_than_a_moment_is_tried_again(
    run_either: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that looked short and is not has the time of a long one."""
    monkeypatch.setattr(pool, "MOMENT_S", 0.1)

    async def check(helpers: HelperPool) -> None:
        assert await ask(helpers, "sleep", 0.5) == "slept"

    run_either(check)


def test_long_jobs_leave_a_helper_to_short_ones(run: Run) -> None:
    """However many long jobs there are, a short one waits for none of them."""

    async def check(helpers: HelperPool) -> None:
        slow = [helpers.submit(("sleep", 60), b"", Lane.LONG) for _ in range(5)]
        assert await ask(helpers, "niceness")
        for job in slow:
            job.cancel()

    run(check)


def test_what_has_time_goes_last(run: Run) -> None:
    """Of those that wait for a helper, the ones that have time come after all others."""

    async def check(helpers: HelperPool) -> None:
        done: list[str] = []

        async def noted(name: str, lane: Lane) -> None:
            await ask(helpers, "sleep", 0.05, lane=lane)
            done.append(name)

        later = [asyncio.create_task(noted("later", Lane.LATER)) for _ in range(10)]
        await asyncio.sleep(0)
        short = [asyncio.create_task(noted("short", Lane.SHORT)) for _ in range(4)]
        await asyncio.gather(*later, *short)
        # As many as there are helpers had begun.
        assert done.index("short") <= 2
        assert done[-6:] == ["later"] * 6

    run(check)


def test_nobody_waits_for_long(run_either: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that finds no helper in time is refused."""
    monkeypatch.setattr(pool, "MAX_WAIT_S", 0.2)

    async def check(helpers: HelperPool) -> None:
        busy = helpers.submit(("sleep", 60), b"", Lane.LONG)
        with pytest.raises(BusyError):
            await ask(helpers, "niceness", lane=Lane.LONG)
        busy.cancel()

    run_either(check)


def test_few_wait(run_either: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job is refused at once where as many wait as may."""
    monkeypatch.setattr(pool, "MAX_WAITING", 1)

    async def check(helpers: HelperPool) -> None:
        jobs = [helpers.submit(("sleep", 60), b"", Lane.LONG) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            helpers.submit(("niceness", 0), b"", Lane.LONG)
        for job in jobs:
            job.cancel()

    run_either(check)


def test_what_is_given_up_ends(run: Run) -> None:
    """A helper ends when its job is given up, and the next job is done."""

    async def check(helpers: HelperPool) -> None:
        job = helpers.submit(("pid", 60), b"", Lane.SHORT)
        pid = (await job.next())[0]
        job.cancel()
        assert await asyncio.to_thread(eventually, lambda: not psutil.pid_exists(pid))
        assert await ask(helpers, "niceness")

    run(check)


def test_a_thread_that_is_given_up_ends(new_loop: NewLoop) -> None:
    """Without processes a job that is given up ends too, and the next one is done."""

    async def check(helpers: HelperPool) -> None:
        before = {*threading.enumerate()}

        def has_thread() -> bool:
            threads = {*threading.enumerate()} - before
            return any(thread.name == "helper" for thread in threads)

        job = helpers.submit(("spin", 0), b"", Lane.SHORT)
        assert await asyncio.to_thread(eventually, has_thread)
        job.cancel()
        assert await ask(helpers, "pid") == os.getpid()
        assert await asyncio.to_thread(eventually, lambda: not has_thread())

    runner_of(new_loop, processes=False)(check)


def test_what_a_thread_costs_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Where there are no processes a warning says once what that costs."""

    async def check(helpers: HelperPool) -> None:
        assert await ask(helpers, "niceness") == os.nice(0)

    with caplog.at_level("WARNING"):
        runner_of(asyncio.new_event_loop, processes=False)(check)
    [record] = caplog.records
    assert "no helper processes on linux" in record.getMessage()
    assert "Tokens may be late meanwhile" in record.getMessage()


def test_a_helper_that_is_killed_is_replaced(run: Run) -> None:
    """The job of a helper that somebody kills may be tried again, and the next is done."""

    async def check(helpers: HelperPool) -> None:
        job = helpers.submit(("pid", 60), b"", Lane.SHORT)
        os.kill((await job.next())[0], signal.SIGKILL)
        with pytest.raises(BusyError):
            await job.next()
        assert await ask(helpers, "niceness")

    run(check)


def test_a_nursery_that_is_killed_is_replaced(run: Run) -> None:
    """Jobs are done after somebody has killed the nursery."""

    async def check(helpers: HelperPool) -> None:
        pid = await ask(helpers, "pid")
        assert isinstance(pid, int)
        parent = psutil.Process(pid).parent()
        assert parent is not None
        parent.kill()
        answers = [await done_or_busy(helpers) for _ in range(20)]
        assert answers[-1] == "done"

    run(check)


async def done_or_busy(helpers: HelperPool) -> str:
    """Ask for something; return whether it was done."""
    try:
        await ask(helpers, "niceness")
    except BusyError:
        return "busy"
    return "done"


@pytest.mark.slow
def test_helpers_end_with_their_server() -> None:
    """No helper and no nursery is left after the worker was killed, or the server ended."""
    with running_server("--arg", "workers=1") as server:
        ask_for_json(server)
        [worker] = server.workers
        before = server.helpers
        assert len(before) >= 2
        worker.kill()
        assert eventually(lambda: not any(is_alive(process) for process in before), 10)
        assert eventually(lambda: len(server.workers) == 1 and len(server.helpers) >= 1, 30)
        last = server.helpers
    assert eventually(lambda: not any(is_alive(process) for process in last), 10)


def ask_for_json(server: Server) -> None:
    """Ask for what a helper makes."""
    body = {
        "model": "gpt-4",
        "messages": [{"role": "user", "content": "json"}],
        "response_format": {"type": "json_object"},
    }
    url = f"{server.url}/v1/chat/completions"
    httpx.post(url, json=body, trust_env=False).raise_for_status()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps less")
def test_memory_of_a_crowd_is_given_back() -> None:
    """What many jobs held is the system's again, though small pieces of it are still in use."""
    size, count = 70_000, 1000

    def resident() -> int:
        return int(psutil.Process().memory_info().rss)

    async def main() -> None:
        memory = FreeMemory()
        pairs = [(b"x" * size, b"y" * (size // 35)) for _ in range(count)]
        for _ in pairs:
            memory.note(size)
        full, pieces = resident(), [piece for _, piece in pairs]
        del pairs
        for _ in pieces:
            memory.note(size)
        async with asyncio.timeout(60):
            while full - resident() < 0.7 * size * count:  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0.05)

    asyncio.run(main())
