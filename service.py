"""The BentoML service: its routes, and the way of a request from plan to answer.

HTTP -> schema -> plan -> timed tokens -> JSON or SSE, a room for each:

* ``emulator/serving/dispatcher.py``: bytes to a checked request, at once or by a helper process
* ``emulator/serving/preparing.py``: what that is: reading, planning, composing
* ``emulator/timing/plan.py``: when each token is due
* ``tokenizer.py``: the generator that keeps to it
* ``emulator/answers/composing.py``: what the tokens say
* ``emulator/serving/events.py``: the tokens as JSON and events
* ``emulator/transport/sending.py``: their way out
"""

import asyncio
import gc
import hashlib
import logging
import sys
import time
from functools import partial

import bentoml
from bentoml.exceptions import BentoMLConfigException
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route, Router
from starlette.types import Receive, Scope, Send

from emulator import metrics
from emulator.apis.embeddings.endpoint import EmbeddingEndpoint
from emulator.apis.responses.schema import InputTokens
from emulator.apis.vllm.routes import VllmRoutes
from emulator.contract.bounds import MAX_MODEL_LENGTH
from emulator.contract.error_words import string_too_long
from emulator.emulation.profiles import ProfilesError, read_profiles
from emulator.engine.config import EngineConfigError, load_engine
from emulator.faults.deciding import Fault
from emulator.faults.rules import RulesError, read_rules
from emulator.helpers.pool import HelperPool
from emulator.injection.fault_injector import Injector, refuse_time_in_engine
from emulator.limits.gate import Gate, Policy, open_store, prepare_store
from emulator.limits.rules import FileError
from emulator.metrics import TALLY
from emulator.pages import docs_page
from emulator.pages.index_page import index
from emulator.serving.bodies import BodyReader
from emulator.serving.counting import known
from emulator.serving.dispatcher import Desk
from emulator.serving.engine_timing import EngineTiming, Startup
from emulator.serving.events import Header
from emulator.serving.generation import Generation, random_id
from emulator.serving.limiting import Limiter
from emulator.serving.planning import draw_offsets, refuse_beyond_timeout
from emulator.serving.preparing import (
    CHAT,
    INPUT_TOKENS,
    LEGACY,
    RESPONSES,
    Prepared,
    Preparer,
    Work,
)
from emulator.timing.clock import running_clock
from emulator.timing.jitter import load_traces
from emulator.transport.bentoml_seam import keep_connections, read_settings, worker_number
from emulator.transport.bounded_protocol import bound_connections
from emulator.transport.cors import Cors
from emulator.transport.error_answers import (
    COMPLETION_PATHS,
    answer_error,
    handle_disconnect,
    handle_error,
)
from emulator.transport.fast_path import Endpoint, Shortcut
from emulator.transport.log_lines import LINES, keep_lines_printable
from emulator.transport.sending import (
    EventStream,
    ended_by_disconnect,
    json_response,
    openai_headers,
)
from schemas import APIError, CompletionList, Health, Model, ModelList
from tokenizer import TokenGenerator, VocabularyError, locate_vocabularies

__version__ = "0.1.0"

SETTINGS = read_settings()
try:
    TRACES = load_traces(SETTINGS.traces) if SETTINGS.traces else {}
except (OSError, ValueError) as error:
    raise BentoMLConfigException(f"The setting 'traces': {error}") from None
try:
    PROFILES = read_profiles(SETTINGS.profiles, SETTINGS, TRACES) if SETTINGS.profiles else None
except ProfilesError as error:
    raise BentoMLConfigException(f"The setting 'profiles': {error}") from None
try:
    POLICY = Policy.read(SETTINGS)
except FileError as error:
    raise BentoMLConfigException(str(error)) from None
try:
    ENGINE = load_engine(SETTINGS.engine) if SETTINGS.engine else None
except EngineConfigError as error:
    raise BentoMLConfigException(f"The setting 'engine': {error}") from None
try:
    FAULTS = read_rules(SETTINGS.faults) if SETTINGS.faults else ()
except RulesError as error:
    raise BentoMLConfigException(f"The setting 'faults': {error}") from None
