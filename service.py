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
from functools import partial

import bentoml
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
from faults.rules import RulesError, read_rules
from http_api import docs_page
from http_api.chat_events import ChatRenderer
from http_api.events import Header, Renderer
from http_api.failing import COMPLETION_PATHS, answer_error, handle_disconnect, handle_error
from http_api.generation import Generation, random_id, start_counting
from http_api.injecting import Injector
from http_api.legacy_events import CompletionRenderer
from http_api.log_lines import LINES
from http_api.planning import draw_offsets, plan_generation, refuse_beyond_timeout
from http_api.prompt_tokens import count_chat_prompt, count_legacy_prompt, echoes
from http_api.reading import RequestReader, is_large, parse_headers
from http_api.sending import EventStream, ended_by_disconnect, json_response, openai_headers
from http_api.shortcut import Endpoint, Shortcut
from http_api.upgrade import ignore_offers
from metrics import TALLY
from schemas import (
    APIError,
    ChatCompletionRequest,
    CompletionRequest,
    EmulationHeaders,
    GenerationRequest,
    Health,
    Model,
    ModelList,
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
    FAULTS = read_rules(SETTINGS.faults) if SETTINGS.faults else ()
except RulesError as error:
    raise BentoMLConfigException(f"The setting 'faults': {error}") from None
SYSTEM_FINGERPRINT = "fp_" + hashlib.sha256(__version__.encode()).hexdigest()[:10]
MODELS_CREATED = 1_677_610_602
PROBE_PATHS = ("/metrics", "/healthz", "/livez", "/readyz")

# Longer answers are made in a thread, so that other streams go on.
MAX_TOKENS_COMPOSED_INLINE = 16_384


class Application(Starlette):
    """Starlette that notes when a request's headers arrived: the start of every clock."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["start_s"] = time.monotonic()
        await super().__call__(scope, receive, send)


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
        self.models = {
            name: Model(id=name, created=MODELS_CREATED, owned_by="openai")
            for name in SETTINGS.models
        }
        endpoints.update(
            zip(COMPLETION_PATHS, (self.chat_completions, self.completions), strict=True)
        )
        v1 = Router(
            [
                Route("/chat/completions", self.chat_completions, methods=["POST"]),
                Route("/completions", self.completions, methods=["POST"]),
                Route("/models", self.list_models),
                Route("/models/{model:path}", self.get_model),
            ],
            redirect_slashes=False,
        )
        application.router.routes.extend(
            [Route("/health", self.health), Mount("/v1", v1), *docs_page.routes(__version__)]
        )

    @bentoml.on_deployment
    @staticmethod
    def check_vocabularies() -> None:
        """Stop `bentoml serve` before any worker starts if a vocabulary is missing or damaged."""
        try:
            locate_vocabularies()
        except VocabularyError as error:
            raise BentoMLConfigException(str(error)) from None

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
        headers = parse_headers(request)
        prompt = await asyncio.to_thread(chat.prompt) if is_large(request) else chat.prompt()
        return await self.generate(
            request,
            chat,
            headers,
            texts=prompt.texts,
            count=partial(count_chat_prompt, chat, prompt),
            compose=lambda composer: composer.chat(chat, headers.tool_calls),
            renderer=partial(ChatRenderer, include_usage=chat.include_usage),
        )

    async def completions(self, request: Request) -> Response:
        """Answer the legacy POST /v1/completions."""
        legacy = await self.reader.read(request, CompletionRequest)
        headers = parse_headers(request)
        echoed = await asyncio.to_thread(echoes, legacy) if is_large(request) else echoes(legacy)
        return await self.generate(
            request,
            legacy,
            headers,
            texts=legacy.texts,
            count=partial(count_legacy_prompt, legacy),
            compose=lambda composer: composer.legacy(legacy),
            renderer=partial(CompletionRenderer, echoes=echoed, include_usage=legacy.include_usage),
        )

    async def generate(
        self,
        request: Request,
        parsed: GenerationRequest,
        headers: EmulationHeaders,
        *,
        texts: Sequence[str],
        count: Callable[[], int],
        compose: Callable[[Composer], list[Answer]],
        renderer: Callable[[Header], Renderer],
    ) -> Response:
        """Plan and compose the answers, and send them when they are due.

        Args:
            request: The HTTP request.
            parsed: Its body.
            headers: Its X-* headers.
            texts: The prompt.
            count: Counts the prompt's tokens.
            compose: Decides what the choices say.
            renderer: Makes what writes them.
        """
        plan = plan_generation(parsed, headers, SETTINGS)
        composer = Composer(parsed, plan, self.corpus, texts)
        short = plan.output_tokens * parsed.choices <= MAX_TOKENS_COMPOSED_INLINE
        if parsed.is_plain and short:
            answers = compose(composer)
        else:
            async with ended_by_disconnect(request.receive):
                answers = await compose_off_loop(composer, compose)
        plan = plan.timed_as(max(answer.slots for answer in answers))
        if headers.ttft_jitter is not None or headers.itl_jitter is not None:
            offsets = await asyncio.to_thread(draw_offsets, plan, headers, parsed.seed, TRACES)
            plan = plan.timed_at(offsets)
        if not parsed.stream:
            refuse_beyond_timeout(plan, SETTINGS.timeout_s)
        header = Header(
            random_id(parsed.ID_PREFIX), int(time.time()), parsed.model, SYSTEM_FINGERPRINT
        )
        generation = Generation(
            request=parsed,
            plan=plan,
            answers=answers,
            renderer=renderer(header),
            counted=start_counting(request.scope["size"], count if parsed.wants_usage else None),
            start_s=request.scope["start_s"],
            id=header.id,
            cached_tokens=headers.cached_tokens,
            report=headers.emulation_report,
        )
        fault = self.injector.decide(request, parsed)
        if fault is not None:
            return await self.injector.inject(request, fault, generation, self.generator)
        if parsed.stream:
            return EventStream(
                generation, generation.stream(self.generator), openai_headers(request)
            )
        if generation.is_due:
            body = await generation.whole()
        else:
            async with ended_by_disconnect(request.receive):
                body = await generation.whole_in_time()
        return json_response(request, generation.finish_whole(body))

    async def list_models(self, request: Request) -> Response:
        """Answer GET /v1/models."""
        return json_response(request, ModelList(data=list(self.models.values())))

    async def get_model(self, request: Request) -> Response:
        """Answer GET /v1/models/{model}."""
        name = request.path_params["model"]
        if not name:
            raise HTTPException(404)
        if name not in self.models:
            raise APIError(
                f"The model '{name}' does not exist",
                status=404,
                param="model",
                code="model_not_found",
            )
        return json_response(request, self.models[name])

    async def health(self, request: Request) -> Response:
        """Answer GET /health."""
        uptime = round(time.monotonic() - self.started_s, 3)
        return json_response(request, Health(version=__version__, uptime=uptime))


# bentoml.service returns a Service, which its annotation does not tell.
OpenAIEmulator.add_asgi_middleware(  # type: ignore[attr-defined]
    Shortcut, endpoints=endpoints, answer_error=answer_error
)
