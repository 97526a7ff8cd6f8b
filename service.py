"""The BentoML service: its routes, and the way of a request from plan to answer.

HTTP -> schema -> plan -> timed tokens -> JSON or SSE, a room for each:

* ``http_api/reading.py``: bytes to a checked request; ``http_api/planning.py``: its plan
* ``timing/plan.py``: when each token is due; ``tokenizer.py``: the generator that keeps to it
* ``answers/composing.py``: what the tokens say
* ``http_api/events.py``: the tokens as JSON and events; ``http_api/sending.py``: their way out
"""

import asyncio
import gc
import hashlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import bentoml
from bentoml._internal.context import server_context
from bentoml.exceptions import BentoMLConfigException
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route, Router
from starlette.types import Receive, Scope, Send

import metrics
from answers.answer import Answer
from answers.composing import Composer, compose_off_loop
from answers.corpus import Corpus
from engine.config import EngineConfigError, load_engine
from faults.deciding import Fault
from faults.rules import RulesError, read_rules
from http_api import docs_page
from http_api.chat_events import ChatRenderer
from http_api.embedding import EmbeddingEndpoint
from http_api.engine_timing import EngineTiming, Startup
from http_api.errors import string_too_long
from http_api.events import Header, Renderer
from http_api.failing import COMPLETION_PATHS, answer_error, handle_disconnect, handle_error
from http_api.generation import MAX_BYTES_COUNTED_INLINE, Generation, random_id, start_counting
from http_api.injecting import Injector, refuse_time_in_engine
from http_api.legacy_events import CompletionRenderer
from http_api.limiting import Limiter
from http_api.log_lines import LINES
from http_api.planning import draw_offsets, plan_generation, refuse_beyond_timeout
from http_api.profiles import ProfilesError, read_profiles
from http_api.prompt_ids import chat_prompt_ids, legacy_prompt_ids
from http_api.prompt_tokens import count_chat_prompt, count_legacy_prompt, echoes
from http_api.reading import RequestReader, is_large, parse_headers
from http_api.refusals import refuse_chat, refuse_response
from http_api.responses_chat import ResponsesChat, to_chat
from http_api.responses_events import ResponsesRenderer
from http_api.responses_schemas import InputTokens, InputTokensRequest, ResponsesRequest
from http_api.sending import EventStream, ended_by_disconnect, json_response, openai_headers
from http_api.shortcut import Endpoint, Shortcut
from http_api.upgrade import ignore_offers
from http_api.vllm_routes import VllmRoutes
from limits.gate import Gate, Policy, open_store, prepare_store
from limits.rules import FileError
from metrics import TALLY
from schemas import (
    MAX_MODEL_LENGTH,
    APIError,
    ChatCompletionRequest,
    CompletionList,
    CompletionRequest,
    EmbeddingRequest,
    EmulationHeaders,
    GenerationRequest,
    Health,
    Model,
    ModelList,
    Prompt,
)
from settings import Settings
from timing.jitter import load_traces
from tokenizer import TokenGenerator, VocabularyError, locate_vocabularies

__version__ = "0.1.0"

SETTINGS = bentoml.use_arguments(Settings)
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
PROBE_PATHS = ("/metrics", "/healthz", "/livez", "/readyz")

# Longer answers are made in a thread, so that other streams go on.
MAX_TOKENS_COMPOSED_INLINE = 16_384


@dataclass(frozen=True, slots=True)
class PromptOf:
    """The texts of a request's prompt, what counts its tokens, and what makes each one's ids."""

    texts: Sequence[str]
    count: Callable[[], int]
    ids: Callable[[], Sequence[Sequence[int]]]