SYSTEM_FINGERPRINT = "fp_" + hashlib.sha256(__version__.encode()).hexdigest()[:10]
MODELS_CREATED = 1_677_610_602
# How many objects the youngest of Python's garbage has, how many of its collections come before one
# of the middle, which takes 1 ms then, and how many of those before a full one: 1,400,000 objects.
COLLECT_AFTER = (700, 2, 1000)
PROBE_PATHS = ("/metrics", "/healthz", "/livez", "/readyz")


class Application(Starlette):
    """Starlette that notes when a request's headers arrived: the start of every clock."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["start_s"] = time.monotonic()
        await super().__call__(scope, receive, send)


def new_limiter(policy: Policy) -> Limiter:
    """Return what applies keys and limits to a worker's requests."""
    store = open_store(
        SETTINGS.limits_store,
        lambda: TALLY.add(metrics.UNLIMITED),
        alone=SETTINGS.workers == 1,
    )
    return Limiter(Gate(policy, store), SETTINGS.models)


def _unguarded(endpoint: Endpoint) -> Endpoint:
    return endpoint


endpoints: dict[str, Endpoint] = {}
application = Application(
    exception_handlers={
        APIError: handle_error,
        HTTPException: handle_error,
        Exception: handle_error,
        ClientDisconnect: handle_disconnect,
    }
)
application.router.redirect_slashes = False
bound_connections()
keep_connections(SETTINGS.keep_alive_s)


