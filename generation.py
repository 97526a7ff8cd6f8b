"""One generation under way: its answers, its times and its log line."""

import asyncio
import json
import logging
import random
import string
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from answers import Answer
from clock import sleep_until
from rendering import DONE, MixedStream, PlainStream, Renderer
from schemas import GenerationPlan, GenerationRequest, Usage
from tokenizer import TokenGenerator

CLIENT_CLOSED_REQUEST = 499  # nginx's code; no client sees it, logs and metrics do

# Longer prompts are counted in a thread: 4,096 characters take about 0.2 ms.
MAX_CHARACTERS_COUNTED_INLINE = 4096

_ALPHANUMERIC = string.ascii_letters + string.digits

logger = logging.getLogger("bentoml.openai_emulator")


def random_id(prefix: str) -> str:
    """Return `prefix` and 29 random letters and digits."""
    return prefix + "".join(random.choices(_ALPHANUMERIC, k=29))


def start_counting(characters: int, count: Callable[[], int]) -> Awaitable[int]:
    """Count the tokens of a prompt: at once if it has few characters, else in a thread."""
    if characters > MAX_CHARACTERS_COUNTED_INLINE:
        return asyncio.ensure_future(asyncio.to_thread(count))
    counted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    counted.set_result(count())
    return counted


@dataclass(slots=True)
class Pace:
    """When the events of a stream have left, in seconds on ``time.monotonic()``."""

    events: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    largest_gap_s: float = 0.0

    def mark(self, events: int) -> None:
        """Note that `events` more events have just left."""
        now_s = time.monotonic()
        if self.events == 0:
            self.first_s = now_s
        elif now_s - self.last_s > self.largest_gap_s:
            self.largest_gap_s = now_s - self.last_s
        self.last_s = now_s
        self.events += events


@dataclass(slots=True)
class Generation:
    """One request's answers on their way to the client.

    Args:
        request: What the client asked for.
        plan: The length and the times of a plain text; the answers' own length replaces it.
        answers: What the choices say.
        renderer: Writes them as JSON or events.
        prompt_tokens: The count of the prompt's tokens, perhaps under way; None if nobody asks.
        start_s: When the request's headers arrived, on ``time.monotonic()``.
        id: The completion's id.
        cached_tokens: How many of the prompt's tokens to report as cached.
    """

    request: GenerationRequest
    plan: GenerationPlan
    answers: Sequence[Answer]
    renderer: Renderer
    prompt_tokens: Awaitable[int] | None
    start_s: float
    id: str
    cached_tokens: int = 0
    pace: Pace = field(default_factory=Pace)

    async def usage(self) -> Usage:
        """Return the token counts, once the prompt is counted."""
        return Usage.of(
            prompt=await self.prompt_tokens if self.prompt_tokens else 0,
            visible=sum(answer.tokens for answer in self.answers),
            hidden=self.plan.reasoning_tokens * len(self.answers),
            cached=self.cached_tokens,
        )

    async def whole(self) -> bytes:
        """Return the whole answer as JSON when its last token is due."""
        try:
            await sleep_until(self.start_s + self.plan.total_s)
            body = self.renderer.whole(self.answers, await self.usage())
        except asyncio.CancelledError:
            self.log(CLIENT_CLOSED_REQUEST)
            raise
        self.log(200)
        return body

    async def blocks(self, generator: TokenGenerator) -> AsyncGenerator[bytes]:
        """Yield the stream in the blocks that leave together.

        A choice's role leaves with its first token: clients take any chunk for a token.
        """
        plan, plain = self.plan, len(self.answers) == 1 and self.answers[0].is_plain
        batch_size = plan.sse_batch_size
        stream: PlainStream | MixedStream = (
            PlainStream(self.renderer, self.answers[0], batch_size)
            if plain
            else MixedStream(self.renderer, self.answers, batch_size)
        )
        status = CLIENT_CLOSED_REQUEST
        try:
            due = generator.generate(stream.events, plan, self.start_s, batch_size)
            async with aclosing(due):
                async for events in due:
                    yield stream.render(events).encode()
                    self.pace.mark(len(events))
            end = stream.end()
            if self.request.include_usage:
                end += self.renderer.usage(await self.usage())
            yield f"{end}{DONE}".encode()
            status = 200
        finally:
            self.log(status)

    def log(self, status: int) -> None:
        """Write the log line of this completion; all times in ms, and no content."""
        plan, pace = self.plan, self.pace
        steps = pace.events - 1
        sent = min(pace.events * plan.sse_batch_size, plan.output_tokens)
        times_s = {
            "ttft": (plan.due_s(0), pace.first_s - self.start_s if pace.events else None),
            "itl": (plan.itl_s, None),
            "itl_max": (plan.itl_s * plan.sse_batch_size, None),
            "total": (plan.total_s, time.monotonic() - self.start_s),
        }
        if steps > 0:
            itl_s = (pace.last_s - pace.first_s) / steps / plan.sse_batch_size
            times_s["itl"] = (plan.itl_s, itl_s)
            times_s["itl_max"] = (plan.itl_s * plan.sse_batch_size, pace.largest_gap_s)
        logger.info(
            "completion id=%s model=%s mode=%s status=%d choices=%d tokens=%d/%d "
            "finish_reason=%s %s",
            self.id,
            json.dumps(self.request.model),
            "stream" if self.request.stream else "whole",
            status,
            len(self.answers),
            sent if self.request.stream or status != 200 else plan.output_tokens,
            plan.output_tokens,
            self.answers[0].finish_reason,
            " ".join(
                f"{name}_ms={_ms(asked)} {name}_actual_ms={_ms(actual)}"
                for name, (asked, actual) in times_s.items()
            ),
        )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.2f}"
