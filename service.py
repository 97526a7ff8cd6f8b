"""The BentoML service: its routes, its life cycle, and the steps that a request takes.

HTTP -> schema -> plan -> timed tokens -> JSON or SSE. A request for one of the APIs takes the steps
of `OpenAIEmulator.serve`, in the rooms of `emulator/`:

* read: bytes to a request that its API has checked, refused or understood, here or by a helper
  process. Its answers are composed in the same go, as that finds what no schema satisfies, and a
  400 must take nothing from limits.
* refuse: what this server cannot do for it.
* admit: keys and limits.
* decide: rules that count a request, which refused ones do not.
* time: when each token is due, by headers or by an engine.
* answer: the tokens leave when they are due (``tokenizer.py``), or fail on purpose.
"""

from functools import partial
from typing import Any

import bentoml
from bentoml.exceptions import BentoMLConfigException
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from emulator import process
from emulator.apis.api import API
from emulator.apis.models import api as lookups
from emulator.apis.responses.websocket import ResponsesSocket, refuse_offer
from emulator.apis.table import APIS
from emulator.apis.vllm.api import VLLMProbes
from emulator.control.room import ControlRoom
from emulator.journal.room import JournalRoom
from emulator.log_lines import LINES
from emulator.metrics import TALLY
from emulator.pages.site import site
from emulator.serving.endings import Endings, add_to_metrics, write_log_line
from emulator.settings import ConfigError
from emulator.state import LiveState, read_state
from emulator.transport.bentoml_seam import read_settings
from emulator.transport.cors import Cors
from emulator.transport.error_answers import error_reply
from emulator.transport.exchange import Exchange
from emulator.transport.fast_path import FastPath, FastPathInstaller, speed_up_connections
from emulator.transport.sending import Reply
from emulator.worker import Worker
from tokenizer import VocabularyError, locate_vocabularies

__version__ = "0.1.0"

SETTINGS = read_settings()
try:
    STATE = LiveState(read_state(SETTINGS))
except ConfigError as error:
    raise BentoMLConfigException(str(error)) from None
PROBE_PATHS = ("/metrics", "/healthz", "/livez", "/readyz")
ENDINGS = Endings(add_to_metrics, write_log_line)
API_PATHS = tuple(api.path for api in APIS)


async def answer_error(request: Request, error: Exception) -> Reply:
    """Answer for a route that is not there, or that has another method."""
    exchange = Exchange(request.scope, request.receive, STATE.current)
    if exchange.state.dialect.lacks(exchange.path):
        error = HTTPException(404)  # it is not there, whatever the method
    reply = error_reply(exchange, error)
    if exchange.path in API_PATHS:
        ENDINGS.tell(exchange)
    return reply


application = Starlette(exception_handlers={HTTPException: answer_error})  # type: ignore[dict-item]
application.router.redirect_slashes = False
cors = Cors(lambda: STATE.current.settings.cors_origins)
fast_path = FastPath(cors)
speed_up_connections(fast_path, SETTINGS.keep_alive_s)


