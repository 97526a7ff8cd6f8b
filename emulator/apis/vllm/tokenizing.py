"""What vLLM's /tokenize and /detokenize answer."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from annotated_types import MaxLen
from pydantic import ValidationError

from emulator.apis.chat.prompt import CHATML, CHATML_TEXTS, prompt_ids
from emulator.apis.chat.request import ChatCompletionRequest
from emulator.contract.bodies import RequestModel, TokenId
from emulator.contract.bounds import MAX_MODEL_LENGTH, MAX_PROMPT_TOKENS, Members, Text
from emulator.contract.errors import APIError
from emulator.dialects.dialect import Dialect
from emulator.dialects.table import max_model_len
from emulator.reading.bodies import parse_json
from emulator.reading.reader import NO_TEXT
from emulator.state import State
from tokenizer import decode_tokens, encode, encoding_name

AnyModel = TypeVar("AnyModel", bound=RequestModel)


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


def tokenize(body: bytes | bytearray, state: State) -> bytes:
    """Return the tokens of a text or a chat, as JSON.

    Args:
        body: The request's.
        state: Has the model of a request that names none, and the length of its context.

    Raises:
        APIError: Not JSON, or not what the schema asks for.
    """
    dialect = state.dialect
    data = _object(body, "/tokenize", dialect)
    model = _model(data.get("model"), state.settings.models[0])
    if "messages" in data:
        fields = {key: data[key] for key in ("messages", "tools") if data.get(key) is not None}
        chat = _validated(ChatCompletionRequest, {"model": model, **fields}, dialect)
        tokens = [max(token, NO_TEXT) for token in prompt_ids(chat)]
    else:
        tokens = encode(_validated(TokenizeRequest, data, dialect).prompt, model)
    strs = [_text([token], model) for token in tokens] if data.get("return_token_strs") else None
    answer = {
        "count": len(tokens),
        "max_model_len": max_model_len(state.settings, state.engine),
        "tokens": tokens,
        "token_strs": strs,
    }
    return json.dumps(answer, separators=(",", ":")).encode()


def detokenize(body: bytes | bytearray, state: State) -> bytes:
    """Return the text of tokens, as JSON.

    Raises:
        APIError: Not JSON, not what the schema asks for, or a token that does not exist.
    """
    dialect = state.dialect
    wanted = _validated(DetokenizeRequest, _object(body, "/detokenize", dialect), dialect)
    text = _text(wanted.tokens, _model(wanted.model, state.settings.models[0]))
    return json.dumps({"prompt": text}).encode()


def _model(model: object, default: str) -> str:
    return model if isinstance(model, str) and model else default


def _object(body: bytes | bytearray, path: str, dialect: Dialect) -> dict[str, Any]:
    try:
        data = parse_json(body)
    except APIError as error:
        raise dialect.unreadable(body, error) from None
    data = dialect.prepared(path, data)
    if not isinstance(data, dict):
        raise APIError("Invalid body: expected an object.")
    return data


def _validated(model: type[AnyModel], data: Mapping[str, Any], dialect: Dialect) -> AnyModel:
    try:
        return model.model_validate(data, extra="ignore")
    except ValidationError as error:
        raise dialect.invalid(error, data) from None


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
