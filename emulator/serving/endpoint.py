"""One endpoint as an ASGI application: it answers, whatever happens, and tells how that ended."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from emulator.serving.endings import Endings
from emulator.serving.limiting import Limiter
from emulator.state import LiveState
from emulator.transport.error_answers import error_reply
from emulator.transport.exchange import Envelope, Exchange, openai_envelope
from emulator.transport.sending import CLIENT_CLOSED_REQUEST, Reply

Handler: TypeAlias = Callable[[Exchange], Awaitable[Reply]]
"""Makes the answer to a request, or raises why there is none."""

NOBODY = Endings()


class Endpoint:
    """Answers requests with what a handler returns, or with the error that it raises.

    Args:
        handler: Makes the answers.
        live: The state that counts for the next request.
        limiter: Tells in the headers of an error what limits leave.
        endings: Is told how each request ended.
        envelope: Writes errors.
    """

    def __init__(
        self,
        handler: Handler,
        live: LiveState,
        limiter: Limiter,
        endings: Endings = NOBODY,
        envelope: Envelope = openai_envelope,
    ) -> None:
        self._handler = handler
        self._live = live
        self._limiter = limiter
        self._endings = endings
        self._envelope = envelope

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        await self.answer(scope, receive, send)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Answer one request; return the status."""
        exchange = Exchange(scope, receive, self._live.current, self._envelope)
        self._endings.under_way += 1
        try:
            try:
                reply = await self._handler(exchange)
                exchange.status = reply.status
            except Exception as error:  # noqa: BLE001 - every failure has an answer
                reply = await self._failed(exchange, error)
            await reply(scope, receive, send)
        finally:
            self._endings.under_way -= 1
            exchange.status = exchange.status or CLIENT_CLOSED_REQUEST
            if exchange.delivery is not None:
                exchange.delivery.release()
            self._endings.tell(exchange)
        return exchange.status

    async def _failed(self, exchange: Exchange, error: Exception) -> Reply:
        if isinstance(error, ClientDisconnect):
            return error_reply(exchange, error)
        if exchange.delivery is not None:
            exchange.delivery.release()
            exchange.delivery = None
        if exchange.caller is not None and exchange.method == "POST" and not exchange.limit_lines:
            await self._limiter.look(exchange)
        return error_reply(exchange, error)