@bentoml.service(
    name="openai_emulator",
    workers=SETTINGS.workers or "cpu_count",
    # The 60 s to the first byte that BentoML allows are too short for a slow whole answer. Each
    # request keeps 0.8 KB until the timeout has passed, so that hours would be too long.
    traffic={"timeout": SETTINGS.timeout_s},
    # BentoML opens an OpenTelemetry span for every ASGI send, sampled or not: without them one
    # worker streams 50,000 tokens/s instead of 15,000. With no exporter nothing is lost.
    tracing={"excluded_urls": ".*"},
    # A completion has a log line of its own.
    logging={"access": {"skip_paths": [*PROBE_PATHS, *COMPLETION_PATHS]}},
    # Without a distro BentoML adds no compilers, which are half of its images.
    image=bentoml.images.Image("python:3.11-slim", distro="", python_version="3.11"),
)
@bentoml.asgi_app(application)
class OpenAIEmulator:
    """OpenAI's Chat Completions and Models APIs with no model behind them."""

    def __init__(self) -> None:
        self.started_s = time.monotonic()
        self.generator = TokenGenerator()
        preparer = Preparer(SETTINGS, PROFILES, ENGINE)
        work = Work(preparer)
        self.helpers = HelperPool(SETTINGS.helpers, work, work.fresh)
        self.desk = Desk(preparer, BodyReader(SETTINGS), self.helpers, counts=POLICY is not None)
        self.injector = Injector(SETTINGS, FAULTS)
        self.embedding = EmbeddingEndpoint(SETTINGS, TRACES, self.injector)
        self.startup = Startup(SETTINGS.startup_s)
        self.engine = None
        if ENGINE is not None:
            number = str((worker_number() or 1) - 1)  # vLLM counts from 0
            self.engine = EngineTiming(ENGINE, number, SETTINGS.models[0], SETTINGS.timeout_s)
        self.models = {
            name: Model(id=name, created=MODELS_CREATED, owned_by="openai")
            for name in SETTINGS.models
        }
        self.limiter = None if POLICY is None else new_limiter(POLICY)
        guard = self.limiter.guard if self.limiter else _unguarded
        posts = (self.chat_completions, self.completions, self.responses, self.embeddings)
        guarded = [guard(self.once_started(endpoint)) for endpoint in posts]
        endpoints.update(zip(COMPLETION_PATHS, guarded, strict=True))
        chat, legacy, responses, embeddings = guarded
        vllm = VllmRoutes(__version__, self.desk, self.startup)
        v1 = Router(
            [
                Route("/chat/completions", chat, methods=["POST"]),
                Route("/chat/completions", guard(self.list_completions)),
                Route("/completions", legacy, methods=["POST"]),
                Route("/embeddings", embeddings, methods=["POST"]),
                Route("/responses", responses, methods=["POST"]),
                Route("/responses/input_tokens", guard(self.input_tokens), methods=["POST"]),
                Route("/responses/{id}", guard(self.find_response), methods=["GET", "DELETE"]),
                Route("/responses/{id}/input_items", guard(self.find_response)),
                Route("/responses/{id}/cancel", guard(self.find_response), methods=["POST"]),
                Route("/models", guard(self.list_models)),
                Route("/models/{model:path}", guard(self.get_model)),
            ],
            redirect_slashes=False,
        )
        application.router.routes.extend(
            [
                Route("/", index(__version__)),
                Route("/health", self.health),
                Mount("/v1", v1),
                *vllm.routes(),
                *docs_page.routes(__version__),
            ]
        )

    async def __is_ready__(self) -> bool:
        """Tell /readyz whether the model is loaded."""
        return self.startup.is_over

    def once_started(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint that refuses requests while the model loads, if that takes time."""
        if not SETTINGS.startup_s:
            return endpoint

        async def checked(request: Request) -> Response:
            self.startup.check()
            return await endpoint(request)

        return checked

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
    def prepare_limits() -> None:
        """Create what the workers share, or stop `bentoml serve` if their store is not there."""
        try:
            if POLICY is not None:
                prepare_store(SETTINGS.limits_store)
        except FileError as error:
            raise BentoMLConfigException(f"The setting 'limits_store': {error}") from None

    @bentoml.on_startup
    def freeze_start_up_objects(self) -> None:
        """Take BentoML's many objects out of the garbage collector's sight.

        A full collection over them stalls every stream for 70 to 130 ms, one over what a thousand
        requests hold for 60 to 90 ms. So these are rare: what lives long is no garbage here, but
        for some objects of each connection.
        """
        metrics.forget_dead_workers()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        # A thread that renders or counts gives way to the streams after 0.5 ms, not 5 ms.
        sys.setswitchinterval(0.0005)
        # No log line tells them, and each costs a look-up for each line.
        logging.logProcesses = logging.logThreads = logging.logMultiprocessing = False

    @bentoml.on_startup
    async def slacken_clock(self) -> None:
        """Let tokens leave together that are due close to each other, if that is set."""
        if SETTINGS.timer_slack_us:
            running_clock().slacken(SETTINGS.timer_slack_us / 1e6)

    @bentoml.on_startup
    async def start_helpers(self) -> None:
        """Have the helpers share what is loaded by now."""
        self.helpers.start()

    @bentoml.on_startup
    def keep_log_printable(self) -> None:
        """Let nothing that a client says act on the terminal that shows the log."""
        keep_lines_printable()

    @bentoml.on_shutdown
    def flush_metrics(self) -> None:
        """Hand over what the metrics and the log have gathered."""
        TALLY.flush()
        LINES.flush()

    @bentoml.on_shutdown
    async def close_helpers(self) -> None:
        """End the helpers."""
        await self.helpers.close()

    async def chat_completions(self, request: Request) -> Response:
        """Answer POST /v1/chat/completions."""
        return await self.generate(request, CHAT)

    async def completions(self, request: Request) -> Response:
        """Answer the legacy POST /v1/completions."""
        return await self.generate(request, LEGACY)

    async def responses(self, request: Request) -> Response:
        """Answer POST /v1/responses: as the chat that asks for the same, in other words."""
        return await self.generate(request, RESPONSES)

    async def input_tokens(self, request: Request) -> Response:
        """Answer POST /v1/responses/input_tokens."""
        request.scope["model"], tokens = await self.desk.answer(request, INPUT_TOKENS)
        if self.limiter:
            await self.limiter.look(request)
        return json_response(request, InputTokens(input_tokens=tokens))

    async def find_response(self, request: Request) -> Response:
        """Answer what asks for a stored response: there is no store."""
        raise APIError(f"Response with id '{request.path_params['id']}' not found.", status=404)

    async def embeddings(self, request: Request) -> Response:
        """Answer POST /v1/embeddings."""
        wanted = await self.desk.embeddings(request)
        if self.limiter:
            await self.limiter.admit_embeddings(request, wanted)
        return await self.embedding.answer(request, wanted)

    async def generate(self, request: Request, path: str) -> Response:
        """Read a request for texts, and send the answers when they are due."""
        prepared = await self.desk.prepare(request, path)
        try:
            generation, fault = await self.plan(request, prepared)
            return await self.respond(request, generation, fault)
        except BaseException:
            prepared.cancel()
            raise

    async def plan(self, request: Request, prepared: Prepared) -> tuple[Generation, Fault | None]:
        """Decide when the answers of a request are due, and what becomes of them.

        Raises:
            APIError: It is refused.
            ClientDisconnect: The client went away.
        """
        parsed, headers, plan = prepared.request, prepared.asked.emulation, prepared.plan
        counted = None
        if self.limiter:
            count = partial(self.desk.count, prepared)
            counted = await self.limiter.admit(request, parsed, plan, count)
        fault = self.injector.decide(request, parsed)
        times = None
        if self.engine is not None and self.engine.times(prepared.asked):
            refuse_time_in_engine(fault)
            prompts = await self.desk.prompts(request, prepared)
            times = self.engine.queue(request, parsed.model, prompts, prepared.answers, plan)
            plan = plan.timed_at(times)
            counted = known(sum(prompt.tokens for prompt in prompts))
        elif headers.ttft_jitter is not None or headers.itl_jitter is not None:
            offsets = await asyncio.to_thread(draw_offsets, plan, headers, parsed.seed, TRACES)
            plan = plan.timed_at(offsets)
        if not parsed.stream and times is None:
            refuse_beyond_timeout(plan, SETTINGS.timeout_s)
        if counted is None:
            counted = self.desk.count(prepared) if parsed.wants_usage else known(0)
        header = Header(
            random_id(parsed.ID_PREFIX, parsed.ID_DIGITS),
            int(time.time()),
            parsed.model,
            SYSTEM_FINGERPRINT,
        )
        generation = Generation(
            request=parsed,
            plan=plan,
            answers=prepared.answers,
            renderer=prepared.renderer(header),
            counted=counted,
            start_s=request.scope["start_s"],
            id=header.id,
            cached_tokens=headers.cached_tokens,
            report=headers.emulation_report,
            note=prepared.note,
            times=times,
        )
        return generation, fault

    async def respond(
        self, request: Request, generation: Generation, fault: Fault | None
    ) -> Response:
        """Return what sends the answers when they are due, or what is to become of them."""
        parsed = generation.request
        if parsed.stream and parsed.continuous_usage:
            async with ended_by_disconnect(request.receive):
                await generation.counted
        if fault is not None:
            return await self.injector.inject(request, fault, generation, self.generator)
        if parsed.stream:
            return EventStream(
                generation, partial(generation.stream, self.generator), openai_headers(request)
            )
        return await self.send_whole(request, generation)

    async def send_whole(self, request: Request, generation: Generation) -> Response:
        """Return a whole answer when its last token is due."""
        if generation.is_due:
            body = await generation.whole()
        else:
            async with ended_by_disconnect(request.receive):
                if self.engine is not None and generation.times is not None:
                    body = await self.engine.whole(generation)
                else:
                    body = await generation.whole_in_time()
        return json_response(request, generation.finish_whole(body))

    async def list_completions(self, request: Request) -> Response:
        """Answer GET /v1/chat/completions: the stored ones, of which there are none."""
        return json_response(request, CompletionList())

    async def list_models(self, request: Request) -> Response:
        """Answer GET /v1/models."""
        return json_response(request, ModelList(data=list(self.models.values())))

    async def get_model(self, request: Request) -> Response:
        """Answer GET /v1/models/{model}: any that a chat would take."""
        name = request.path_params["model"]
        if not name:
            raise HTTPException(404)
        if len(name) > MAX_MODEL_LENGTH:
            raise string_too_long("model", MAX_MODEL_LENGTH, len(name))
        if name not in self.models and SETTINGS.strict_models:
            raise APIError(
                f"The model '{name}' does not exist",
                status=404,
                param="model",
                code="model_not_found",
            )
        unlisted = Model(id=name, created=MODELS_CREATED, owned_by="openai")
        return json_response(request, self.models.get(name, unlisted))

    async def health(self, request: Request) -> Response:
        """Answer GET /health."""
        uptime = round(time.monotonic() - self.started_s, 3)
        return json_response(request, Health(version=__version__, uptime=uptime))


# bentoml.service returns a Service, which its annotation does not tell.
OpenAIEmulator.add_asgi_middleware(  # type: ignore[attr-defined]
    Shortcut,
    endpoints=endpoints,
    answer_error=answer_error,
    cors=Cors(SETTINGS.cors_origins) if SETTINGS.cors_origins else None,
)
