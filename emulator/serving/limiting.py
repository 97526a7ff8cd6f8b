"""Keys and rate limits on the way of a request: 401, 429, and the x-ratelimit-* headers."""

import asyncio
from collections.abc import Awaitable, Callable

from prometheus_client import Gauge
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Scope

from emulator import metrics
from emulator.apis.embeddings.endpoint import Embeddings
from emulator.contract.bodies import GenerationRequest
from emulator.contract.errors import APIError
from emulator.emulation.header_fields import header_fields
from emulator.limits.buckets import Verdict
from emulator.limits.gate import Account, Gate
from emulator.limits.words import Refusal, header_lines, too_many
from emulator.metrics import TALLY
from emulator.serving.counting import start_counting
from emulator.timing.plan import GenerationPlan
from emulator.transport.sending import ended_by_disconnect

# Keys with a name and known models whose figures are told; more series would cost Prometheus dear.
MAX_PAIRS_TOLD = 100

Endpoint = Callable[[Request], Awaitable[Response]]


class Limiter:
    """Applies a gate to requests; the scope of each keeps who asks and what the headers say.

    Args:
        gate: Who may ask what.
        models: The models of which metrics are kept.
    """

    def __init__(self, gate: Gate, models: tuple[str, ...]) -> None:
        self._gate = gate
        self._models = frozenset(models)
        self._gauges: dict[tuple[str, str], list[Gauge]] = {}

    def guard(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint that only those with a good key reach, with headers on its errors."""

        async def guarded(request: Request) -> Response:
            scope = request.scope
            given = header_fields(scope).get(b"authorization")
            caller = self._gate.identify(None if given is None else given.decode("latin-1"))
            if isinstance(caller, Refusal):
                raise _error(caller)
            scope["caller"] = caller
            try:
                return await endpoint(request)
            except ClientDisconnect:
                raise
            except Exception:
                # An error before the request was counted, perhaps before its model was known.
                if scope["method"] == "POST" and "limit_lines" not in scope:
                    await self.look(request)
                raise

        return guarded

    async def look(self, request: Request) -> None:
        """Tell in the headers of an answer what is left, and take nothing."""
        scope = request.scope
        account = self._gate.account(scope["caller"], scope.get("model", ""))
        if account is not None:
            verdict = await self._gate.look(account)
            scope["limit_lines"] = header_lines(account.limits, verdict)

    async def admit(
        self,
        request: Request,
        parsed: GenerationRequest,
        plan: GenerationPlan,
        count: Callable[[], asyncio.Future[int]],
    ) -> asyncio.Future[int] | None:
        """Count a request against its limits.

        Its tokens are its own limit on them where it has one, else those of its prompt and the
        planned ones of all its choices.

        Returns:
            The count of the prompt's tokens, if it had to be known.

        Raises:
            APIError: It is refused.
            ClientDisconnect: The client went away.
        """
        scope = request.scope
        account = self._gate.account(scope["caller"], parsed.model)
        if account is None:
            return None
        limits, counted, tokens = account.limits, None, 0
        if limits.tokens is not None:
            tokens = parsed.token_limit[1] or 0
            if not tokens:
                counted = count()
                if not counted.done():
                    await _known(request, counted)
                planned = (plan.reasoning_tokens + plan.output_tokens) * parsed.choices
                tokens = counted.result() + planned
        taken = self._gate.take(account.digest, limits, tokens)
        self._tell(scope, account, taken if isinstance(taken, Verdict) else await taken)
        return counted

    async def admit_embeddings(self, request: Request, wanted: Embeddings) -> None:
        """Count a request for embeddings against its limits: its tokens are those of its inputs.

        Raises:
            APIError: It is refused.
            ClientDisconnect: The client went away.
        """
        scope = request.scope
        account = self._gate.account(scope["caller"], wanted.request.model)
        if account is None:
            return
        limits, tokens = account.limits, 0
        if limits.tokens is not None:
            size = scope["size"] if wanted.embedded is None else 0
            counted = start_counting(size, wanted.count)
            if not counted.done():
                await _known(request, counted)
            tokens = counted.result()
        taken = self._gate.take(account.digest, limits, tokens)
        self._tell(scope, account, taken if isinstance(taken, Verdict) else await taken)

    def _tell(self, scope: Scope, account: Account, verdict: Verdict | None) -> None:
        """Tell what is left in the headers of the answer; refuse a request that has to wait.

        Raises:
            APIError: It is refused.
        """
        scope["limit_lines"] = header_lines(account.limits, verdict)
        if verdict is None:
            return
        if account.name is not None:
            self._gauge(account.name, account.model, verdict)
        if verdict.refused is not None:
            refusal = too_many(verdict, verdict.refused, account.model)
            TALLY.add(metrics.RATE_LIMITED[refusal.type])
            raise _error(refusal)

    def _gauge(self, name: str, model: str, verdict: Verdict) -> None:
        """Tell what is left to a key with a name, of a model that is known."""
        gauges = self._gauges.get((name, model))
        if gauges is None:
            if model not in self._models or len(self._gauges) >= MAX_PAIRS_TOLD:
                return
            gauges = self._gauges[name, model] = [
                metrics.RATE_LIMIT_REMAINING.labels(name, model, kind)
                for kind, left in zip(("requests", "tokens"), verdict.left, strict=True)
                if left is not None
            ]
        known = (left for left in verdict.left if left is not None)
        for gauge, left in zip(gauges, known, strict=True):
            TALLY.set(gauge, left)


async def _known(request: Request, counted: asyncio.Future[int]) -> None:
    """Return when a count is known, unless the client goes away."""
    async with ended_by_disconnect(request.receive):
        await asyncio.wait([counted])


def _error(refusal: Refusal) -> APIError:
    return APIError(refusal.message, status=refusal.status, type=refusal.type, code=refusal.code)
