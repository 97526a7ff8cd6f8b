"""The arithmetic of buckets that refill continuously. Time is a parameter, in ticks of 10 us.

A bucket's debt is what it lacks until it is full: one unit taken adds the length of its window, one
stride of time takes away its limit. All are integers below 2**53 (the highest limit, 10**9, times a
day of 8.64e6 strides is 8.64e15), so that Lua counts as exactly as Python.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, final

TICK_NS = 10_000
TICKS_PER_MS = 100

Kind = Literal["requests", "tokens"]


@dataclass(frozen=True, slots=True)
class Window:
    """The time in which an empty bucket gets full; `stride` is its own grain, in ticks."""

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
    """How many requests or tokens pass in a window."""

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
        """Return the debt at `now`, which was `debt` at `since`; a clock set back refills none."""
        passed = max(0, now // self.stride - since // self.stride)
        return max(0, min(debt, self.capacity) - passed * self.limit)

    def tick_of_debt(self, debt: int, now: int, at_most: int) -> int:
        """Return the first tick from `now` on at which `debt` has come down to `at_most`."""
        over = debt - at_most
        if over <= 0:
            return now
        return (now // self.stride - (-over // self.limit)) * self.stride

    def remaining(self, debt: int) -> int:
        """Return how many whole units are left."""
        return (self.capacity - debt) // self.unit

    def refill_ms(self, units: int, *, round_up: bool = False) -> int:
        """Return how long `units` take to refill, in ms: cut as OpenAI does, or enough to wait."""
        time = units * self.window.duration_ms
        return -(-time // self.limit) if round_up else time // self.limit


class Limits(NamedTuple):
    """The two buckets that a request takes from: None where nothing is limited."""

    requests: Bucket | None = None
    tokens: Bucket | None = None


class State(NamedTuple):
    """What is kept of a pair of buckets: when it was last touched, its debts and its promises.

    A refused request is promised the tick of its turn. Promises bind nobody: they only spread the
    requests that come back, which would otherwise all be told the same moment.
    """

    at: int = 0
    requests_debt: int = 0
    tokens_debt: int = 0
    requests_promised: int = 0
    tokens_promised: int = 0


class Verdict(NamedTuple):
    """What a request was told; what is left is None where nothing is limited."""

    requests_left: int | None
    tokens_left: int | None
    refused: Bucket | None = None
    retry_ms: int = 0  # until it is this request's turn; 0: waiting does not help
    cost: int = 0  # what the request asked of the bucket that refused it


class _Claim(NamedTuple):
    """One request at one bucket."""

    bucket: Bucket
    debt: int
    cost: int
    promised: int
    fits_at: int

    @classmethod
    def of(
        cls, bucket: Bucket, debt: int, since: int, promised: int, cost: int, now: int
    ) -> "_Claim":
        debt = bucket.debt_at(debt, since, now)
        room_for = bucket.capacity - cost * bucket.unit
        return cls(bucket, debt, cost, promised, bucket.tick_of_debt(debt, now, room_for))

    @property
    def too_large(self) -> bool:
        return self.cost > self.bucket.limit

    def turn(self, now: int) -> int:
        """Return when it is this request's turn behind those that were refused before it.

        After a window the bucket is full again, whatever has been promised.
        """
        behind = min(self.promised, now + self.bucket.window.length * self.bucket.stride)
        share = -(-self.cost * self.bucket.unit // self.bucket.limit) * self.bucket.stride
        return max(self.fits_at, behind + share) if behind > now else self.fits_at


def look(limits: Limits, state: State, now: int) -> Verdict:
    """Return what is left, and take nothing."""
    requests, tokens = limits
    return Verdict(
        requests and requests.remaining(requests.debt_at(state.requests_debt, state.at, now)),
        tokens and tokens.remaining(tokens.debt_at(state.tokens_debt, state.at, now)),
    )


def take(limits: Limits, state: State, tokens: int, now: int) -> tuple[State, Verdict]:
    """Take a request of `tokens` from both buckets, or nothing from either.

    Returns:
        The state to keep, and what the request is told.
    """
    requests = limits.requests and _Claim.of(
        limits.requests, state.requests_debt, state.at, state.requests_promised, 1, now
    )
    charged = limits.tokens and _Claim.of(
        limits.tokens, state.tokens_debt, state.at, state.tokens_promised, tokens, now
    )
    if (charged and charged.fits_at > now) or (requests and requests.fits_at > now):
        return _refuse(requests, charged, now)
    requests_debt = requests.debt + requests.bucket.unit if requests else 0
    tokens_debt = charged.debt + tokens * charged.bucket.unit if charged else 0
    kept = State(now, requests_debt, tokens_debt, state.requests_promised, state.tokens_promised)
    return kept, Verdict(
        requests and requests.bucket.remaining(requests_debt),
        charged and charged.bucket.remaining(tokens_debt),
    )


def _refuse(requests: _Claim | None, charged: _Claim | None, now: int) -> tuple[State, Verdict]:
    claims = [claim for claim in (requests, charged) if claim and claim.fits_at > now]
    hopeless = next((claim for claim in claims if claim.too_large), None)
    turns = {} if hopeless else {claim.bucket.kind: claim.turn(now) for claim in claims}
    first = hopeless or max(claims, key=lambda claim: turns[claim.bucket.kind])
    wait = max(turns.values(), default=now) - now
    state = State(
        now,
        requests.debt if requests else 0,
        charged.debt if charged else 0,
        turns.get("requests", requests.promised if requests else 0),
        turns.get("tokens", charged.promised if charged else 0),
    )
    return state, Verdict(
        requests and requests.bucket.remaining(requests.debt),
        charged and charged.bucket.remaining(charged.debt),
        first.bucket,
        math.ceil(wait / TICKS_PER_MS),
        first.cost,
    )


def full_at(limits: Limits, state: State) -> int:
    """Return the tick from which on the state says no more than that both buckets are full."""
    ticks = [state.at, state.requests_promised, state.tokens_promised]
    if limits.requests:
        ticks.append(limits.requests.tick_of_debt(state.requests_debt, state.at, 0))
    if limits.tokens:
        ticks.append(limits.tokens.tick_of_debt(state.tokens_debt, state.at, 0))
    return max(ticks)