@bentoml.service(
    name="openai_emulator",
    workers=SETTINGS.workers or "cpu_count",
    # The 60 s to the first byte that BentoML allows are too short for a slow whole answer. Each
    # request keeps 0.8 KB until the timeout has passed, so that hours would be too long.
    traffic={"timeout": SETTINGS.timeout_s},
    # BentoML opens an OpenTelemetry span for every ASGI send, sampled or not: without them one
    # worker streams 50,000 tokens/s instead of 15,000. With no exporter nothing is lost.
    tracing={"excluded_urls": ".*"},
    # An API's request has a log line of its own.
    logging={"access": {"skip_paths": [*PROBE_PATHS, *API_PATHS]}},
    # Without a distro BentoML adds no compilers, which are half of its images.
    image=bentoml.images.Image("python:3.11-slim", distro="", python_version="3.11"),
)
@bentoml.asgi_app(application)
class OpenAIEmulator:
    """OpenAI's APIs with no model behind them."""

    def __init__(self) -> None:
        self.worker = Worker(STATE, ENDINGS, __version__)
        self.journal = JournalRoom(STATE, self.worker)
        self.room = ControlRoom(
            STATE,
            __version__,
            lambda: fast_path.is_on,
            self.journal.marks.add,
            self.journal.matches,
        )
        self.room.add(self.journal.operations, self.journal.ticks)
        self.room.truth.listen(self.worker.adopt)
        application.router.routes.extend(self.routes())

    async def serve(self, api: API[Any], exchange: Exchange) -> Reply:
        """Answer one request for an API.

        Raises:
            APIError: It is refused.
            ClientDisconnect: The client went away.
        """
        worker = self.worker
        if exchange.state.dialect.lacks(api.path):
            raise HTTPException(404)
        worker.limiter.identify(exchange, api.authorization(exchange))
        worker.startup.check(exchange.state.settings)
        ready = await api.take(exchange, worker.dispatcher)
        if ready.asked.emulation.emulation_revision:
            exchange.told_lines += b"x-emulation-revision: %d\r\n" % exchange.state.version
        try:
            wished, sequences = await worker.check(exchange, ready)
            await worker.limiter.admit(exchange, ready)
            if ready.undecided is not None:
                ready = await worker.decide(api, exchange, ready)
                wished, sequences = await worker.check(exchange, ready)
            times = worker.timing.queue(exchange, ready, sequences)
            fault = None if wished is None else await worker.fail(exchange, wished)
            return await api.answer(exchange, ready, times, fault, worker.injector)
        except BaseException:
            ready.give_up()
            raise

    def routes(self) -> list[BaseRoute]:
        """Return all routes; those of the APIs' table are served on the fast path too."""
        worker = self.worker
        control = self.room.control.answer
        vllm = VLLMProbes(__version__, worker.startup, worker.engine)
        health = lookups.HealthCheck(__version__)
        for api in worker.apis:
            fast_path.add(api.path, worker.answering(api, partial(self.serve, api)))
        fast_path.sockets["/v1/responses"] = ResponsesSocket(fast_path.endpoints["/v1/responses"])
        guarded = {
            "/v1/chat/completions": lookups.list_completions,
            "/v1/models": lookups.list_models,
            "/v1/models/{model:path}": lookups.get_model,
            "/v1/responses": refuse_offer,
            "/v1/responses/{id}": lookups.find_response,
            "/v1/responses/{id}/input_items": lookups.find_response,
        }
        find = worker.guarded(lookups.find_response)
        return [
            *(Route(path, app, methods=["POST"]) for path, app in fast_path.endpoints.items()),
            *(Route(c.path, worker.computing(c), methods=["POST"]) for c in worker.computations),
            *(Route(path, worker.guarded(each), methods=["GET"]) for path, each in guarded.items()),
            Route("/v1/responses/{id}", find, methods=["DELETE"]),
            Route("/v1/responses/{id}/cancel", find, methods=["POST"]),
            Route("/health", worker.endpoint(health.health), methods=["GET"]),
            Route("/version", worker.endpoint(vllm.version), methods=["GET"]),
            Route("/load", worker.endpoint(vllm.load), methods=["GET"]),
            Route("/ping", worker.endpoint(vllm.ping), methods=["GET", "POST"]),
            *(Route(path, self.worker.endpoint(control)) for path in self.room.paths),
            *site(__version__, self.room, worker.apis, self.journal),
        ]

    async def __is_ready__(self) -> bool:
        """Tell /readyz whether the model is loaded."""
        return self.worker.startup.is_over(STATE.current.settings)

    @bentoml.on_deployment
    @staticmethod
    def check_vocabularies() -> None:
        """Stop `bentoml serve` before any worker starts if a vocabulary is missing or damaged."""
        try:
            locate_vocabularies()
        except VocabularyError as error:
            raise BentoMLConfigException(str(error)) from None

    @bentoml.on_deployment
    @staticmethod
    def prepare_shared() -> None:
        """Create what the workers share, or stop `bentoml serve` if their store is not there."""
        try:
            process.prepare_shared(STATE.current)
        except ConfigError as error:
            raise BentoMLConfigException(f"The setting 'store': {error}") from None

    @bentoml.on_startup
    async def start(self) -> None:
        """Prepare the process, and have the helpers share what is loaded by now."""
        await process.settle(SETTINGS.timer_slack_us)
        self.worker.helpers.start()
        self.room.start()
        self.journal.start()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Hand over what the metrics and the log have gathered, and end the helpers."""
        await self.room.stop()
        TALLY.flush()
        LINES.flush()
        await self.worker.helpers.close()


# bentoml.service returns a Service, which its annotation does not tell.
OpenAIEmulator.add_asgi_middleware(  # type: ignore[attr-defined]
    FastPathInstaller, fast_path=fast_path, answer_error=answer_error, cors=cors
)
