"""The BentoML service: routes, rendering to JSON and server-sent events, and one error handler."""

import asyncio
import gc
import hashlib
import json
import logging
import random
import string
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import bentoml
from bentoml.exceptions import BentoMLConfigException
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route, Router
from starlette.types import Receive, Scope, Send

from clock import sleep_until
from errors import header_error, request_error
from schemas import (
    APIError,
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    Choice,
    ChunkChoice,
    Delta,
    EmulationHeaders,
    ErrorEnvelope,
    FinishReason,
    GenerationPlan,
    Health,
    Model,
    ModelList,
    ResponseMessage,
    Settings,
    Usage,
    plan_generation,
)
from tokenizer import (
    TokenGenerator,
    VocabularyError,
    count_image_tokens,
    count_prompt_tokens,
    locate_vocabularies,
)

__version__ = "0.1.0"

SETTINGS = bentoml.use_arguments(Settings)
SYSTEM_FINGERPRINT = "fp_" + hashlib.sha256(__version__.encode()).hexdigest()[:10]
MODELS_CREATED = 1_677_610_602
CHAT_PATH = "/v1/chat/completions"
CLIENT_CLOSED_REQUEST = 499  # nginx's code; no client sees it, logs and metrics do

# Longer prompts are counted in a thread: 4,096 characters take about 0.2 ms.
MAX_CHARACTERS_COUNTED_INLINE = 4096

HEADER_NAMES = {
    str(field.alias).lower().encode(): field.alias
    for field in EmulationHeaders.model_fields.values()
}

logger = logging.getLogger("bentoml.openai_emulator")


