"""A way past BentoML's middleware for the requests that carry load, with its metrics kept true.

Six layers of middleware, two routers and their send wrappers cost about half of a request.
"""

import logging
import time
from collections.abc import Awaitable
from importlib.metadata import version
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from emulator import metrics
from emulator.metrics import TALLY
from emulator.transport import bentoml_seam, uvicorn_seam
from emulator.transport.bentoml_seam import AnswerError, EndpointMetrics, Surroundings
from emulator.transport.bounded_protocol import bound_connections
from emulator.transport.cors import Cors
from emulator.transport.socket_control import RECEIVE

logger = logging.getLogger("bentoml.openai_emulator")


class Answers(Protocol):
    """An endpoint."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Answer one request; return the status."""


class FastPath:
    """Answers the POST requests of some endpoints, and passes on everything else.

    Until it is opened it passes everything on. ``endpoints`` are those that it has, by path,
    ``sockets`` those of websockets; ``uvicorn_lacks`` names what this version of uvicorn
    does not have, so that its own way is taken. ``is_on`` tells by package whether answers go
    past it.

    Args:
        cors: Tells browsers whose pages may read an answer, if anybody's may.
    """

    def __init__(self, cors: Cors | None) -> None:
        self.endpoints: dict[str, Answers] = {}
        self.sockets: dict[str, ASGIApp] = {}
        self._cors = cors
        self.uvicorn_lacks = uvicorn_seam.lacking()
        self.is_on: dict[str, bool] = {}
        self._surroundings: Surroundings | None = None
        self._open: dict[str, tuple[Answers, EndpointMetrics]] = {}

    def add(self, path: str, endpoint: Answers) -> None:
        """Answer POST requests of a path, too; BentoML makes the service last of all."""
        self.endpoints[path] = endpoint
        if self._surroundings is not None:
            self._open[path] = endpoint, self._surroundings.metrics_of(path)

    def open(self, surroundings: Surroundings) -> None:
        """Answer requests from now on."""
        self._surroundings = surroundings
        for path, endpoint in self.endpoints.items():
            self.add(path, endpoint)

    def over(self, app: ASGIApp) -> ASGIApp:
        """Return an application that answers here, or else by `app`."""

        def serve(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            if scope["type"] == "http" and scope["method"] == "POST":
                found = self._open.get(scope["path"])
                if found is not None:
                    return self._answer(*found, scope, receive, send)
            return app(scope, receive, send)

        return serve

    async def _answer(
        self,
        endpoint: Answers,
        counted: EndpointMetrics,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        start_s = time.monotonic()
        counted.begin(start_s)
        if self._cors is not None:
            origin = self._cors.allowed(scope)
            if origin is not None:
                send = self._cors.telling(send, origin)
        status = 500
        try:
            status = await endpoint.answer(scope, receive, send)
        finally:
            counted.end(status, time.monotonic() - start_s)


class FastPathInstaller:
    """Middleware that opens the fast path when the service starts.

    Args:
        app: What follows.
        fast_path: The fast path.
        answer_error: Answers for routes that are not there.
        cors: Lets pages of other origins read answers, unless the operator has BentoML do so.
    """

    def __init__(
        self, app: ASGIApp, fast_path: FastPath, answer_error: AnswerError, cors: Cors | None
    ) -> None:
        self.app = app
        self._fast_path = fast_path
        self._answer_error = answer_error
        self._cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; open the fast path when the service starts."""
        if scope["type"] == "lifespan":
            self._install(Surroundings(scope["app"]))
        await self.app(scope, receive, send)

    def _install(self, surroundings: Surroundings) -> None:
        surroundings.adapt(self._answer_error)
        lacking = surroundings.lacking()
        if not lacking:
            self._fast_path.open(surroundings)
        cors = None if surroundings.has_cors else self._cors
        outermost = _Outermost(surroundings.stack, cors, self._fast_path)
        surroundings.replace(self._fast_path.over(outermost))
        self._fast_path.is_on = {
            "bentoml": not lacking,
            "uvicorn": not self._fast_path.uvicorn_lacks,
        }
        _tell("bentoml", lacking, bentoml_seam.COST)
        _tell("uvicorn", self._fast_path.uvicorn_lacks, uvicorn_seam.COST)


def speed_up_connections(fast_path: FastPath, idle_s: float) -> None:
    """Have the server that is about to start write answers past uvicorn, if its version allows.

    Args:
        fast_path: Answers before all else.
        idle_s: How long a connection may be idle between two requests.
    """
    if not fast_path.uvicorn_lacks:
        bound_connections(fast_path.over, fast_path.sockets)
    if bentoml_seam.worker_number() is not None and (lacking := uvicorn_seam.configure(idle_s)):
        logger.warning(
            "bounds of connections do not count, as uvicorn %s lacks %s",
            version("uvicorn"),
            ", ".join(lacking),
        )


def _tell(package: str, lacking: list[str], cost: str) -> None:
    """Tell in the log and the metrics whether answers go past a package."""
    metrics.FAST_PATH.labels(package).set(not lacking)
    if lacking:
        logger.warning(
            "fast path %s=off: %s %s lacks %s. %s",
            package,
            package,
            version(package),
            ", ".join(lacking),
            cost,
        )
    else:
        logger.info("fast path %s=on", package)


class _Outermost:
    """Keeps what leads to the connection before it is wrapped, and tells browsers who may read.

    Args:
        app: What follows.
        cors: Lets pages of other origins read answers.
        fast_path: Its endpoints read headers in any encoding, and its sockets are served here.
    """

    def __init__(self, app: ASGIApp, cors: Cors | None, fast_path: FastPath) -> None:
        self._app = app
        self._cors = cors
        self._endpoints = fast_path.endpoints
        self._sockets = fast_path.sockets

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request; no coroutine of its own, which would cost each of them."""
        if scope["type"] == "websocket":
            return self._sockets.get(scope["path"], _refuse)(scope, receive, send)
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        if scope["path"] == "/metrics":
            TALLY.flush()
        scope[RECEIVE] = receive
        if scope["path"] not in self._endpoints:
            scope["headers"] = [(name, _as_utf8(value)) for name, value in scope["headers"]]
        if self._cors is not None:
            origin = self._cors.allowed(scope)
            if origin is not None:
                preflight = self._cors.preflight(scope, origin)
                if preflight is not None:
                    return preflight(scope, receive, send)
                send = self._cors.telling(send, origin)
        return self._app(scope, receive, send)


async def _refuse(_: Scope, receive: Receive, send: Send) -> None:
    """Refuse a websocket, with 403."""
    await receive()
    await send({"type": "websocket.close"})


def _as_utf8(value: bytes) -> bytes:
    """Return a header in the encoding that BentoML's access log takes all of them for."""
    if value.isascii():
        return value
    try:
        value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1").encode()
    return value
