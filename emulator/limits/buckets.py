"""Token buckets that refill continuously. Time is a parameter, in ticks of 10 us.

A bucket's debt is what it lacks to be full: each unit taken adds the length of its window, each
stride of time subtracts its limit. All numbers are integers below 2**53 (the highest limit, 10**9,
times a day of 8.64e6 strides is 8.64e15), so that Lua computes as exactly as Python.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, final

TICK_NS = 10_000
TICKS_PER_MS = 100

Kind = Literal["requests", "tokens"]


@dataclass(frozen=True, slots=True)
class Window:
    """The time in which an empty bucket fills; `stride` is its unit of time, in ticks."""

    name: str
    duration_ms: int
    stride: int

    @property
    def length(self) -> int:
        """The window in strides."""
        return self.duration_ms * TICKS_PER_MS // self.stride


MINUTE = Window("min", 60_000, stride=1)
DAY = Window("day", 86_400_000, stride=1000)


@final
@dataclass(frozen=True, slots=True)
class Bucket:
    """A limit on requests or tokens in a window."""

    kind: Kind
    limit: int
    window: Window = MINUTE
    stride: int = field(init=False, repr=False)
    unit: int = field(init=False, repr=False)
    capacity: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        length = self.window.length
        for name, value in (
            ("stride", self.window.stride),
            ("unit", length),
            ("capacity", self.limit * length),
        ):
            object.__setattr__(self, name, value)

    def debt_at(self, debt: int, since: int, now: int) -> int:
        """Return the debt at `now`, given that at `since`; a clock set back refills nothing."""
        stride = self.stride
        passed = now // stride - since // stride
        if debt > self.capacity:  # noqa: PLR1730 - min() and max() are slower
            debt = self.capacity  # it was made under a higher limit
        if passed > 0:
            debt -= passed * self.limit
        return debt if debt > 0 else 0  # noqa: FURB136

    def tick_of_debt(self, debt: int, now: int, at_most: int) -> int:
        """Return the first tick from `now` on at which `debt` is down to `at_most`."""
        over = debt - at_most
        if over <= 0:
            return now
        return (now // self.stride - (-over // self.limit)) * self.stride

    def turn(self, fits_at: int, promised: int, cost: int, now: int) -> int:
        """Return the tick promised to a request behind one that was `promised` its own.

        At most a window ahead, when the bucket is full again in any case.
        """
        behind = min(promised, now + self.window.length * self.stride)
        if behind <= now:
            return fits_at
        return max(fits_at, behind - (-cost * self.unit // self.limit) * self.stride)

    def remaining(self, debt: int) -> int:
        """Return the whole units that are left."""
        return (self.capacity - debt) // self.unit

    def refill_ms(self, units: int) -> int:
        """Return the time in which `units` refill, in ms, rounded down as OpenAI does."""
        return units * self.window.duration_ms // self.limit


@dataclass(frozen=True, slots=True)
class Limits:
    """The two buckets that a request takes from; None where there is no limit."""

    requests: Bucket | None = None
    tokens: Bucket | None = None

    def __iter__(self) -> Iterator[Bucket | None]:
        """Iterate over both."""
        yield self.requests
        yield self.tokens


# The state of a pair of buckets: the tick at which both are full again, late by at most a stride,
# the tick of the last change, the debts of requests and tokens, and the last ticks promised to
# refused requests. Promises reserve nothing: they spread the retries, which would come at once.
State: TypeAlias = tuple[int, int, int, int, int, int]


@dataclass(slots=True)  # frozen would be slower to create
class Verdict:
    """The decision about a request; what is left is None where there is no limit."""

    requests_left: int | None
    tokens_left: int | None
    refused: Bucket | None = None
    retry_ms: int = 0  # until a retry may pass; 0 if it never will
    cost: int = 0  # what the request needs of the bucket that refused it

    @property
    def left(self) -> tuple[int | None, int | None]:
        """The requests and the tokens that are left."""
        return self.requests_left, self.tokens_left


def look(limits: Limits, state: State, now: int) -> Verdict:
    """Return what is left."""
    _, at, requests_debt, tokens_debt, _, _ = state
    requests, tokens = limits.requests, limits.tokens
    return Verdict(
        requests and requests.remaining(requests.debt_at(requests_debt, at, now)),
        tokens and tokens.remaining(tokens.debt_at(tokens_debt, at, now)),
    )


def take(limits: Limits, state: State, tokens: int, now: int) -> tuple[State, Verdict]:
    """Take a request of `tokens` from both buckets, or nothing from either.

    Returns:
        The new state, and the verdict.
    """
    requests, metered = limits.requests, limits.tokens
    full_at, at, requests_debt, tokens_debt, requests_promised, tokens_promised = state
    if full_at <= now:
        requests_debt = tokens_debt = 0
    full_at = now
    requests_left = tokens_left = None
    if requests is not None:
        if requests_debt:
            requests_debt = requests.debt_at(requests_debt, at, now)
        requests_debt += requests.unit
        requests_left = (requests.capacity - requests_debt) // requests.unit
        if requests_left < 0:
            return _refuse(limits, state, tokens, now)
        full_at += (requests_debt // requests.limit + 1) * requests.stride
    if metered is not None:
        if tokens_debt:
            tokens_debt = metered.debt_at(tokens_debt, at, now)
        tokens_debt += tokens * metered.unit
        tokens_left = (metered.capacity - tokens_debt) // metered.unit
        if tokens_left < 0:
            return _refuse(limits, state, tokens, now)
        tokens_full_at = now + (tokens_debt // metered.limit + 1) * metered.stride
        if tokens_full_at > full_at:  # noqa: PLR1730 - max() is slower
            full_at = tokens_full_at
    kept = (full_at, now, requests_debt, tokens_debt, requests_promised, tokens_promised)
    return kept, Verdict(requests_left, tokens_left)


def _refuse(limits: Limits, state: State, tokens: int, now: int) -> tuple[State, Verdict]:
    """Refuse a request, and promise it a tick at each bucket that has too little."""
    full_at, at, *debts = state
    debts, promised = debts[:2], debts[2:]
    verdict = look(limits, state, now)
    turns: list[tuple[int, Bucket, int]] = []
    for index, (bucket, cost) in enumerate(zip(limits, (1, tokens), strict=True)):
        if bucket is None:
            continue
        if cost > bucket.limit:
            return state, replace(verdict, refused=bucket, cost=cost)
        debt = debts[index] = bucket.debt_at(debts[index], at, now)
        fits_at = bucket.tick_of_debt(debt, now, bucket.capacity - cost * bucket.unit)
        if fits_at > now:
            promised[index] = bucket.turn(fits_at, promised[index], cost, now)
            turns.append((promised[index], bucket, cost))
    last, bucket, cost = max(turns, key=lambda turn: turn[0])
    retry_ms = -(-(last - now) // TICKS_PER_MS)
    kept = (full_at, now, debts[0], debts[1], promised[0], promised[1])
    return kept, replace(verdict, refused=bucket, retry_ms=retry_ms, cost=cost)
