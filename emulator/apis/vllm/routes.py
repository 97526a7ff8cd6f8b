"""What vLLM serves beside OpenAI's API: /version, /ping, /tokenize and /detokenize."""

import json
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from emulator.serving.dispatcher import Desk
from emulator.serving.engine_timing import Startup
from emulator.serving.preparing import DETOKENIZE, TOKENIZE
from emulator.transport.sending import json_response


class VllmRoutes:
    """vLLM's own routes, in its shapes of version 0.32.

    Args:
        version: The emulator's.
        desk: Where requests are read.
        startup: How long the model loads.
    """

    def __init__(self, version: str, desk: Desk, startup: Startup) -> None:
        self._version = version
        self._desk = desk
        self._startup = startup

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/version", self.version),
            Route("/ping", self.ping, methods=["GET", "POST"]),
            Route(TOKENIZE, self._answering(TOKENIZE), methods=["POST"]),
            Route(DETOKENIZE, self._answering(DETOKENIZE), methods=["POST"]),
        ]

    async def version(self, request: Request) -> Response:
        """Answer GET /version."""
        return json_response(request, json.dumps({"version": self._version}).encode())

    async def ping(self, _: Request) -> Response:
        """Answer /ping: nothing, with 200, or 503 while the model loads."""
        return Response(status_code=200 if self._startup.is_over else 503)

    def _answering(self, path: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return json_response(request, await self._desk.answer(request, path))

        return answer
