"""The dialect that the settings choose."""

from emulator.dialects.dialect import OPENAI, Dialect
from emulator.dialects.vllm import VLLM
from emulator.engine.config import EngineConfig
from emulator.settings import Settings


def max_model_len(settings: Settings, engine: EngineConfig | None) -> int:
    """Return the most tokens of a prompt with its answer: the engine's, or else of one answer."""
    return settings.max_output_length if engine is None else engine.max_model_len


def dialect_of(settings: Settings, engine: EngineConfig | None) -> Dialect:
    """Return the dialect of some settings, and of the engine that bounds prompts."""
    if settings.dialect == "openai":
        return OPENAI
    return VLLM(settings.models, max_model_len(settings, engine), settings.vllm_flags)
