"""Keys and rate limits on the way of a request: 401, 429, and the x-ratelimit-* headers."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

import metrics
from http_api.generation import start_counting
from http_api.sending import ended_by_disconnect
from limits.buckets import Limits, Verdict
from limits.gate import Gate
from limits.keys import Caller
from limits.words import Refusal, headers, too_many
from metrics import TALLY
from schemas import APIError, GenerationRequest
from timing.plan import GenerationPlan

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
        self._told: set[tuple[str, str]] = set()

    def guard(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint that only those with a good key reach, with headers on its errors."""

        async def guarded(request: Request) -> Response:
            scope = request.scope
            caller = scope["caller"] = self._identify(request)
            try:
                return await endpoint(request)
            except ClientDisconnect:
                raise
            except Exception:
                # An error before the request was counted, perhaps before its model was known.
                if scope["method"] == "POST" and "limit_headers" not in scope:
                    await self._look(request, caller, scope.get("model", ""))
                raise

        return guarded

    def _identify(self, request: Request) -> Caller:
        values = (value for name, value in request.scope["headers"] if name == b"authorization")
        value = next(values, None)
        caller = self._gate.identify(None if value is None else value.decode("latin-1"))
        if isinstance(caller, Refusal):
            raise _error(caller)
        return caller

    async def _look(self, request: Request, caller: Caller, model: str) -> None:
        limits = self._gate.limits_of(caller, model)
        if limits.requests or limits.tokens:
            verdict = await self._gate.look(caller, model, limits)
            _set_headers(request, limits, verdict)

    async def admit(
        self,
        request: Request,
        parsed: GenerationRequest,
        plan: GenerationPlan,
        count: Callable[[], int],
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
        caller: Caller = request.scope["caller"]
        limits = self._gate.limits_of(caller, parsed.model)
        if not (limits.requests or limits.tokens):
            request.scope["limit_headers"] = ()
            return None
        counted, tokens = None, parsed.token_limit[1] or 0
        if limits.tokens and not tokens:
            counted = start_counting(request.scope["size"], count)
            if not counted.done():
                async with ended_by_disconnect(request.receive):
                    await asyncio.wait([counted])
            planned = (plan.reasoning_tokens + plan.output_tokens) * parsed.choices
            tokens = counted.result() + planned
        verdict = await self._gate.take(caller, parsed.model, limits, tokens)
        _set_headers(request, limits, verdict)
        if verdict is not None:
            self._tell(caller, parsed.model, verdict)
            refusal = too_many(verdict, parsed.model)
            if refusal is not None:
                TALLY.add(metrics.RATE_LIMITED[refusal.type])
                raise _error(refusal)
        return counted

    def _tell(self, caller: Caller, model: str, verdict: Verdict) -> None:
        """Tell what is left to a key with a name, of a model that is known."""
        if caller.name is None or model not in self._models:
            return
        pair = (caller.name, model)
        if pair not in self._told:
            if len(self._told) >= MAX_PAIRS_TOLD:
                return
            self._told.add(pair)
        for kind, left in (("requests", verdict.requests_left), ("tokens", verdict.tokens_left)):
            if left is not None:
                TALLY.set(metrics.RATE_LIMIT_REMAINING.labels(caller.name, model, kind), left)


def _set_headers(request: Request, limits: Limits, verdict: Verdict | None) -> None:
    request.scope["limit_headers"] = () if verdict is None else headers(limits, verdict)


def _error(refusal: Refusal) -> APIError:
    return APIError(refusal.message, status=refusal.status, type=refusal.type, code=refusal.code)
