"""An event loop whose time jumps to the next timer when there is nothing else to do."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

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


async def wait_until(instant_s: float) -> None:
    """Sleep until the loop's time has reached an instant."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()
    loop.call_at(instant_s, waiter.set_result, None)
    await waiter


def run_simulated(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in simulated time."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(main)
