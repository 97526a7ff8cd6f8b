"""One awaitable, "sleep until this instant", true to some 10 us where event loops round to 1 ms.

An operator whose machine is small may take that back, for a cheaper token: see `Clock.slacken`.
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

# How long sleeps that are behind may keep the loop before those in time get it again.
TURN_S = 0.001
# How long steps in time may keep it before it does other work: what requests take in a turn of
# their own must not be much more, or tokens fall behind on a machine that is not yet full.
STEPS_TURN_S = 0.01
_MAX_SLEEPS_PER_TURN = 64
_NS_PER_S = 1_000_000_000

Step: TypeAlias = Callable[[float], object]
# Its instant, its place among those of the same instant, who waits, and what is done meanwhile.
_Sleep: TypeAlias = tuple[float, int, "asyncio.Future[Any]", Step | None]

logger = logging.getLogger("bentoml.openai_emulator")


async def sleep_until(instant_s: float) -> None:
    """Sleep until ``time.monotonic()`` has reached `instant_s`; never shorter.

    Sleeps end in the order of their instants. One whose instant has already passed still gives the
    other tasks a turn, and waits behind the sleeps that are in time: tasks that are always behind
    delay the punctual ones by about `TURN_S` in all, and share what is left evenly.

    >>> asyncio.run(sleep_until(monotonic() + 0.02))
    """
    await running_clock().sleep_until(instant_s)


# --------------------------------------------------------------------------------------
# Clocks, one for each event loop
# --------------------------------------------------------------------------------------


class Waiter(Protocol):
    """What is told that somebody may go on; a future is one."""

    def done(self) -> bool:
        """Return whether nobody waits any more."""

    def set_result(self, result: None, /) -> None:
        """Let it go on."""

    def set_exception(self, exception: Exception, /) -> None:
        """Let it fail."""


class Sleeps(Protocol):
    """What a stream of tokens sleeps by: a `Clock`, or an engine that keeps the time."""

    async def sleep_until(self, instant_s: float) -> None:
        """Sleep until `instant_s`."""


class Clock:
    """The sleeps of one event loop: those to come in order, a queue of those that are behind.

    It refers to its loop only while somebody sleeps, so that a loop that is done can be collected.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # It is there for all who ask: they run in it. asyncio.get_running_loop() would ask the
        # system for the process's id each time.
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
        """Return how many sleeps are kept, with those that were cancelled and not yet purged."""
        return len(self._sleeps) + len(self._behind)

    def slacken(self, slack_s: float) -> None:
        """Wake only at multiples of `slack_s` on ``time.monotonic()`` from now on.

        Sleeps that end close to each other then end together, up to so many seconds late. It is
        Linux's timer slack, but for the multiples: sleeps that are a multiple apart are late alike,
        and keep their distance.
        """
        self._alarm = _SlackAlarm(self._alarm, slack_s)

    def wait(self, instant_s: float) -> asyncio.Future[None]:
        """Return a future that is done when `instant_s` has come."""
        return self.drive(instant_s, None)

    def drive(self, instant_s: float, step: Step | None) -> asyncio.Future[Any]:
        """Call `step` with the time when `instant_s` has come, and again whenever it says.

        A step returns the instant of the next one. It must not sleep itself, nor take long. The
        future gets what a step returns that is no instant to come, or what it raises.
        """
        waiter: asyncio.Future[Any] = self._loop().create_future()
        self._add((instant_s, next(self._order), waiter, step))
        if self._sleeps[0][2] is waiter:
            self._alarm.set(instant_s)
        return waiter

    def _add(self, sleep: _Sleep) -> None:
        """Keep a sleep in its place, which for streams of one ITL is behind all others."""
        sleeps = self._sleeps
        if not sleeps or sleep[0] > sleeps[-1][0]:
            sleeps.append(sleep)
        else:
            insort(sleeps, sleep)

    def forget(self, waiter: asyncio.Future[None]) -> None:
        """Note that a sleep was cancelled. At most half of the sleeps kept are such garbage."""
        if not waiter.cancelled():
            return  # its instant had come, and it is kept no more
        self._cancelled += 1
        if self._cancelled > len(self._sleeps) // 2:
            self._sleeps[:] = [sleep for sleep in self._sleeps if not sleep[2].done()]
            self._cancelled = 0
            if not self._sleeps:
                self._alarm.clear()

    def _ring(self) -> None:
        """End the sleeps whose instant has come, and take steps; set the alarm for the next."""
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
                    except Exception as error:  # noqa: BLE001 - whoever waits gets it
                        waiter.set_exception(error)
                    else:
                        if isinstance(found, float) and found > now_s:
                            self._add((found, order, waiter, step))
                        elif not waiter.done():
                            waiter.set_result(found)
                    now_s = monotonic()
        finally:  # what else is raised is for the loop to log: the other sleeps do not wait for it
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
        """Return a future that is done when a task that is behind may go on."""
        waiter = self._loop().create_future()
        self._behind.append(waiter)
        if not self._taking_turns:
            self._begin_to_take_turns()
        return waiter

    def wake_in_turn(self, waiters: Iterable[Waiter]) -> None:
        """Wake many in turns, between which those that are in time get the loop."""
        self._behind.extend(waiters)
        if not self._taking_turns:
            self._begin_to_take_turns()

    def _begin_to_take_turns(self) -> None:
        self._taking_turns = True
        self._turned_s = monotonic()
        self._loop().call_soon(self._take_turns)

    def _take_turns(self) -> None:
        """Let the tasks that have been behind for longest go on: as many as fill a turn."""
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
        finally:  # the loop logs what one of them raises, and the others get their turns
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
    """Calls back when an instant has come; setting it again replaces the instant."""

    def set(self, instant_s: float) -> None: ...

    def clear(self) -> None: ...


