"""Sleeping until an instant, accurate to some 10 us where event loops round to 1 ms.

`Clock.slacken` trades accuracy for cheaper tokens.
"""

import asyncio
import ctypes
import logging
import math
import os
import sys
import time
import weakref
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from time import monotonic
from typing import Any, Protocol, TypeAlias, cast

# The longest time for late sleepers before those in time get the loop again.
TURN_S = 0.001
# The longest time for steps before the loop does other work. If it were much shorter than what
# requests take in one turn, tokens would fall behind on a machine that is not yet full.
STEPS_TURN_S = 0.01
_MAX_SLEEPS_PER_TURN = 64
_NS_PER_S = 1_000_000_000

Step: TypeAlias = Callable[[float], object]
# The instant, the order among equal instants, the future, and the step that is called.
_Sleep: TypeAlias = tuple[float, int, "asyncio.Future[Any]", Step | None]

logger = logging.getLogger("bentoml.openai_emulator")


async def sleep_until(instant_s: float) -> None:
    """Sleep until ``time.monotonic()`` has reached `instant_s`; never shorter.

    Sleeps end in the order of their instants. One whose instant has passed already yields to other
    tasks, and waits behind the sleeps that are in time: tasks that are always late delay the
    punctual ones by about `TURN_S` in total, and share the rest of the time evenly.

    >>> asyncio.run(sleep_until(monotonic() + 0.02))
    """
    await running_clock().sleep_until(instant_s)


# --------------------------------------------------------------------------------------
# Clocks, one for each event loop
# --------------------------------------------------------------------------------------


class Waiter(Protocol):
    """Something that can be woken, such as a future."""

    def done(self) -> bool:
        """Return whether there is nothing to wake any more."""

    def set_result(self, result: None, /) -> None:
        """Wake it."""

    def set_exception(self, exception: Exception, /) -> None:
        """Wake it with an error."""


class Sleeps(Protocol):
    """The time source of a stream of tokens: a `Clock`, or an engine."""

    async def sleep_until(self, instant_s: float) -> None:
        """Sleep until `instant_s`."""


