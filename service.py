"""The BentoML service: settings, routes, the way from HTTP to a plan, and one error handler."""

import asyncio
import gc
import hashlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import bentoml
from bentoml.exceptions import BentoMLConfigException
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route, Router
from starlette.types import Receive, Scope, Send

import api_docs
import metrics
from answers import Answer, Composer
from attachments import shorten_attachments
from distributions import Jitter, due_offsets, load_traces
from errors import header_error, invalid_header, request_error, server_error, unknown_parameter
from generation import CLIENT_CLOSED_REQUEST, Generation, random_id, start_counting
from http_upgrade import ignore_offers
from metrics import TALLY
from rendering import ChatRenderer, CompletionRenderer, Header, Renderer
from responses import (
    Deadline,
    EventStream,
    ended_by_disconnect,
    json_response,
    openai_headers,
)
from schemas import (
    APIError,
    ChatCompletionRequest,
    CompletionRequest,
    EmulationHeaders,
    ErrorEnvelope,
    GenerationPlan,
    GenerationRequest,
    Health,
    Model,
    ModelList,
    Prompt,
    plan_generation,
    refuse_beyond_timeout,
)
from settings import Settings
from shortcut import Endpoint, Shortcut
from tokenizer import (
    TokenGenerator,
    VocabularyError,
    count_function_tokens,
    count_image_tokens,
    count_prompt_tokens,
    count_tokens,
    decode_tokens,
    locate_vocabularies,
)

__version__ = "0.1.0"

SETTINGS = bentoml.use_arguments(Settings)
try:
    TRACES = load_traces(SETTINGS.traces) if SETTINGS.traces else {}
except (OSError, ValueError) as error:
    raise BentoMLConfigException(f"The setting 'traces': {error}") from None
SYSTEM_FINGERPRINT = "fp_" + hashlib.sha256(__version__.encode()).hexdigest()[:10]
MODELS_CREATED = 1_677_610_602
PROBE_PATHS = ("/metrics", "/healthz", "/livez", "/readyz")
COMPLETION_PATHS = ("/v1/chat/completions", "/v1/completions")

# Larger requests are read, and longer answers made, in a thread, so that other streams go on.
MAX_BYTES_READ_INLINE = 65_536
MAX_TOKENS_COMPOSED_INLINE = 16_384

HEADER_NAMES = {
    str(field.alias).lower().encode(): field.alias
    for field in EmulationHeaders.model_fields.values()
}

logger = logging.getLogger("bentoml.openai_emulator")

AnyRequest = TypeVar("AnyRequest", bound=GenerationRequest)


class Application(Starlette):
    """Starlette that notes when a request's headers arrived: the start of every clock."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["start_s"] = time.monotonic()
        await super().__call__(scope, receive, send)


# --------------------------------------------------------------------------------------
# From HTTP to a plan
# --------------------------------------------------------------------------------------


async def read_body(request: Request, limit: int) -> bytearray:
    """Return the request's body.

    Raises:
        APIError: The body is, or says that it is, larger than `limit` bytes.
        ClientDisconnect: The client went away.
    """
    declared = int(request.headers.get("content-length", 0))
    body = bytearray()
    while max(declared, len(body)) <= limit:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if not message.get("more_body", False) and len(body) <= limit:
            return body
    raise APIError(
        f"The request body is too large. Expected at most {limit} bytes, "
        f"but got {max(declared, len(body))} or more.",
        status=413,
        code="request_too_large",
    )


def parse_body(body: bytes | bytearray, model: type[AnyRequest]) -> AnyRequest:
    """Read and check a request.

    Raises:
        APIError: Not JSON, or not what the schema asks for.
    """
    strict = SETTINGS.strict_parameters
    try:
        data = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise APIError("We could not parse the JSON body of your request.") from None
    try:
        request = model.model_validate(data, extra="forbid" if strict else "ignore")
    except ValidationError as error:
        raise request_error(error) from None
    if strict and request.extensions:
        raise unknown_parameter(request.extensions[0])
    return request


def parse_large_body(body: bytearray, model: type[AnyRequest]) -> AnyRequest:
    """Read and check a request in a thread, where no step may keep the streams waiting.

    Raises:
        APIError: Not JSON, or not what the schema asks for.
    """
    return parse_body(shorten_attachments(body), model)


def is_large(request: Request) -> bool:
    """Tell whether to look through a request whose body has been read takes long."""
    return bool(request.scope["size"] > MAX_BYTES_READ_INLINE)


async def compose_off_loop(
    request: Request, composer: Composer, compose: Callable[[Composer], list[Answer]]
) -> list[Answer]:
    """Compose the answers in a thread, which ends soon after the client has gone away.

    Raises:
        ClientDisconnect: The client went away.
    """
    async with ended_by_disconnect(request.receive):
        try:
            return await asyncio.to_thread(compose, composer)
        except asyncio.CancelledError:
            composer.cancel()
            raise


def parse_headers(request: Request) -> EmulationHeaders:
    """Read and check the X-* headers.

    Raises:
        APIError: A header is not a number or out of its range.
    """
    given = {
        HEADER_NAMES[name]: value.decode("latin-1")
        for name, value in request.scope["headers"]
        if name in HEADER_NAMES
    }
    try:
        return EmulationHeaders.model_validate(given)
    except ValidationError as error:
        raise header_error(error, EmulationHeaders) from None


def draw_offsets(
    plan: GenerationPlan, headers: EmulationHeaders, seed: int | None
) -> Sequence[float]:
    """Draw when each token is due, in seconds after the start.

    Raises:
        APIError: A header names no distribution.
    """
    return due_offsets(
        plan.hidden_tokens + max(plan.output_tokens, 1),
        plan.ttft_s,
        plan.itl_s,
        ttft_jitter=parse_jitter("X-TTFT-JITTER", headers.ttft_jitter),
        itl_jitter=parse_jitter("X-ITL-JITTER", headers.itl_jitter),
        seed=seed,
    )


def parse_jitter(name: str, text: str | None) -> Jitter | None:
    """Read a distribution.

    Raises:
        APIError: The header names none.
    """
    try:
        return None if text is None else Jitter.parse(text, TRACES)
    except ValueError as error:
        raise invalid_header(name, str(error)) from None


def count_chat_prompt(chat: ChatCompletionRequest, prompt: Prompt) -> int:
    """Return the prompt tokens of a chat: its text, its images and its functions."""
    text = count_prompt_tokens(chat.model, prompt.texts, prompt.messages, prompt.named)
    images = (
        count_image_tokens(chat.model, image.url.width, image.url.height, image.detail)
        for image in prompt.images
    )
    return text + sum(images) + count_function_tokens(chat.model, prompt.functions)


def count_legacy_prompt(completion: CompletionRequest) -> int:
    """Return the prompt tokens of a legacy completion."""
    return sum(
        count_tokens(prompt, completion.model) if isinstance(prompt, str) else len(prompt)
        for prompt in completion.prompt
    )


def echoes(completion: CompletionRequest) -> list[str]:
    """Return for each choice the prompt in front of its text: empty without ``echo``.

    Raises:
        APIError: A prompt of token ids has one that its encoding does not have.
    """
    if not completion.echo:
        return [""] * completion.choices
    texts = []
    for prompt in completion.prompt:
        try:
            texts.append(
                prompt if isinstance(prompt, str) else decode_tokens(prompt, completion.model)
            )
        except KeyError as error:
            raise APIError(
                f"Invalid 'prompt': expected token ids of {completion.model}, but got {error}.",
                param="prompt",
                code="invalid_value",
            ) from None
    return [text for text in texts for _ in range(completion.n or 1)]


# --------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------


def to_api_error(request: Request, error: Exception) -> APIError:
    """Say in OpenAI's words what went wrong; anything unforeseen is a 500."""
    match error:
        case APIError():
            return error
        case HTTPException(status_code=404):
            return APIError(f"Invalid URL ({request.method} {request.url.path})", status=404)
        case HTTPException(status_code=405):
            return APIError(
                f"Not allowed to {request.method} on {request.url.path}.",
                status=405,
                code="method_not_supported",
            )
        case _:
            return server_error()


