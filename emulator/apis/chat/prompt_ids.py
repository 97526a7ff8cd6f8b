"""The token ids of prompts: as many as are counted, and alike where prompts are."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.completions.schema import CompletionRequest
from emulator.engine.cache import prompt_keys
from emulator.engine.config import EngineConfig
from emulator.prompts.counting import count_function_tokens, count_image_tokens, count_prompt_tokens
from tokenizer import encode, encoding_name

# What begins, parts and ends a message in ChatML, which follows the vocabulary of each encoding.
CHATML: Mapping[str, tuple[int, int, int]] = {
    "cl100k_base": (100_264, 100_266, 100_265),
    "o200k_base": (200_264, 200_266, 200_265),
    "p50k_base": (50_281, 50_282, 50_283),
}
CHATML_TEXTS = ("<|im_start|>", "<|im_sep|>", "<|im_end|>")


@dataclass(frozen=True, slots=True)
class EnginePrompt:
    """A prompt as an engine sees it: its length, and a key for each full block."""

    tokens: int
    keys: Sequence[Hashable]


def engine_prompts(prompts: Sequence[Sequence[int]], config: EngineConfig) -> list[EnginePrompt]:
    """Return prompts of token ids as an engine sees them."""
    caches, block_size = config.prefix_caching, config.block_size
    return [
        EnginePrompt(len(ids), prompt_keys(ids, block_size) if caches else ()) for ids in prompts
    ]


def chat_prompt_ids(chat: ChatCompletionRequest) -> list[int]:
    """Return the token ids of a chat: functions, messages, and the start of the answer.

    Images and functions have no token ids; each takes its count of an id below 0, which is the same
    wherever the same functions are, or an image of the same size, all that is known of it.
    """
    model = chat.model
    start, part, end = CHATML[encoding_name(model)]
    functions = chat.offered_functions
    ids = [_stand_in(functions)] * count_function_tokens(model, functions)
    for message in chat.messages:
        prompt = chat.model_copy(update={"messages": [message]}).prompt()
        role, *texts = (encode(text, model) for text in prompt.texts)
        words = [token for text in texts for token in text]
        for image in prompt.images:
            words += [_stand_in(image)] * count_image_tokens(
                model, image.url.width, image.url.height, image.detail
            )
        # What a message costs beside its words: 3 of the reply, and 3 or so of its own.
        around = count_prompt_tokens(model, (), 1, prompt.named) - 3
        ids += [start, *role, part, *words, *[end] * (around - 2)]
    return [*ids, start, encode("assistant", model)[0], part]


def legacy_prompt_ids(completion: CompletionRequest) -> list[list[int]]:
    """Return the token ids of each prompt of a legacy completion."""
    return [
        encode(prompt, completion.model) if isinstance(prompt, str) else list(prompt)
        for prompt in completion.prompt
    ]


def _stand_in(content: object) -> int:
    return -1 - (crc32(repr(content).encode()) & 0x7FFFFFFF)