class Clock:
    """The sleeps of one event loop: the pending ones in order, and a queue of the late ones.

    It holds its loop weakly, so that a closed loop can be collected.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Whoever calls a method runs in the loop. asyncio.get_running_loop() would call getpid().
        self._loop = cast("Callable[[], asyncio.AbstractEventLoop]", weakref.ref(loop))
        self._sleeps: list[_Sleep] = []
        self._order = count()
        self._cancelled = 0
        self._behind: deque[Waiter] = deque()
        self._taking_turns = False
        self._turned_s = 0.0
        self._sleeps_per_turn = 1
        self._turn_was_full = False
        self._alarm = _alarm(loop, self._ring)

    def __len__(self) -> int:
        """Return the number of sleeps, including cancelled ones that are not yet removed."""
        return len(self._sleeps) + len(self._behind)

    def slacken(self, slack_s: float) -> None:
        """Wake only at multiples of `slack_s` on ``time.monotonic()`` from now on.

        Sleeps that end close together then end at once, up to `slack_s` late. This is Linux's timer
        slack on a fixed grid, so that sleeps that are a multiple apart keep their distance.
        """
        self._alarm = _SlackAlarm(self._alarm, slack_s)

    def wait(self, instant_s: float) -> asyncio.Future[None]:
        """Return a future that is done when `instant_s` has come."""
        return self.drive(instant_s, None)

    def drive(self, instant_s: float, step: Step | None) -> asyncio.Future[Any]:
        """Call `step` with the time at `instant_s`, and again at each instant that it returns.

        A step must not block. The future gets the first result that is no instant in the future,
        or the exception that a step raises.
        """
        waiter: asyncio.Future[Any] = self._loop().create_future()
        self._add((instant_s, next(self._order), waiter, step))
        if self._sleeps[0][2] is waiter:
            self._alarm.set(instant_s)
        return waiter

    def _add(self, sleep: _Sleep) -> None:
        """Insert a sleep in order: at the end, if all streams have the same ITL."""
        sleeps = self._sleeps
        if not sleeps or sleep[0] > sleeps[-1][0]:
            sleeps.append(sleep)
        else:
            insort(sleeps, sleep)

    def forget(self, waiter: asyncio.Future[None]) -> None:
        """Drop a sleep that was cancelled; it is removed at the latest when half of all are."""
        if not waiter.cancelled():
            return  # it has ended, and was removed
        self._cancelled += 1
        if self._cancelled > len(self._sleeps) // 2:
            self._sleeps[:] = [sleep for sleep in self._sleeps if not sleep[2].done()]
            self._cancelled = 0
            if not self._sleeps:
                self._alarm.clear()

    def _ring(self) -> None:
        """End the sleeps that are due, call their steps, and set the alarm for the next."""
        sleeps, now_s, passed = self._sleeps, monotonic(), 0
        turn_ends_s = now_s + STEPS_TURN_S
        try:
            for instant_s, order, waiter, step in sleeps:
                if instant_s > now_s or now_s > turn_ends_s:
                    break
                passed += 1
                if waiter.done():
                    self._cancelled -= 1
                elif step is None:
                    waiter.set_result(None)
                else:
                    try:
                        found = step(now_s)
                    except Exception as error:  # noqa: BLE001 - the future gets it
                        waiter.set_exception(error)
                    else:
                        if isinstance(found, float) and found > now_s:
                            self._add((found, order, waiter, step))
                        elif not waiter.done():
                            waiter.set_result(found)
                    now_s = monotonic()
        finally:  # the loop logs anything else that is raised, and the other sleeps go on
            del sleeps[:passed]
            if sleeps:
                self._alarm.set(sleeps[0][0])
            else:
                self._alarm.clear()

    async def sleep_until(self, instant_s: float) -> None:
        """Sleep until ``time.monotonic()`` has reached `instant_s`; never shorter."""
        if instant_s <= monotonic():
            await self.turn()
            return
        waiter = self.wait(instant_s)
        try:
            await waiter
        except asyncio.CancelledError:
            self.forget(waiter)
            raise

    def turn(self) -> asyncio.Future[None]:
        """Return a future that is done when it is the turn of a task that is late."""
        waiter = self._loop().create_future()
        self._behind.append(waiter)
        if not self._taking_turns:
            self._begin_to_take_turns()
        return waiter

    def wake_in_turn(self, waiters: Iterable[Waiter]) -> None:
        """Wake many, some at a time, so that sleeps in time get the loop in between."""
        self._behind.extend(waiters)
        if not self._taking_turns:
            self._begin_to_take_turns()

    def _begin_to_take_turns(self) -> None:
        self._taking_turns = True
        self._turned_s = monotonic()
        self._loop().call_soon(self._take_turns)

    def _take_turns(self) -> None:
        """Wake the tasks that have been late for longest: as many as fill `TURN_S`."""
        if not self._behind:
            self._taking_turns = False
            return
        now_s = monotonic()
        took_s, self._turned_s = now_s - self._turned_s, now_s
        if took_s > TURN_S:
            self._sleeps_per_turn = max(self._sleeps_per_turn // 2, 1)
        elif took_s < TURN_S / 2 and self._turn_was_full:
            self._sleeps_per_turn = min(self._sleeps_per_turn * 2, _MAX_SLEEPS_PER_TURN)
        self._turn_was_full = len(self._behind) >= self._sleeps_per_turn
        try:
            for _ in range(min(self._sleeps_per_turn, len(self._behind))):
                waiter = self._behind.popleft()
                if not waiter.done():
                    waiter.set_result(None)
        finally:  # the loop logs what a waiter raises, and the others get their turns
            self._loop().call_soon(self._take_turns)


_clocks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Clock] = weakref.WeakKeyDictionary()


def running_clock() -> Clock:
    """Return the clock of the running event loop."""
    loop = asyncio.get_running_loop()
    clock = _clocks.get(loop)
    if clock is None:
        clock = _clocks[loop] = Clock(loop)
    return clock


# --------------------------------------------------------------------------------------
# Alarms
# --------------------------------------------------------------------------------------


class _Alarm(Protocol):
    """Calls back at an instant; setting it again replaces the instant."""

    def set(self, instant_s: float) -> None: ...

    def clear(self) -> None: ...


def _alarm(loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> _Alarm:
    """Return the most accurate alarm that the system has."""
    if sys.platform == "linux":
        try:
            return _TimerfdAlarm(loop, ring)
        except OSError as error:
            logger.warning("no timerfd, so that times are true to 1 ms only: %s", error)
    return _LoopAlarm(ring)


class _LoopAlarm:
    """An alarm by the loop's timers, which are accurate to 1 ms and may ring early."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    def set(self, instant_s: float) -> None:
        """Ring at `instant_s`, rounded up to 1 ms."""
        self.clear()
        delay_s = math.ceil((instant_s - monotonic()) * 1000) / 1000
        self._timer = asyncio.get_running_loop().call_later(max(delay_s, 0), self._ring)

    def clear(self) -> None:
        """Do not ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _SlackAlarm:
    """An alarm that rings at multiples of `slack_s` only."""

    def __init__(self, alarm: _Alarm, slack_s: float) -> None:
        self._alarm = alarm
        self._slack_s = slack_s
        self.clear = alarm.clear

    def set(self, instant_s: float) -> None:
        """Ring at the first multiple that is not before `instant_s`."""
        self._alarm.set(math.ceil(instant_s / self._slack_s) * self._slack_s)


class _TimerfdAlarm:
    """An alarm by a Linux timerfd on CLOCK_MONOTONIC, the clock of ``time.monotonic()``.

    The timerfd is never read, as setting or clearing it resets its expiration. It is closed when
    the loop is collected.

    Raises:
        OSError: The system gives no timerfd.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        fd, self.set, self.clear = _timerfd()
        weakref.finalize(loop, os.close, fd)
        loop.add_reader(fd, ring)


def _timerfd() -> tuple[int, Callable[[float], None], Callable[[], None]]:
    """Return a timerfd, a function that sets it to the ns after an instant, and one that stops it.

    They hold the GIL. os.timerfd_settime_ns() of Python 3.13 releases it, so that the clock would
    have to wait for another thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # TFD_NONBLOCK and TFD_CLOEXEC are O_NONBLOCK and O_CLOEXEC by definition.
    fd = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create failed")
    # struct itimerspec of timerfd_settime(2): s and ns of the interval, s and ns of the instant.
    spec = (ctypes.c_long * 4)()
    absolute = 1  # TFD_TIMER_ABSTIME
    settime = ctypes.PyDLL(None).timerfd_settime
    # Converting arguments and a result at each call would take longer than the call.
    settime.restype = None
    arguments = (
        ctypes.c_int(fd),
        ctypes.c_int(absolute),
        ctypes.c_void_p(ctypes.addressof(spec)),
        ctypes.c_void_p(),
    )
    second = 0

    def set_to(instant_s: float) -> None:
        nonlocal second
        ns = int((instant_s - second) * 1e9) + 1
        if not 0 < ns < _NS_PER_S:
            second, ns = divmod(int(instant_s * 1e9) + 1, _NS_PER_S)
            spec[2] = second
        spec[3] = ns
        settime(*arguments)

    def stop() -> None:
        nonlocal second
        second = spec[2] = spec[3] = 0
        settime(*arguments)

    return fd, set_to, stop
