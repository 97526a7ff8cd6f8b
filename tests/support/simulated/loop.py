"""An event loop whose time jumps to the next timer when there is nothing else to do."""

import asyncio
import selectors
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType
from typing import Any, TypeVar

import pytest

from emulator.timing import clock

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Skips the time that the loop would have waited."""

    skipped_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready now, and skip the time if that is nothing.

        Raises:
            RuntimeError: Nothing will ever happen again.
        """
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("every task waits, and no timer is set")
            self.skipped_s += max(timeout, 0)
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """A loop that starts at 0 s and takes no time for what it runs."""

    def __init__(self) -> None:
        self._skipping = _Selector()
        super().__init__(self._skipping)

    def time(self) -> float:
        """Return the simulated time, in seconds."""
        return self._skipping.skipped_s

    def work(self, lasts_s: float) -> None:
        """Let time pass in which the loop does nothing else."""
        self._skipping.skipped_s += lasts_s

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Do without the thread that asyncio ends an executor in: it would not be waited for."""


class AtOnce(ThreadPoolExecutor):
    """Takes no time and no thread for what a thread is asked to do."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401
        """Do it now."""
        done: Future[Any] = Future()
        try:
            done.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            done.set_exception(error)
        return done


class LoopAlarm:
    """An alarm for the product's clock, which rings at the very instant on such a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = weakref.ref(loop)
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    def set(self, instant_s: float) -> None:
        """Ring at `instant_s`."""
        self.clear()
        loop = self._loop()
        assert loop is not None
        self._timer = loop.call_at(instant_s, self._ring)

    def clear(self) -> None:
        """Do not ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def simulated_clock(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> SimulatedLoop:
    """Return a loop by whose time the product's clock goes, and these modules of the product."""
    loop = SimulatedLoop()
    monkeypatch.setattr(clock, "_alarm", LoopAlarm)
    for module in (clock, *modules):
        monkeypatch.setattr(module, "monotonic", loop.time)
    return loop


async def wait_until(instant_s: float) -> None:
    """Sleep until the loop's time has reached an instant."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()
    loop.call_at(instant_s, waiter.set_result, None)
    await waiter


def run_simulated(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in simulated time."""
    return run_on(SimulatedLoop(), main)


def run_on(loop: SimulatedLoop, main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop, and close it."""
    loop.set_default_executor(AtOnce(1))
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)
