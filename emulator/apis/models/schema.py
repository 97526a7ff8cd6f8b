"""The model list, and the server's health."""

from typing import Any, Literal

from pydantic import BaseModel


class Model(BaseModel):
    """One entry of the model list."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class EngineModel(Model):
    """One entry where an engine runs; ``max_model_len`` counts prompt and answer, in tokens."""

    max_model_len: int


class ServedModel(EngineModel):
    """One entry as vLLM tells it."""

    root: str
    parent: str | None
    permission: list[dict[str, Any]]


class ModelList(BaseModel):
    """The model list."""

    object: Literal["list"] = "list"
    data: list[ServedModel | EngineModel | Model]


class Health(BaseModel):
    """What GET /health answers; ``uptime`` in seconds."""

    status: Literal["ok"] = "ok"
    version: str
    uptime: float