async def handle_error(request: Request, error: Exception) -> Response:
    """Answer every failure with OpenAI's envelope."""
    api_error = to_api_error(request, error)
    if request.url.path in COMPLETION_PATHS:
        code = api_error.body.code or api_error.body.type
        TALLY.add(metrics.ERRORS.labels(api_error.status, code))
        logger.info("completion status=%d error=%s", api_error.status, code)
    response = json_response(request, ErrorEnvelope(error=api_error.body), api_error.status)
    if api_error.status in (408, 413):
        # What is left of the body would be read, and thrown away, for as long as it comes.
        response.headers["connection"] = "close"
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)
    return response


async def handle_disconnect(_: Request, __: Exception) -> Response:
    """End the exchange with a client that went away before its answer began."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer any failure, for what does not go through Starlette."""
    handle = handle_disconnect if isinstance(error, ClientDisconnect) else handle_error
    return await handle(request, error)


# --------------------------------------------------------------------------------------
# The service
# --------------------------------------------------------------------------------------

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
        self.body_deadline = Deadline(SETTINGS.timeout_s)
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
            [Route("/health", self.health), Mount("/v1", v1), *api_docs.routes(__version__)]
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
        """Hand over what the metrics have added up."""
        TALLY.flush()

    async def read(self, request: Request, model: type[AnyRequest]) -> AnyRequest:
        """Read and check the body of a request.

        Raises:
            APIError: Too large, too slow, malformed, or for a model that does not exist.
        """
        try:
            with self.body_deadline:
                body = await read_body(request, int(SETTINGS.max_body_mb * 1_000_000))
        except TimeoutError:
            raise APIError(
                f"The request body did not arrive within {SETTINGS.timeout_s:g} s.",
                status=408,
                code="request_timeout",
            ) from None
        request.scope["size"] = len(body)
        if is_large(request):
            parsed = await asyncio.to_thread(parse_large_body, body, model)
        else:
            parsed = parse_body(body, model)
        if SETTINGS.strict_models and parsed.model not in self.models:
            raise APIError(
                f"The model `{parsed.model}` does not exist or you do not have access to it.",
                status=404,
                code="model_not_found",
            )
        return parsed

    async def chat_completions(self, request: Request) -> Response:
        """Answer POST /v1/chat/completions."""
        chat = await self.read(request, ChatCompletionRequest)
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
        legacy = await self.read(request, CompletionRequest)
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
        composer = Composer(parsed, plan, self.generator, texts)
        short = plan.output_tokens * parsed.choices <= MAX_TOKENS_COMPOSED_INLINE
        if parsed.is_plain and short:
            answers = compose(composer)
        else:
            answers = await compose_off_loop(request, composer, compose)
        plan = plan.timed_as(max(answer.slots for answer in answers))
        if headers.ttft_jitter is not None or headers.itl_jitter is not None:
            offsets = await asyncio.to_thread(draw_offsets, plan, headers, parsed.seed)
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
        if parsed.stream:
            return EventStream(generation.blocks(self.generator), openai_headers(request))
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
