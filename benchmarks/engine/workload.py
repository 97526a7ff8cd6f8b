"""What the requests of a prediction are like, and when they come."""

import random
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from emulator.engine.runner import TimedSequence


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Beginnings that prompts share, such as system prompts or the turns before.

    Args:
        number: How many different ones; each request has one of them, by chance.
        tokens: The length of each.
        block_size: Of the engine's cache.
    """

    number: int
    tokens: int
    block_size: int

    def keys(self, rng: random.Random, prompt_tokens: int) -> list[Hashable]:
        """Return the keys of a prompt's full blocks; those after the prefix are its own."""
        prefix, own = rng.randrange(self.number), object()
        shared = self.tokens // self.block_size
        return [
            (prefix if index < shared else own, index)
            for index in range(prompt_tokens // self.block_size)
        ]


@dataclass(frozen=True, slots=True)
class Workload:
    """What requests are like, and how they come.

    Tokens are drawn evenly from 1 - `spread` to 1 + `spread` times their mean. Arrivals are random,
    or `even`: all the same time apart. With `prefixes` each prompt begins with one of them.
    """

    prompt_tokens: int
    output_tokens: int
    spread: float = 0.5
    even: bool = False
    prefixes: Prefixes | None = None

    def draw(self, rng: random.Random, arrival_s: float) -> TimedSequence:
        """Return one request."""
        least, most = 1 - self.spread, 1 + self.spread
        prompt_tokens = max(round(self.prompt_tokens * rng.uniform(least, most)), 1)
        output_tokens = max(round(self.output_tokens * rng.uniform(least, most)), 1)
        if self.prefixes is None:
            return TimedSequence(prompt_tokens, output_tokens, arrival_s)
        prompt_tokens += self.prefixes.tokens
        keys = self.prefixes.keys(rng, prompt_tokens)
        return TimedSequence(prompt_tokens, output_tokens, arrival_s, keys)

    def arrivals(self, rate: float, duration_s: float, rng: random.Random) -> Iterator[float]:
        """Yield when requests come, in seconds, `rate` of them in each."""
        at_s = 0.0
        while True:
            at_s += 1 / rate if self.even else rng.expovariate(rate)
            if at_s >= duration_s:
                return
            yield at_s

    def requests(self, rate: float, duration_s: float, rng: random.Random) -> list[TimedSequence]:
        """Return all requests that come in a time, in order of arrival."""
        return [self.draw(rng, at_s) for at_s in self.arrivals(rate, duration_s, rng)]
