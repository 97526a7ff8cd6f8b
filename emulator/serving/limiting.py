"""Keys and rate limits on the way of a request: 401, 429, and the x-ratelimit-* headers."""

from collections.abc import Callable
from typing import Protocol

from prometheus_client import Gauge

from emulator import metrics
from emulator.contract.errors import APIError
from emulator.limits.buckets import Verdict
from emulator.limits.gate import Account, Gate, Policy, Store
from emulator.limits.words import Refusal, header_lines, too_many
from emulator.metrics import TALLY
from emulator.reading.counting import PromptCount
from emulator.transport.exchange import Exchange
from emulator.transport.sending import ended_by_disconnect

# Keys with a name and known models whose figures are told; more series would cost Prometheus dear.
MAX_PAIRS_TOLD = 100


class Charged(Protocol):
    """The parts of a ready request that limits charge for."""

    count: PromptCount

    @property
    def token_limit(self) -> int | None:
        """The request's own limit on tokens."""

    @property
    def planned_tokens(self) -> int:
        """The tokens of the answer, which count beside the prompt's."""


class Limiter:
    """Applies keys and limits to requests.

    Args:
        open_store: Opens the store of the buckets, when there is first something to limit.
    """

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open_store = open_store
        self._store: Store | None = None
        self._policy: Policy | None = None
        self._gate: Gate | None = None
        self._gauges: dict[tuple[str, str], list[Gauge]] = {}

    def identify(self, exchange: Exchange, authorization: bytes | None) -> None:
        """Note who asks.

        Raises:
            APIError: Keys are asked for, and this is none of them.
        """
        policy = exchange.state.policy
        if policy is None:
            return
        given = None if authorization is None else authorization.decode("latin-1")
        caller = self._gate_of(policy).identify(given)
        if isinstance(caller, Refusal):
            raise _error(caller)
        exchange.caller = caller

    def _gate_of(self, policy: Policy) -> Gate:
        if self._gate is None or self._policy is not policy:
            if self._store is None:
                self._store = self._open_store()
            self._policy, self._gate = policy, Gate(policy, self._store)
        return self._gate

    def _account(self, exchange: Exchange) -> tuple[Gate, Account] | None:
        policy, caller = exchange.state.policy, exchange.caller
        if policy is None or caller is None:
            return None
        gate = self._gate_of(policy)
        account = gate.account(caller, exchange.model)
        return None if account is None else (gate, account)

    async def look(self, exchange: Exchange) -> None:
        """Tell in the headers of an answer what is left, and take nothing."""
        found = self._account(exchange)
        if found is not None:
            gate, account = found
            exchange.limit_lines = header_lines(account.limits, await gate.look(account))

    async def admit(self, exchange: Exchange, ready: Charged) -> None:
        """Count a request against its limits.

        Its tokens are its own limit on them where it has one, else those of its prompt and the
        planned ones of all its choices.

        Raises:
            APIError: It is refused.
            ClientDisconnect: The client went away.
        """
        found = self._account(exchange)
        if found is None:
            return
        gate, account = found
        tokens = 0
        if account.limits.tokens is not None:
            tokens = ready.token_limit or 0
            if not tokens:
                tokens = await _counted(exchange, ready.count) + ready.planned_tokens
        taken = gate.take(account.digest, account.limits, tokens)
        verdict = taken if isinstance(taken, Verdict) else await taken
        exchange.limit_lines = header_lines(account.limits, verdict)
        if verdict is None:
            return
        exchange.limits_left = [
            (bucket.kind, left, bucket.limit)
            for bucket, left in zip(account.limits, verdict.left, strict=True)
            if bucket is not None and left is not None
        ]
        if account.name is not None:
            self._tell(account.name, account.model, verdict, exchange.state.settings.models)
        if verdict.refused is not None:
            refusal = too_many(verdict, verdict.refused, account.model)
            TALLY.add(metrics.RATE_LIMITED[refusal.type])
            raise _error(refusal)

    def _tell(self, name: str, model: str, verdict: Verdict, models: tuple[str, ...]) -> None:
        """Set the gauges of the remaining requests and tokens of a named key and a known model."""
        gauges = self._gauges.get((name, model))
        if gauges is None:
            if model not in models or len(self._gauges) >= MAX_PAIRS_TOLD:
                return
            gauges = self._gauges[name, model] = [
                metrics.RATE_LIMIT_REMAINING.labels(name, model, kind)
                for kind, left in zip(("requests", "tokens"), verdict.left, strict=True)
                if left is not None
            ]
        known = (left for left in verdict.left if left is not None)
        for gauge, left in zip(gauges, known, strict=True):
            TALLY.set(gauge, left)


async def _counted(exchange: Exchange, count: PromptCount) -> int:
    """Return the count of a prompt, unless the client goes away meanwhile."""
    count.start()
    if count.known is not None:
        return count.known
    async with ended_by_disconnect(exchange.receive):
        return await count.tokens()


def _error(refusal: Refusal) -> APIError:
    return APIError(refusal.message, status=refusal.status, type=refusal.type, code=refusal.code)