class Application(Starlette):
    """Starlette that notes when a request's headers arrived: the start of every clock."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["start_s"] = time.monotonic()
        await super().__call__(scope, receive, send)


# --------------------------------------------------------------------------------------
# From HTTP to a plan
# --------------------------------------------------------------------------------------


async def read_body(request: Request, limit: int) -> bytes:
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
            return bytes(body)
    raise APIError(
        f"The request body is too large. Expected at most {limit} bytes, "
        f"but got {max(declared, len(body))} or more.",
        status=413,
        code="request_too_large",
    )


def parse_request(body: bytes) -> ChatCompletionRequest:
    """Read and check a chat completion request.

    Raises:
        APIError: Not JSON, or not what the schema asks for.
    """
    try:
        data = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise APIError("We could not parse the JSON body of your request.") from None
    try:
        return ChatCompletionRequest.model_validate(data)
    except ValidationError as error:
        raise request_error(error) from None


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


def count_prompt(chat: ChatCompletionRequest) -> int:
    """Return the prompt tokens of a chat: its text and its images."""
    prompt = chat.prompt()
    text = count_prompt_tokens(chat.model, prompt.texts, prompt.messages, prompt.named)
    return text + sum(
        count_image_tokens(chat.model, image.url.width, image.url.height, image.detail)
        for image in prompt.images
    )


def start_counting(chat: ChatCompletionRequest) -> Awaitable[int]:
    """Count the prompt tokens: at once if it is short, else in a thread."""
    if sum(map(len, chat.prompt().texts)) > MAX_CHARACTERS_COUNTED_INLINE:
        return asyncio.ensure_future(asyncio.to_thread(count_prompt, chat))
    counted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    counted.set_result(count_prompt(chat))
    return counted


# --------------------------------------------------------------------------------------
# Rendering
# --------------------------------------------------------------------------------------

_ALPHANUMERIC = string.ascii_letters + string.digits
_SLOT = "<content>"


def random_id(prefix: str, length: int) -> str:
    """Return `prefix` and `length` random letters and digits."""
    return prefix + "".join(random.choices(_ALPHANUMERIC, k=length))


@dataclass(slots=True)
class Completion:
    """One answer on its way to the client, and when its tokens have left."""

    chat: ChatCompletionRequest
    plan: GenerationPlan
    tokens: Sequence[str]
    prompt_tokens: Awaitable[int]
    start_s: float
    id: str = field(default_factory=lambda: random_id("chatcmpl-", 29))
    created: int = field(default_factory=lambda: int(time.time()))
    sent_tokens: int = 0
    first_sent_s: float | None = None
    last_sent_s: float | None = None
    largest_gap_s: float = 0.0

    def mark_sent(self, tokens: int) -> None:
        """Note that `tokens` more tokens have left."""
        now_s = time.monotonic()
        if self.last_sent_s is None:
            self.first_sent_s = now_s
        else:
            self.largest_gap_s = max(self.largest_gap_s, now_s - self.last_sent_s)
        self.last_sent_s = now_s
        self.sent_tokens = min(self.sent_tokens + tokens, self.plan.output_tokens)

    async def usage(self) -> Usage:
        """Return the token counts, once the prompt is counted."""
        return Usage.of(await self.prompt_tokens, self.plan.output_tokens)

    async def body(self) -> bytes:
        """Return the whole answer as JSON."""
        completion = ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.chat.model,
            choices=[
                Choice(
                    index=0,
                    message=ResponseMessage(content="".join(self.tokens)),
                    finish_reason=self.plan.finish_reason,
                )
            ],
            usage=await self.usage(),
            system_fingerprint=SYSTEM_FINGERPRINT,
        )
        return completion.model_dump_json().encode()

    def event(
        self,
        delta: Delta | None = None,
        finish_reason: FinishReason | None = None,
        usage: Usage | None = None,
    ) -> str:
        """Return one event of the stream: a delta of choice 0, or a usage without choices."""
        choice = ChunkChoice(index=0, delta=delta or Delta(), finish_reason=finish_reason)
        chunk = ChatCompletionChunk(
            id=self.id,
            created=self.created,
            model=self.chat.model,
            system_fingerprint=SYSTEM_FINGERPRINT,
            choices=[] if usage else [choice],
            usage=usage,
        )
        omitted = None if self.chat.include_usage else {"usage"}
        return f"data: {chunk.model_dump_json(exclude=omitted)}\n\n"

    async def events(self, generator: TokenGenerator) -> AsyncGenerator[bytes]:
        """Yield the stream in the blocks that leave together.

        Only the text differs between content events, so they are joined from one that was
        rendered. The role leaves with the first token: clients take any chunk for a token.
        """
        head, _, tail = self.event(Delta(content=_SLOT)).rpartition(_SLOT)
        between = tail + head
        lead = self.event(Delta(role="assistant", content="", refusal=None))
        batches = generator.generate(self.tokens, self.plan, self.start_s, self.plan.sse_batch_size)
        try:
            async with aclosing(batches):
                async for batch in batches:
                    yield f"{lead}{head}{between.join(batch)}{tail}".encode()
                    self.mark_sent(len(batch) * self.plan.sse_batch_size)
                    lead = ""
            end = self.event(finish_reason=self.plan.finish_reason)
            if self.chat.include_usage:
                end += self.event(usage=await self.usage())
            yield f"{end}data: [DONE]\n\n".encode()
        finally:
            self.log(200 if self.sent_tokens == self.plan.output_tokens else CLIENT_CLOSED_REQUEST)

    def log(self, status: int) -> None:
        """Write the log line of this completion; all times in ms, and no content."""
        plan = self.plan
        first_s = itl_s = largest_itl_s = None
        if self.first_sent_s is not None and self.last_sent_s is not None:
            first_s = self.first_sent_s - self.start_s
            steps = (self.sent_tokens - 1) // plan.sse_batch_size * plan.sse_batch_size
            if steps:
                itl_s = (self.last_sent_s - self.first_sent_s) / steps
                largest_itl_s = self.largest_gap_s
        times_s = {
            "ttft": (plan.ttft_s, first_s),
            "itl": (plan.itl_s, itl_s),
            "itl_max": (plan.itl_s * plan.sse_batch_size, largest_itl_s),
            "total": (plan.total_s, time.monotonic() - self.start_s),
        }
        logger.info(
            "completion id=%s model=%s mode=%s status=%d tokens=%d/%d finish_reason=%s %s",
            self.id,
            json.dumps(self.chat.model),
            "stream" if self.chat.stream else "whole",
            status,
            self.sent_tokens,
            plan.output_tokens,
            plan.finish_reason,
            " ".join(
                f"{name}_ms={_ms(asked)} {name}_actual_ms={_ms(actual)}"
                for name, (asked, actual) in times_s.items()
            ),
        )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.2f}"


# --------------------------------------------------------------------------------------
# Responses
# --------------------------------------------------------------------------------------


def openai_headers(request: Request) -> dict[str, str]:
    """Return the headers that OpenAI adds to every answer."""
    elapsed_s = time.monotonic() - request.scope["start_s"]
    return {
        "x-request-id": f"req_{random.getrandbits(128):032x}",
        "openai-processing-ms": str(int(elapsed_s * 1000)),
        "openai-version": "2020-10-01",
    }


def json_response(request: Request, body: BaseModel | bytes, status: int = 200) -> Response:
    """Return `body` as JSON with OpenAI's headers."""
    content = body if isinstance(body, bytes) else body.model_dump_json().encode()
    return Response(content, status, openai_headers(request), "application/json")


