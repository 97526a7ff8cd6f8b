"""GET endpoints that look up: models, health, and what is never stored."""

import time

from starlette.exceptions import HTTPException

from emulator.apis.chat.answer import CompletionList
from emulator.apis.models.schema import EngineModel, Health, Model, ModelList, ServedModel
from emulator.contract.bounds import MAX_MODEL_LENGTH
from emulator.contract.error_words import string_too_long
from emulator.contract.errors import APIError
from emulator.state import State
from emulator.transport.exchange import Exchange
from emulator.transport.sending import Reply, empty_reply, whole_reply

MODELS_CREATED = 1_677_610_602


def _model(name: str, state: State) -> Model:
    """Return the entry of a model, in the server's dialect."""
    own = state.dialect.model_entry(name)
    return _openai_model(name, state) if own is None else ServedModel(**own)


def _openai_model(name: str, state: State) -> Model:
    """Return the entry of a model, with the length of its context if an engine has one."""
    model = Model(id=name, created=MODELS_CREATED, owned_by="openai")
    if state.engine is None:
        return model
    return EngineModel(**model.model_dump(), max_model_len=state.engine.max_model_len)


async def list_models(exchange: Exchange) -> Reply:
    """Answer GET /v1/models."""
    state = exchange.state
    models = [_model(name, state) for name in state.settings.models]
    return whole_reply(exchange, ModelList(data=models))


async def get_model(exchange: Exchange) -> Reply:
    """Answer GET /v1/models/{model}: any that a chat would take.

    Raises:
        APIError: The name is too long, or is no model of a server that has no others.
        HTTPException: There is no name.
    """
    settings, name = exchange.state.settings, exchange.scope["path_params"]["model"]
    if not name or exchange.state.dialect.lacks("/v1/models/{model}"):
        raise HTTPException(404)
    if len(name) > MAX_MODEL_LENGTH:
        raise string_too_long("model", MAX_MODEL_LENGTH, len(name))
    if settings.strict_models and name not in settings.models:
        raise APIError(
            f"The model '{name}' does not exist", status=404, param="model", code="model_not_found"
        )
    return whole_reply(exchange, _openai_model(name, exchange.state))


async def list_completions(exchange: Exchange) -> Reply:
    """Answer GET /v1/chat/completions: the stored ones, of which there are none.

    Raises:
        HTTPException: The server has no list of them.
    """
    if exchange.state.dialect.lacks("GET /v1/chat/completions"):
        raise HTTPException(405, headers={"allow": "POST"})
    return whole_reply(exchange, CompletionList())


async def find_response(exchange: Exchange) -> Reply:
    """Answer a request for a stored response: there is no store.

    Raises:
        APIError: Always.
    """
    wanted = exchange.scope["path_params"]["id"]
    raise exchange.state.dialect.no_response(wanted)


class HealthCheck:
    """Answers GET /health.

    Args:
        version: The emulator's.
    """

    def __init__(self, version: str) -> None:
        self._version = version
        self._started_s = time.monotonic()

    async def health(self, exchange: Exchange) -> Reply:
        """Answer with status, version and uptime in seconds; or with nothing, as some do."""
        if exchange.state.dialect.lacks("a body of /health"):
            return empty_reply(exchange)
        uptime = round(time.monotonic() - self._started_s, 3)
        return whole_reply(exchange, Health(version=self._version, uptime=uptime))
