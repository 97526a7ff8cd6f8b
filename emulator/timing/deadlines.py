"""Equal timeouts for many members, by one timer of the event loop."""

import asyncio
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Generic, TypeVar

Member = TypeVar("Member", bound=Hashable)


class Deadlines(Generic[Member]):
    """Calls `expire` with each member whose time is over.

    Members expire in the order in which they were added, so that one timer serves all:
    asyncio.timeout() would make one for each.

    Args:
        time_s: The time of each member, in seconds.
        expire: Called with a member that has been removed. An exception goes to the loop's
            exception handler, and affects no other member.
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
        self._ends_s: dict[Member, float] = {}  # in order of expiration
        self._is_watching = False

    def __contains__(self, member: Member) -> bool:
        return member in self._ends_s

    def add(self, member: Member) -> None:
        """Start a member's time, or start it again."""
        self._ends_s.pop(member, None)
        self._ends_s[member] = self._now() + self._time_s
        if not self._is_watching:
            self._is_watching = True
            asyncio.get_running_loop().call_later(self._time_s, self._watch)

    def discard(self, member: Member) -> bool:
        """Remove a member; return false if it has expired."""
        return self._ends_s.pop(member, None) is not None

    def _watch(self) -> None:
        """Expire the members whose time is over, and set the timer for the next."""
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
