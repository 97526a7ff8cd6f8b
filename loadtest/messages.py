"""What the scenarios say: questions, long texts, images and tools."""

import math
import random
import struct
import zlib
from base64 import b64encode
from functools import lru_cache
from typing import Any

Message = dict[str, Any]

_SUBJECTS = ("tides", "sourdough", "violins", "glaciers", "compilers", "bees", "bridges", "comets")
_QUESTIONS = (
    "How do {} work?",
    "Explain {} to a child.",
    "What is the history of {}?",
    "Give me three surprising facts about {}.",
)
_PASSAGE = """
The report of the northern district says that water and wood were stored in every village before
winter, while the council met twice to plan roads and schools for the coming year.
"""

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Current weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


def question() -> list[Message]:
    """Return a short question."""
    text = random.choice(_QUESTIONS).format(random.choice(_SUBJECTS))
    return [{"role": "user", "content": text}]


def question_on_text(words: int) -> list[Message]:
    """Return a question on a passage of `words` words, as retrieval puts it in the prompt.

    The passage starts with words of its own, so that no server answers it from a prefix cache.
    """
    known = _PASSAGE.split()
    first = random.choices(known, k=min(words, 16))
    rest = (known * (words // len(known) + 1))[: words - len(first)]
    passage = " ".join(first + rest)
    return [
        {"role": "system", "content": "Answer from the passage alone, in one sentence."},
        {"role": "user", "content": f"{passage}\n\nWhat did the council plan?"},
    ]


def question_on_image(url: str) -> list[Message]:
    """Return a question on the image behind `url`, which may be a data URL."""
    content = [
        {"type": "text", "text": "What is in this image?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    return [{"role": "user", "content": content}]


@lru_cache(maxsize=8)
def png_data_url(size_kb: float) -> str:
    """Return a grey, random PNG of about `size_kb` x 1,000 bytes (base64 makes it 4/3 as long)."""
    side = max(1, math.isqrt(int(size_kb * 1000)))
    rows = b"".join(b"\0" + random.randbytes(side) for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        _png_chunk(kind, data)
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))
    )
    return "data:image/png;base64," + b64encode(png).decode()


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def agent_step(step: int) -> list[Message]:
    """Return an agent's conversation before its answer number `step` (from 0).

    It has asked for `step` tools already, and has been told what they returned.
    """
    messages: list[Message] = [
        {"role": "system", "content": "Use the tools, then answer."},
        {"role": "user", "content": "Where is it warmest today: Oslo, Lima or Cairo?"},
    ]
    for city in ("Oslo", "Lima", "Cairo")[:step]:
        call = {"name": "get_weather", "arguments": f'{{"city": "{city}"}}'}
        call_id = f"call_{city.lower():x<24}"
        messages += [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": call_id, "type": "function", "function": call}],
            },
            {"role": "tool", "tool_call_id": call_id, "content": '{"celsius": 21}'},
        ]
    return messages
