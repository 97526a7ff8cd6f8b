"""BentoML's application around our routes: its metrics, its middleware, its pages."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import bentoml
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Router
from starlette.types import ASGIApp

from emulator.metrics import FLUSH_EVERY_S, TALLY

try:
    from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware
except ImportError:
    RunnerTrafficMetricsMiddleware = None  # type: ignore[assignment, misc]

AnyLayer = TypeVar("AnyLayer")
AnswerError = Callable[[Request, Exception], Awaitable[Response]]

COST = "Requests go through BentoML's middleware, which costs about as much as the answer itself."

# What BentoML puts around a service by default: all of it is replaced or does nothing here.
# Whatever else the operator configures (CORS, a limit of concurrency) has to see every request.
_REPLACEABLE = {
    "ServerErrorMiddleware",
    "RunnerTrafficMetricsMiddleware",
    "OpenTelemetryMiddleware",
    "AccessLogMiddleware",
    "TimeoutMiddleware",
    "FastPathInstaller",
    "ContextMiddleware",
    "ExceptionMiddleware",
}
# Its page at / loads a tracker from another host; the others are what that page shows.
_PAGES = {"index", "static_content", "assets", "openapi-spec"}

_TRAFFIC = """
    _is_setup _setup metrics_last_request_timestamp metrics_request_duration
    metrics_request_in_progress metrics_request_total
"""


def swagger_ui() -> Path | None:
    """Return the folder with Swagger UI that BentoML ships, None if it is not there."""
    folder = Path(bentoml.__file__).parent / "_internal" / "server" / "static_content"
    return folder if (folder / "swagger-ui-bundle.js").is_file() else None


class Surroundings:
    """BentoML's application, when the service starts.

    Args:
        outer: Its application.

    Raises:
        RuntimeError: It has no middleware yet.
    """

    def __init__(self, outer: Starlette) -> None:
        if outer.middleware_stack is None:
            raise RuntimeError("a service that starts has its middleware")
        self._outer = outer
        self.stack: ASGIApp = outer.middleware_stack
        self._layers = _layers(self.stack)

    @property
    def has_cors(self) -> bool:
        """Whether the operator has BentoML answer pages of other origins."""
        return _first(self._layers, CORSMiddleware) is not None

    def adapt(self, answer_error: AnswerError) -> None:
        """Take BentoML's pages away; `answer_error` answers for routes that are not there."""
        router = self._outer.router
        router.redirect_slashes = False
        router.routes[:] = [
            route for route in router.routes if getattr(route, "name", None) not in _PAGES
        ]
        exceptions = _first(self._layers, ExceptionMiddleware)
        if exceptions is not None:
            exceptions.add_exception_handler(HTTPException, _answering(answer_error))

    def lacking(self) -> list[str]:
        """Return what is missing for a way past the middleware, or which must see each request."""
        others = {type(layer).__name__ for layer in self._layers} - _REPLACEABLE
        if others:
            return [f"the middleware {name} has to see every request" for name in sorted(others)]
        if RunnerTrafficMetricsMiddleware is None:
            return ["RunnerTrafficMetricsMiddleware"]
        traffic = _first(self._layers, RunnerTrafficMetricsMiddleware)
        if traffic is None:
            return ["a RunnerTrafficMetricsMiddleware in its middleware"]
        names = {*vars(traffic), *dir(traffic), *type(traffic)._setup.__code__.co_names}
        return [
            f"RunnerTrafficMetricsMiddleware.{name}"
            for name in sorted(set(_TRAFFIC.split()) - names)
        ]

    def metrics_of(self, path: str) -> "EndpointMetrics":
        """Return BentoML's request metrics of one path; nothing is `lacking`."""
        return EndpointMetrics(_first(self._layers, RunnerTrafficMetricsMiddleware), path)

    def replace(self, stack: ASGIApp) -> None:
        """Put another stack in the place of the middleware."""
        self._outer.middleware_stack = stack


def _answering(answer_error: AnswerError) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        """Answer for a route that is not there; leave what probes are told as it is."""
        if not isinstance(error, HTTPException):
            raise error
        if error.status_code in (404, 405):
            return await answer_error(request, error)
        return PlainTextResponse(error.detail, error.status_code, error.headers)

    return answer


def _first(layers: list[ASGIApp], kind: type[AnyLayer]) -> AnyLayer | None:
    """Return the outermost middleware of a kind."""
    return next((layer for layer in layers if isinstance(layer, kind)), None)


def _layers(app: ASGIApp) -> list[ASGIApp]:
    """Return the middleware around a router, from the outside in."""
    layers = []
    while not isinstance(app, Router) and hasattr(app, "app"):
        layers.append(app)
        app = app.app
    return layers


class EndpointMetrics:
    """BentoML's request metrics of one path, kept true for requests that it does not see.

    Args:
        traffic: BentoML's middleware that counts requests.
        path: The path.
    """

    def __init__(self, traffic: Any, path: str) -> None:  # noqa: ANN401 - has no types
        if not traffic._is_setup:
            traffic._setup()
        self._traffic = traffic
        context = bentoml.server_context
        service = {
            "service_name": context.bento_name,
            "service_version": context.bento_version,
            "runner_name": context.service_name,
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
