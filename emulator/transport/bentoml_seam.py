"""What BentoML leaves to do: a bento's arguments, how long a connection may be idle.

A bento drops `bentoml serve`'s arguments (bentoml/_internal/service/loader.py, `_load_bento`), so
they are read from the command line, and handed on to the workers in the environment.
"""

import argparse
import inspect
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import bentoml
import yaml  # type: ignore[import-untyped]
from bentoml.exceptions import BentoMLConfigException
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Router
from starlette.types import ASGIApp

from emulator import settings
from emulator.metrics import FLUSH_EVERY_S, TALLY

try:
    from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware
except ImportError:
    RunnerTrafficMetricsMiddleware = None  # type: ignore[assignment, misc]

ARGUMENTS_VARIABLE = "OPENAI_EMULATOR_ARGUMENTS"

logger = logging.getLogger("bentoml.openai_emulator")


def read_settings() -> settings.Settings:
    """Return what the operator has set.

    Raises:
        BentoMLConfigException: A value is wrong, or a name is no setting's.
    """
    try:
        return settings.read_settings(_given(), _known_to_bentoml())
    except settings.ConfigError as error:
        raise BentoMLConfigException(str(error)) from None


def worker_number() -> int | None:
    """Return which worker this process is, from 1; none if it is the one that starts them."""
    try:
        return bentoml.server_context.worker_index
    except AttributeError:
        _warn("bentoml", "server_context.worker_index")
        return 1 if ARGUMENTS_VARIABLE in os.environ else None


def _given() -> dict[str, Any]:
    """Return the arguments of the command line that started the server."""
    if worker_number() is None:
        given = _parse(sys.argv[1:])
        os.environ[ARGUMENTS_VARIABLE] = json.dumps(given, default=str)
        return given
    handed = os.environ.get(ARGUMENTS_VARIABLE)
    if handed is None:
        _warn("bentoml", "the environment of the process that starts the workers")
        return {}
    return dict(json.loads(handed))


def _known_to_bentoml() -> dict[str, Any]:
    """Return BentoML's arguments for the service: for a bento, the arguments of its build."""
    try:
        return vars(bentoml.use_arguments())
    except AttributeError:
        _warn("bentoml", "use_arguments()")
        return {}


def _parse(words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments in a command line of BentoML's, which has checked their form.

    Raises:
        ConfigError: A file of arguments is not found: BentoML imports a bento from its folder.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--arg", action="append", default=[])
    parser.add_argument("--arg-file", type=Path)
    found, _ = parser.parse_known_args(words)
    try:
        from_file = yaml.safe_load(found.arg_file.read_text()) if found.arg_file else {}
    except FileNotFoundError:
        raise settings.ConfigError(
            f"--arg-file {found.arg_file}: not found in {Path.cwd()}; give its whole path"
        ) from None
    return {**from_file, **dict(pair.partition("=")[::2] for pair in found.arg)}


def _warn(package: str, missing: str) -> None:
    logger.warning(
        "%s %s has no %s: settings given with --arg may not count, those of the environment do",
        package,
        version(package),
        missing,
    )


# --------------------------------------------------------------------------------------
# BentoML's application around our routes
# --------------------------------------------------------------------------------------

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
        """Return why the way past the middleware is closed: missing names, or other middleware."""
        others = {type(layer).__name__ for layer in self._layers} - _REPLACEABLE
        if others:
            return [f"the middleware {name} has to see every request" for name in sorted(others)]
        if RunnerTrafficMetricsMiddleware is None:
            return ["RunnerTrafficMetricsMiddleware"]
        traffic = _first(self._layers, RunnerTrafficMetricsMiddleware)
        if traffic is None:
            return ["a RunnerTrafficMetricsMiddleware in its middleware"]
        setup = inspect.unwrap(getattr(traffic, "_setup", self.lacking))
        names = {*vars(traffic), *dir(traffic), *setup.__code__.co_names}
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


# So many take 0.05 ms.
_MOST_ENDED = 32


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
        self._begun = 0
        self._ended: list[tuple[int, float]] = []
        TALLY.sources.append(self._pass_on)

    def begin(self, now_s: float) -> None:
        """Note that a request has come, at `now_s` on ``time.monotonic()``."""
        if not self._begun:
            TALLY.wake()
        self._begun += 1
        if now_s >= self._stamped_s + FLUSH_EVERY_S:
            self._stamped_s = now_s
            self._last_request.set_to_current_time()

    def end(self, status: int, duration_s: float) -> None:
        """Note that a request was answered."""
        if not self._ended:
            TALLY.wake()
        self._ended.append((status, duration_s))
        if len(self._ended) >= _MOST_ENDED:
            self._pass_on()

    def _pass_on(self) -> None:
        ended, self._ended = self._ended, []
        under_way, self._begun = self._begun - len(ended), 0
        if under_way:
            TALLY.add(self._in_progress, under_way)
        for status, duration_s in ended:
            self._count(status, duration_s)

    def _count(self, status: int, duration_s: float) -> None:
        if status not in self._by_status:
            labels = {**self._labels, "http_response_code": status}
            self._by_status[status] = (
                self._traffic.metrics_request_total.labels(**labels),
                self._traffic.metrics_request_duration.labels(**labels),
            )
        total, duration = self._by_status[status]
        TALLY.add(total)
        TALLY.observe(duration, duration_s)
