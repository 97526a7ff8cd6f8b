"""A way past BentoML's middleware for the two paths that carry load, with its metrics kept true.

Six layers of middleware, two routers and their send wrappers cost about half of a request.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from bentoml._internal.context import server_context
from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from emulator.metrics import FLUSH_EVERY_S, TALLY
from emulator.transport.cors import Cors
from emulator.transport.socket_control import RECEIVE
from emulator.transport.surroundings import adapt

Endpoint = Callable[[Request], Awaitable[Response]]
AnyLayer = TypeVar("AnyLayer")

# What BentoML puts around a service by default: all of it is replaced or does nothing here.
# Whatever else the operator configures (CORS, a limit of concurrency) has to see every request.
_TRAFFIC = RunnerTrafficMetricsMiddleware
_REPLACEABLE = {
    "ServerErrorMiddleware",
    "RunnerTrafficMetricsMiddleware",
    "OpenTelemetryMiddleware",
    "AccessLogMiddleware",
    "TimeoutMiddleware",
    "Shortcut",
    "ContextMiddleware",
    "ExceptionMiddleware",
}


class Shortcut:
    """Middleware that, when the service starts, puts a `Front` before all middleware.

    Args:
        app: What follows.
        endpoints: The functions that answer POST requests, by path; filled when the service starts.
        answer_error: Turns an exception into a response.
        cors: Lets pages of other origins read answers, unless the operator has BentoML do so.
    """

    def __init__(
        self,
        app: ASGIApp,
        endpoints: Mapping[str, Endpoint],
        answer_error: Callable[[Request, Exception], Awaitable[Response]],
        cors: Cors | None = None,
    ) -> None:
        self.app = app
        self._endpoints = endpoints
        self._answer_error = answer_error
        self._cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; install the front when the service starts."""
        if scope["type"] == "lifespan":
            self._install(scope["app"])
        await self.app(scope, receive, send)

    def _install(self, outer: Starlette) -> None:
        stack = outer.middleware_stack
        if stack is None:
            raise RuntimeError("a service that starts has its middleware")
        layers = _layers(stack)
        traffic = _first(layers, RunnerTrafficMetricsMiddleware)
        adapt(outer, _first(layers, ExceptionMiddleware))
        cors = None if _first(layers, CORSMiddleware) else self._cors
        if traffic and {type(layer).__name__ for layer in layers} <= _REPLACEABLE:
            stack = Front(stack, traffic, self._endpoints, self._answer_error)
        outer.middleware_stack = _Outermost(stack, cors, self._endpoints)


def _first(layers: list[ASGIApp], kind: type[AnyLayer]) -> AnyLayer | None:
    """Return the outermost middleware of a kind."""
    return next((layer for layer in layers if isinstance(layer, kind)), None)


def _layers(app: ASGIApp) -> list[ASGIApp]:
    """Return the middleware around a router, from the outside in."""
    layers = []
    while not isinstance(app, Router):
        layers.append(app)
        app = getattr(app, "app")  # noqa: B009 - what every middleware has, and no type tells
    return layers


class _Outermost:
    """Keeps what leads to the connection before it is wrapped, and tells browsers who may read.

    Args:
        app: What follows.
        cors: Lets pages of other origins read answers.
        endpoints: What reads headers in any encoding, by path.
    """

    def __init__(self, app: ASGIApp, cors: Cors | None, endpoints: Mapping[str, Endpoint]) -> None:
        self._app = app
        self._cors = cors
        self._endpoints = endpoints

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request; no coroutine of its own, which would cost each of them."""
        scope[RECEIVE] = receive
        if scope["type"] != "http":
            return self._app(scope, receive, send)
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


def _as_utf8(value: bytes) -> bytes:
    """Return a header in the encoding that BentoML's access log takes all of them for."""
    if value.isascii():
        return value
    try:
        value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1").encode()
    return value


class Front:
    """Answers the POST requests that it knows, and passes on everything else.

    Args:
        app: BentoML's whole application.
        traffic: BentoML's middleware that counts requests, whose metrics are fed from here.
        endpoints: The functions that answer POST requests, by path.
        answer_error: Turns an exception into a response.
    """

    def __init__(
        self,
        app: ASGIApp,
        traffic: RunnerTrafficMetricsMiddleware,
        endpoints: Mapping[str, Endpoint],
        answer_error: Callable[[Request, Exception], Awaitable[Response]],
    ) -> None:
        self._app = app
        self._traffic = traffic
        self._endpoints = endpoints
        self._answer_error = answer_error
        self._metrics: dict[str, EndpointMetrics] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["path"] == "/metrics":
            TALLY.flush()
        endpoint = self._endpoints.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        scope["start_s"] = start_s = time.monotonic()
        metrics = self._metrics.get(scope["path"])
        if metrics is None:
            metrics = self._metrics[scope["path"]] = EndpointMetrics(self._traffic, scope["path"])
        request = Request(scope, receive, send)
        metrics.begin(start_s)
        status = 500
        try:
            try:
                response = await endpoint(request)
            except Exception as error:
                response = await self._answer_error(request, error)
                if response.status_code == 500:
                    await response(scope, receive, send)
                    raise
            status = response.status_code
            await response(scope, receive, send)
        finally:
            metrics.end(status, time.monotonic() - start_s)
            # It leads to the connection, and that to the scope: nothing else makes them garbage
            # that only a collection finds.
            scope.pop(RECEIVE, None)


class EndpointMetrics:
    """BentoML's request metrics of one path."""

    def __init__(self, traffic: RunnerTrafficMetricsMiddleware, path: str) -> None:
        if not traffic._is_setup:
            traffic._setup()
        self._traffic = traffic
        service = {
            "service_name": server_context.bento_name,
            "service_version": server_context.bento_version,
            "runner_name": server_context.service_name,
        }
        self._labels = {"endpoint": path, **service}
        self._in_progress = traffic.metrics_request_in_progress.labels(**self._labels)
        self._last_request = traffic.metrics_last_request_timestamp.labels(**service)
        self._stamped_s = 0.0
        self._by_status: dict[int, tuple[Any, Any]] = {}

    def begin(self, now_s: float) -> None:
        """Note that a request has come, at `now_s` on ``time.monotonic()``."""
        TALLY.add(self._in_progress)
        if now_s >= self._stamped_s + FLUSH_EVERY_S:
            self._stamped_s = now_s
            self._last_request.set_to_current_time()

    def end(self, status: int, duration_s: float) -> None:
        """Note that a request was answered."""
        if status not in self._by_status:
            labels = {**self._labels, "http_response_code": status}
            self._by_status[status] = (
                self._traffic.metrics_request_total.labels(**labels),
                self._traffic.metrics_request_duration.labels(**labels),
            )
        total, duration = self._by_status[status]
        TALLY.add(total)
        TALLY.observe(duration, duration_s)
        TALLY.add(self._in_progress, -1)