@asynccontextmanager
async def ended_by_disconnect(receive: Receive) -> AsyncIterator[None]:
    """Cancel the body of the `async with` as soon as the client goes away.

    Raises:
        ClientDisconnect: The client went away.
    """
    task = asyncio.current_task()
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        if task is not None:
            task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone or task is None:
            raise
        task.uncancel()
        raise ClientDisconnect from None
    finally:
        watcher.cancel()


class EventStream(Response):
    """A stream of server-sent events; it ends at once when the client goes away.

    Args:
        blocks: What leaves together, each block in one write.
        headers: Response headers beside those of every event stream.
    """

    media_type = "text/event-stream"

    def __init__(self, blocks: AsyncGenerator[bytes], headers: dict[str, str]) -> None:
        unbuffered = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(headers={**unbuffered, **headers})
        del self.headers["content-length"]
        self.blocks = blocks

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async with ended_by_disconnect(receive), aclosing(self.blocks):
                async for block in self.blocks:
                    await send({"type": "http.response.body", "body": block, "more_body": True})
        except ClientDisconnect:
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})


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
            return APIError(
                "The server had an error while processing your request.",
                status=500,
                type="server_error",
            )


async def handle_error(request: Request, error: Exception) -> Response:
    """Answer every failure with OpenAI's envelope."""
    api_error = to_api_error(request, error)
    if request.url.path == CHAT_PATH:
        code = api_error.body.code or api_error.body.type
        logger.info("completion status=%d error=%s", api_error.status, code)
    response = json_response(request, ErrorEnvelope(error=api_error.body), api_error.status)
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)
    return response


async def handle_disconnect(_: Request, __: Exception) -> Response:
    """End the exchange with a client that went away before its answer began."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


# --------------------------------------------------------------------------------------
# The service
# --------------------------------------------------------------------------------------

application = Application(
    exception_handlers={
        APIError: handle_error,
        HTTPException: handle_error,
        Exception: handle_error,
        ClientDisconnect: handle_disconnect,
    }
)


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
    logging={"access": {"skip_paths": ["/metrics", "/healthz", "/livez", "/readyz", CHAT_PATH]}},
)
@bentoml.asgi_app(application)
class OpenAIEmulator:
    """OpenAI's Chat Completions and Models APIs with no model behind them."""

    def __init__(self) -> None:
        self.started_s = time.monotonic()
        self.generator = TokenGenerator()
        self.models = {
            name: Model(id=name, created=MODELS_CREATED, owned_by="openai")
            for name in SETTINGS.models
        }
        v1 = Router(
            [
                Route("/chat/completions", self.chat_completions, methods=["POST"]),
                Route("/models", self.list_models),
                Route("/models/{model:path}", self.get_model),
            ],
            redirect_slashes=False,
        )
        application.router.routes.extend([Route("/health", self.health), Mount("/v1", v1)])

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
        gc.collect()
        gc.freeze()

    async def chat_completions(self, request: Request) -> Response:
        """Answer POST /v1/chat/completions."""
        chat = parse_request(await read_body(request, int(SETTINGS.max_body_mb * 1_000_000)))
        if SETTINGS.strict_models and chat.model not in self.models:
            raise APIError(
                f"The model `{chat.model}` does not exist or you do not have access to it.",
                status=404,
                code="model_not_found",
            )
        plan = plan_generation(chat, parse_headers(request), SETTINGS)
        completion = Completion(
            chat=chat,
            plan=plan,
            tokens=self.generator.write(plan.output_tokens),
            prompt_tokens=start_counting(chat),
            start_s=request.scope["start_s"],
        )
        if chat.stream:
            return EventStream(completion.events(self.generator), openai_headers(request))
        return await self.whole_answer(request, completion)

    async def whole_answer(self, request: Request, completion: Completion) -> Response:
        """Answer as a whole, when the last token is due."""
        try:
            async with ended_by_disconnect(request.receive):
                await sleep_until(completion.start_s + completion.plan.total_s)
                body = await completion.body()
        except ClientDisconnect:
            completion.log(CLIENT_CLOSED_REQUEST)
            raise
        completion.sent_tokens = completion.plan.output_tokens
        completion.log(200)
        return json_response(request, body)

    async def list_models(self, request: Request) -> Response:
        """Answer GET /v1/models."""
        return json_response(request, ModelList(data=list(self.models.values())))

    async def get_model(self, request: Request) -> Response:
        """Answer GET /v1/models/{model}."""
        name = request.path_params["model"]
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