def _alarm(loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> _Alarm:
    """Return the best alarm that this system has."""
    if sys.platform == "linux":
        try:
            return _TimerfdAlarm(loop, ring)
        except OSError as error:
            logger.warning("no timerfd, so that times are true to 1 ms only: %s", error)
    return _LoopAlarm(ring)


class _LoopAlarm:
    """An alarm made of the loop's timers, whose grain is 1 ms; it may ring early."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    def set(self, instant_s: float) -> None:
        """Ring at `instant_s`, rounded up to the loop's grain."""
        self.clear()
        delay_s = math.ceil((instant_s - monotonic()) * 1000) / 1000
        self._timer = asyncio.get_running_loop().call_later(max(delay_s, 0), self._ring)

    def clear(self) -> None:
        """Do not ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _SlackAlarm:
    """Another alarm, which rings at multiples of `slack_s` only."""

    def __init__(self, alarm: _Alarm, slack_s: float) -> None:
        self._alarm = alarm
        self._slack_s = slack_s
        self.clear = alarm.clear

    def set(self, instant_s: float) -> None:
        """Ring at the first multiple that is not before `instant_s`."""
        self._alarm.set(math.ceil(instant_s / self._slack_s) * self._slack_s)


class _TimerfdAlarm:
    """An alarm made of a Linux timerfd on CLOCK_MONOTONIC, the clock of ``time.monotonic()``.

    It is never read: to set or to clear it takes back that it has expired. The descriptor is
    closed when the loop is collected.

    ``set(instant_s)`` makes it ring at that instant, rounded up to 1 ns, or at once if it has
    passed; ``clear()`` keeps it from ringing.

    Raises:
        OSError: The system gives no timerfd.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        fd, self.set, self.clear = _timerfd()
        weakref.finalize(loop, os.close, fd)
        loop.add_reader(fd, ring)


def _timerfd() -> tuple[int, Callable[[float], None], Callable[[], None]]:
    """Return a timerfd, what sets it to the ns after an instant, and what stops it.

    To set it keeps the interpreter's lock, which os.timerfd_settime_ns() of Python 3.13 lets go of:
    another thread would take it, and the clock wait for it.
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
    # To convert the arguments at each call would take a third of it, and a result a fifth.
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
