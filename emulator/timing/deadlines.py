"""Deadlines for many members that all have the same time, watched by one timer of the loop."""

import asyncio
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Generic, TypeVar

Member = TypeVar("Member", bound=Hashable)


class Deadlines(Generic[Member]):
    """Calls `expire` with each member whose time is over.

    A timer of its own for each member, as of asyncio.timeout(), would cost about 15 us. As all
    have the same time, they end in the order in which they came.

    Args:
        time_s: The time that each member has, in seconds.
        expire: Called with a member, which is in no more. What it raises goes to the loop's
            exception handler, and keeps nobody else waiting.
        now: Returns the time, in seconds.
    """

    def __init__(
        self,
        time_s: float,
        expire: Callable[[Member], object],
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._time_s = time_s
        self._expire = expire
        self._now = now
        self._ends_s: dict[Member, float] = {}  # in the order in which they end
        self._is_watching = False

    def __contains__(self, member: Member) -> bool:
        return member in self._ends_s

    def add(self, member: Member) -> None:
        """Give a member its time, anew if it is in already; an event loop has to run."""
        self._ends_s.pop(member, None)
        self._ends_s[member] = self._now() + self._time_s
        if not self._is_watching:
            self._is_watching = True
            asyncio.get_running_loop().call_later(self._time_s, self._watch)

    def discard(self, member: Member) -> bool:
        """Let go of a member; return whether it was in, and so in time."""
        return self._ends_s.pop(member, None) is not None

    def _watch(self) -> None:
        """Expire the members whose time is over, and come back for the next."""
        now_s, wait_s = self._now(), 0.0
        try:
            while self._ends_s:
                member, end_s = next(iter(self._ends_s.items()))
                if end_s > now_s:
                    wait_s = end_s - now_s
                    break
                del self._ends_s[member]
                self._expire(member)
        finally:
            self._is_watching = bool(self._ends_s)
            if self._is_watching:
                asyncio.get_running_loop().call_later(wait_s, self._watch)
