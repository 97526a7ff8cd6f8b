"""What vLLM serves beside OpenAI's API: /version, /ping, /tokenize and /detokenize."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from annotated_types import MaxLen
from pydantic import Field, ValidationError
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from http_api.engine_timing import Startup
from http_api.errors import request_error
from http_api.prompt_ids import CHATML, CHATML_TEXTS, chat_prompt_ids
from http_api.reading import read_body
from http_api.sending import Deadline, json_response
from schemas import (
    MAX_MODEL_LENGTH,
    MAX_PROMPT_TOKENS,
    APIError,
    ChatCompletionRequest,
    Members,
    RequestModel,
    Text,
)
from settings import Settings
from tokenizer import decode_tokens, encode, encoding_name

AnyModel = TypeVar("AnyModel", bound=RequestModel)
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]

# Functions and images take tokens that no text has.
NO_TEXT = 0


class TokenizeRequest(RequestModel):
    """A text whose tokens are asked for; a chat is a `ChatCompletionRequest`."""

    model: Annotated[str, MaxLen(MAX_MODEL_LENGTH)] | None = None
    prompt: Text
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(RequestModel):
    """Tokens whose text is asked for."""

    model: Annotated[str, MaxLen(MAX_MODEL_LENGTH)] | None = None
    tokens: Annotated[list[TokenId], Members(MAX_PROMPT_TOKENS)]


class VllmRoutes:
    """vLLM's own routes, in its shapes of version 0.32.

    Args:
        version: The emulator's.
        settings: What the operator set.
        max_model_len: What the answers tell of the longest prompt with its answer.
        startup: How long the model loads.
    """

    def __init__(
        self, version: str, settings: Settings, max_model_len: int, startup: Startup
    ) -> None:
        self._version = version
        self._settings = settings
        self._max_model_len = max_model_len
        self._startup = startup
        self._deadline = Deadline(settings.timeout_s)

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/version", self.version),
            Route("/ping", self.ping, methods=["GET", "POST"]),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
        ]

    async def version(self, request: Request) -> Response:
        """Answer GET /version."""
        return json_response(request, json.dumps({"version": self._version}).encode())

    async def ping(self, _: Request) -> Response:
        """Answer /ping: nothing, with 200, or 503 while the model loads."""
        return Response(status_code=200 if self._startup.is_over else 503)

    async def tokenize(self, request: Request) -> Response:
        """Answer POST /tokenize."""
        body = await self._body(request)
        return json_response(request, await asyncio.to_thread(self._tokenize, body))

    async def detokenize(self, request: Request) -> Response:
        """Answer POST /detokenize."""
        body = await self._body(request)
        return json_response(request, await asyncio.to_thread(self._detokenize, body))

    async def _body(self, request: Request) -> bytearray:
        try:
            with self._deadline:
                return await read_body(request, int(self._settings.max_body_mb * 1_000_000))
        except TimeoutError:
            raise APIError(
                f"The request body did not arrive within {self._settings.timeout_s:g} s.",
                status=408,
                code="request_timeout",
            ) from None

    def _model(self, model: object) -> str:
        return model if isinstance(model, str) and model else self._settings.models[0]

    def _tokenize(self, body: bytearray) -> bytes:
        data = _object(body)
        model = self._model(data.get("model"))
        if "messages" in data:
            fields = {key: data[key] for key in ("messages", "tools") if data.get(key) is not None}
            chat = _validated(ChatCompletionRequest, {"model": model, **fields})
            tokens = [max(token, NO_TEXT) for token in chat_prompt_ids(chat)]
        else:
            tokens = encode(_validated(TokenizeRequest, data).prompt, model)
        strs = (
            [_text([token], model) for token in tokens] if data.get("return_token_strs") else None
        )
        answer = {
            "count": len(tokens),
            "max_model_len": self._max_model_len,
            "tokens": tokens,
            "token_strs": strs,
        }
        return json.dumps(answer, separators=(",", ":")).encode()

    def _detokenize(self, body: bytearray) -> bytes:
        wanted = _validated(DetokenizeRequest, _object(body))
        return json.dumps({"prompt": _text(wanted.tokens, self._model(wanted.model))}).encode()


def _object(body: bytearray) -> dict[str, Any]:
    try:
        data = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise APIError("We could not parse the JSON body of your request.") from None
    if not isinstance(data, dict):
        raise APIError("Invalid body: expected an object.")
    return data


def _validated(model: type[AnyModel], data: Mapping[str, Any]) -> AnyModel:
    try:
        return model.model_validate(data, extra="ignore")
    except ValidationError as error:
        raise request_error(error) from None


def _text(tokens: Sequence[int], model: str) -> str:
    """Return the text of tokens, those included that ChatML puts around messages."""
    markers = dict(zip(CHATML[encoding_name(model)], CHATML_TEXTS, strict=True))
    parts: list[str] = []
    run: list[int] = []
    for token in tokens:
        if token in markers:
            parts += [_decoded(run, model), markers[token]]
            run = []
        else:
            run.append(token)
    return "".join([*parts, _decoded(run, model)])


def _decoded(tokens: Sequence[int], model: str) -> str:
    try:
        return decode_tokens(tokens, model)
    except (KeyError, OverflowError) as error:
        raise APIError(
            f"Invalid 'tokens': expected token ids of {model}, but got {error}.",
            param="tokens",
            code="invalid_value",
        ) from None