class Application(Starlette):
    """Starlette that notes when a request's headers arrived: the start of every clock."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["start_s"] = time.monotonic()
        await super().__call__(scope, receive, send)


def is_long(request: Request, *, with_schemas: bool) -> bool:
    """Tell whether to look for faults takes long: schemas take ten times as long as texts."""
    return is_large(request) or (with_schemas and request.scope["size"] > MAX_BYTES_COUNTED_INLINE)


def new_limiter(policy: Policy) -> Limiter:
    """Return what applies keys and limits to a worker's requests."""
    store = open_store(SETTINGS.limits_store, lambda: TALLY.add(metrics.UNLIMITED))
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
)
@bentoml.asgi_app(application)
class OpenAIEmulator:
    """OpenAI's Chat Completions and Models APIs with no model behind them."""

    def __init__(self) -> None:
        self.started_s = time.monotonic()
        self.generator = TokenGenerator()
        self.corpus = Corpus()
        self.reader = RequestReader(SETTINGS)
        self.injector = Injector(SETTINGS, FAULTS)
        self.embedding = EmbeddingEndpoint(SETTINGS, TRACES, self.injector)
        self.startup = Startup(SETTINGS.startup_s)
        self.engine = None
        if ENGINE is not None:
            number = str((server_context.worker_index or 1) - 1)  # vLLM counts from 0
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
        max_model_len = ENGINE.max_model_len if ENGINE else SETTINGS.max_output_length
        vllm = VllmRoutes(__version__, SETTINGS, max_model_len, self.startup)
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

        A full collection over them stalls every stream for 70 to 130 ms.
        """
        metrics.forget_dead_workers()
        gc.collect()
        gc.freeze()
        # A thread that parses or composes gives way to the streams after 0.5 ms, not 5 ms.
        sys.setswitchinterval(0.0005)
        # No log line tells them, and each costs a look-up for each line.
        logging.logProcesses = logging.logThreads = logging.logMultiprocessing = False

    @bentoml.on_startup
    def ignore_offers_of_http2(self) -> None:
        """Serve clients that offer to change to HTTP/2."""
        ignore_offers()

    @bentoml.on_shutdown
    def flush_metrics(self) -> None:
        """Hand over what the metrics and the log have gathered."""
        TALLY.flush()
        LINES.flush()

    async def chat_completions(self, request: Request) -> Response:
        """Answer POST /v1/chat/completions."""
        chat = await self.reader.read(request, ChatCompletionRequest)
        headers = parse_headers(request, chat, PROFILES)
        prompt = await self.prompt_of(request, chat)
        return await self.generate(
            request,
            chat,
            headers,
            prompt=PromptOf(
                prompt.texts,
                partial(count_chat_prompt, chat, prompt),
                lambda: [chat_prompt_ids(chat)],
            ),
            compose=lambda composer: composer.chat(chat, headers.tool_calls),
            renderer=partial(ChatRenderer, include_usage=chat.include_usage),
        )

    async def prompt_of(self, request: Request, chat: ChatCompletionRequest) -> Prompt:
        """Return the prompt of a chat that OpenAI would not refuse.

        Raises:
            APIError: OpenAI refuses it, and the server is not lenient.
        """

        def check() -> Prompt:
            prompt = chat.prompt()
            if not SETTINGS.lenient:
                refuse_chat(chat, prompt)
            return prompt

        is_slow = is_long(request, with_schemas=not chat.is_plain)
        return await asyncio.to_thread(check) if is_slow else check()

    async def completions(self, request: Request) -> Response:
        """Answer the legacy POST /v1/completions."""
        legacy = await self.reader.read(request, CompletionRequest)
        headers = parse_headers(request, legacy, PROFILES)
        echoed = await asyncio.to_thread(echoes, legacy) if is_large(request) else echoes(legacy)
        return await self.generate(
            request,
            legacy,
            headers,
            prompt=PromptOf(
                legacy.texts,
                partial(count_legacy_prompt, legacy),
                partial(legacy_prompt_ids, legacy),
            ),
            compose=lambda composer: composer.legacy(legacy),
            renderer=partial(CompletionRenderer, echoes=echoed, include_usage=legacy.include_usage),
        )

    async def responses(self, request: Request) -> Response:
        """Answer POST /v1/responses: as the chat that asks for the same, in other words."""
        asked = await self.reader.read(request, ResponsesRequest)
        headers = parse_headers(request, asked, PROFILES)
        chat, prompt = await self.translate(request, asked)
        return await self.generate(
            request,
            chat,
            headers,
            prompt=PromptOf(
                prompt.texts,
                partial(count_chat_prompt, chat, prompt),
                lambda: [chat_prompt_ids(chat)],
            ),
            compose=lambda composer: composer.chat(chat, headers.tool_calls),
            renderer=partial(ResponsesRenderer, request=asked),
        )

    async def translate(
        self, request: Request, asked: InputTokensRequest
    ) -> tuple[ResponsesChat, Prompt]:
        """Return the chat that asks for the same as a Responses request, and its prompt.

        Raises:
            APIError: OpenAI refuses it, and the server is not lenient.
        """

        def convert() -> tuple[ResponsesChat, Prompt]:
            chat = to_chat(asked)
            if isinstance(asked, ResponsesRequest) and not SETTINGS.lenient:
                refuse_response(asked, chat)
            return chat, chat.prompt()

        is_slow = is_long(request, with_schemas=bool(asked.tools or asked.text))
        return await asyncio.to_thread(convert) if is_slow else convert()

    async def input_tokens(self, request: Request) -> Response:
        """Answer POST /v1/responses/input_tokens."""
        asked = await self.reader.read(request, InputTokensRequest)
        chat, prompt = await self.translate(request, asked)
        count = partial(count_chat_prompt, chat, prompt)
        tokens = await start_counting(request.scope["size"], count)
        return json_response(request, InputTokens(input_tokens=tokens))

    async def find_response(self, request: Request) -> Response:
        """Answer what asks for a stored response: there is no store."""
        raise APIError(f"Response with id '{request.path_params['id']}' not found.", status=404)

    async def embeddings(self, request: Request) -> Response:
        """Answer POST /v1/embeddings."""
        asked = await self.reader.read(request, EmbeddingRequest)
        if self.limiter:
            await self.limiter.admit_embeddings(request, asked)
        return await self.embedding.answer(request, asked, parse_headers(request, asked, PROFILES))

    async def generate(
        self,
        request: Request,
        parsed: GenerationRequest,
        headers: EmulationHeaders,
        *,
        prompt: PromptOf,
        compose: Callable[[Composer], list[Answer]],
        renderer: Callable[[Header], Renderer],
    ) -> Response:
        """Plan and compose the answers, and send them when they are due.

        Args:
            request: The HTTP request.
            parsed: Its body.
            headers: Its X-* headers.
            prompt: The prompt, or the prompts.
            compose: Decides what the choices say.
            renderer: Makes what writes them.
        """
        plan = plan_generation(parsed, headers, SETTINGS)
        counted = None
        if self.limiter:
            counted = await self.limiter.admit(request, parsed, plan, prompt.count)
        fault = self.injector.decide(request, parsed)
        composer = Composer(parsed, plan, self.corpus, prompt.texts)
        short = plan.output_tokens * parsed.choices <= MAX_TOKENS_COMPOSED_INLINE
        if parsed.is_plain and short:
            answers = compose(composer)
        else:
            async with ended_by_disconnect(request.receive):
                answers = await compose_off_loop(composer, compose)
        plan = plan.timed_as(max(answer.slots for answer in answers))
        times, size, count = None, request.scope["size"], prompt.count
        if self.engine is not None and self.engine.times(headers):
            refuse_time_in_engine(fault)
            prompts = await self.engine.read_prompts(request, prompt.ids)
            times = self.engine.queue(request, parsed.model, prompts, answers, plan)
            plan = plan.timed_at(times)
            size, count = 0, partial(sum, [counted.tokens for counted in prompts])
        elif headers.ttft_jitter is not None or headers.itl_jitter is not None:
            offsets = await asyncio.to_thread(draw_offsets, plan, headers, parsed.seed, TRACES)
            plan = plan.timed_at(offsets)
        if not parsed.stream and times is None:
            refuse_beyond_timeout(plan, SETTINGS.timeout_s)
        header = Header(
            random_id(parsed.ID_PREFIX, parsed.ID_DIGITS),
            int(time.time()),
            parsed.model,
            SYSTEM_FINGERPRINT,
        )
        generation = Generation(
            request=parsed,
            plan=plan,
            answers=answers,
            renderer=renderer(header),
            counted=counted or start_counting(size, count if parsed.wants_usage else None),
            start_s=request.scope["start_s"],
            id=header.id,
            cached_tokens=headers.cached_tokens,
            report=headers.emulation_report,
            note=composer.note,
            times=times,
        )
        return await self.respond(request, generation, fault)

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
                generation, generation.stream(self.generator), openai_headers(request)
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
    Shortcut, endpoints=endpoints, answer_error=answer_error
)
