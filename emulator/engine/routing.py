"""Which of several engines a request goes to: the policies of a router in front of replicas."""

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from emulator.engine.config import EngineConfig
from emulator.engine.scheduler import Scheduler
from emulator.settings import Policy

DEFAULT_POLICY: Policy = "round-robin"

# With so many more waiting than at the shortest queue, a prefix is not worth the wait.
MOST_MORE_WAITING = 4


def check_policy(policy: Policy, config: EngineConfig) -> None:
    """Check that a policy makes sense for an engine.

    Raises:
        ValueError: It goes by prefixes, and the engine keeps none.
    """
    if policy == "prefix-aware" and not config.prefix_caching:
        raise ValueError("prefix-aware needs an engine with prefix_caching: true")


class Router:
    """Chooses an engine for each request, by what queues and caches hold at that instant.

    Args:
        engines: The replicas, all alike.
        policy: How to choose.
        seed: Of the policy ``random``: a run with the same seed has the same choices.
    """

    def __init__(self, engines: Sequence[Scheduler[Any]], policy: Policy, seed: int = 0) -> None:
        self.engines = engines
        self._rng = random.Random(seed)
        self._next = 0
        ways: Mapping[Policy, Callable[[Sequence[Hashable]], int]] = {
            "round-robin": self._in_turn,
            "least-waiting": self._least_waiting,
            "prefix-aware": self._longest_prefix,
            "random": self._at_random,
        }
        self._choose = ways[policy]

    def choose(self, keys: Sequence[Hashable] = ()) -> int:
        """Return the number of the engine that the next request goes to.

        Args:
            keys: A key for each full block of its prompt.
        """
        if len(self.engines) == 1:
            return 0
        chosen = self._choose(keys)
        self._next = (chosen + 1) % len(self.engines)
        return chosen

    def _in_turn(self, _: Sequence[Hashable]) -> int:
        return self._next

    def _at_random(self, _: Sequence[Hashable]) -> int:
        return self._rng.randrange(len(self.engines))

    def _least_waiting(self, _: Sequence[Hashable]) -> int:
        return min(range(len(self.engines)), key=self._load)

    def _longest_prefix(self, keys: Sequence[Hashable]) -> int:
        """Return the engine with the longest prefix in its cache, unless its queue is too long."""
        in_order = sorted(range(len(self.engines)), key=self._load)
        chosen, longest = in_order[0], 0
        most_waiting = len(self.engines[chosen].waiting) + MOST_MORE_WAITING
        for number in in_order:
            engine = self.engines[number]
            if len(engine.waiting) > most_waiting or longest == len(keys):
                break
            # Few engines have the block that would make theirs the longest: ask for it first.
            if keys[longest] in engine.pool:
                found, _ = engine.pool.find(keys)
                if found > longest:
                    chosen, longest = number, found
        return chosen

    def _load(self, number: int) -> tuple[int, int, int]:
        """Return what orders engines: who waits, who runs, and then whose turn is next."""
        engine = self.engines[number]
        turn = (number - self._next) % len(self.engines)
        return len(engine.waiting), len(engine.running), turn
