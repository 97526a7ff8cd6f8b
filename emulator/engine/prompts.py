"""Prompts as an engine sees them: a length, and a key for each block that may be cached."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from emulator.engine.cache import prompt_keys
from emulator.engine.config import EngineConfig


@dataclass(frozen=True, slots=True)
class EnginePrompt:
    """One prompt: its tokens, and a key for each full block of them."""

    tokens: int
    keys: Sequence[Hashable]


def engine_prompts(prompts: Sequence[Sequence[int]], config: EngineConfig) -> list[EnginePrompt]:
    """Return prompts of token ids as an engine sees them."""
    caches, block_size = config.prefix_caching, config.block_size
    return [
        EnginePrompt(len(ids), prompt_keys(ids, block_size) if caches else ()) for ids in prompts
    ]
