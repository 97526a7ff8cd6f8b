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

import metrics
from answers import Answer
from clock import sleep_until
from pace import Pace
from rendering import DONE, EVENT_END, MixedStream, PlainStream, Renderer
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
class Generation:
    """One request's answers on their way to the client.

    Args:
        request: What the client asked for.
        plan: When the answers' tokens are due.
        answers: What the choices say.
        renderer: Writes them as JSON or events.
        prompt_tokens: The count of the prompt's tokens, perhaps under way; None if nobody asks.
        start_s: When the request's headers arrived, on ``time.monotonic()``.
        id: The completion's id.
        cached_tokens: How many of the prompt's tokens to report as cached.
        report: Whether the end of the answer says when its tokens were due and when they left.
    """

    request: GenerationRequest
    plan: GenerationPlan
    answers: Sequence[Answer]
    renderer: Renderer
    prompt_tokens: Awaitable[int] | None
    start_s: float
    id: str
    cached_tokens: int = 0
    report: bool = False
    pace: Pace = field(init=False)

    def __post_init__(self) -> None:
        """Start to watch the pace."""
        batch_size = self.plan.sse_batch_size
        self.pace = Pace(self.plan, self.start_s, batch_size, keep_gaps=self.report)

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
            body = self.renderer.whole(self.answers, await self.usage())
            await sleep_until(self.start_s + self.plan.total_s)
        except asyncio.CancelledError:
            self.log(CLIENT_CLOSED_REQUEST)
            raise
        metrics.WHOLE_LAG.observe(self.elapsed_s - self.plan.total_s)
        self.count(sum(answer.tokens for answer in self.answers))
        self.log(200)
        if self.report:
            return body[:-1] + f',"emulation":{self.emulation()}}}'.encode()
        return body

    async def blocks(self, generator: TokenGenerator) -> AsyncGenerator[bytes]:
        """Yield the stream in the blocks that leave together.

        A choice's role leaves with its first token: clients take any chunk for a token.
        """
        plan, pace, batch_size = self.plan, self.pace, self.plan.sse_batch_size
        stream: PlainStream | MixedStream = (
            PlainStream(self.renderer, self.answers[0], batch_size)
            if len(self.answers) == 1 and self.answers[0].is_plain
            else MixedStream(self.renderer, self.answers, batch_size)
        )
        status = CLIENT_CLOSED_REQUEST
        metrics.ACTIVE_STREAMS.inc()
        try:
            due = generator.generate(stream.events, plan, self.start_s, batch_size)
            async with aclosing(due):
                async for events in due:
                    yield stream.render(events).encode()
                    pace.mark(len(events))
            yield await self.end(stream)
            status = 200
        finally:
            metrics.ACTIVE_STREAMS.dec()
            if pace.events:
                metrics.TTFT_LAG.observe(pace.first_s - plan.due_s(0))
            if pace.events > 1:
                metrics.ITL_LAG.observe(pace.itl_lag_s)
            if status == 200:
                self.count(sum(answer.tokens for answer in self.answers))
            else:
                metrics.TOKENS.inc(self.sent_tokens)
            self.log(status)

    async def end(self, stream: PlainStream | MixedStream) -> bytes:
        """Return what comes after the last token."""
        end = stream.end()
        if self.request.include_usage:
            end += self.renderer.usage(await self.usage())
        if self.report:
            end = f'{end.removesuffix(EVENT_END)},"emulation":{self.emulation()}{EVENT_END}'
        return f"{end}{DONE}".encode()

    def count(self, tokens: int) -> None:
        """Add a finished answer to the metrics."""
        metrics.TOKENS.inc(tokens)
        for answer in self.answers:
            metrics.COMPLETIONS.labels(answer.finish_reason).inc()

    @property
    def elapsed_s(self) -> float:
        """The seconds since the start."""
        return time.monotonic() - self.start_s

    @property
    def sent_tokens(self) -> int:
        """How far on the clock the stream has come, in tokens."""
        return min(self.pace.events * self.plan.sse_batch_size, self.plan.output_tokens)

    def emulation(self) -> str:
        """Return the times asked and actual as JSON, in ms; of a whole answer only the total."""
        plan, pace = self.plan, self.pace
        total_s = self.elapsed_s
        times_s: dict[str, dict[str, float | None]] = {
            "ttft_ms": {
                "asked": plan.due_s(0),
                "actual": pace.first_s if pace.events else None,
            },
            "itl_ms": {
                "asked": plan.itl_s,
                "mean": pace.mean_itl_s,
                "p99": pace.gap_percentile_s(99),
                "max": pace.gap_percentile_s(100),
            },
            "total_ms": {"asked": plan.total_s, "actual": total_s},
        }
        report: dict[str, object] = {
            name: {key: _rounded_ms(value) for key, value in part.items()}
            for name, part in times_s.items()
        }
        lag_s = pace.worst_lag_s if self.request.stream else total_s - plan.total_s
        return json.dumps(report | {"worst_lag_ms": _rounded_ms(lag_s)}, separators=(",", ":"))

    def log(self, status: int) -> None:
        """Write the log line of this completion; all times in ms, and no content."""
        plan, pace = self.plan, self.pace
        gapped = pace.events > 1
        times_s = (
            ("ttft", plan.due_s(0), pace.first_s if pace.events else None),
            ("itl", plan.itl_s, pace.mean_itl_s),
            ("itl_max", plan.itl_s * plan.sse_batch_size, pace.largest_gap_s if gapped else None),
            ("total", plan.total_s, self.elapsed_s),
        )
        sent = self.sent_tokens if self.request.stream or status != 200 else plan.output_tokens
        logger.info(
            "completion id=%s model=%s mode=%s status=%d choices=%d tokens=%d/%d "
            "finish_reason=%s %s",
            self.id,
            json.dumps(self.request.model),
            "stream" if self.request.stream else "whole",
            status,
            len(self.answers),
            sent,
            plan.output_tokens,
            self.answers[0].finish_reason,
            " ".join(
                f"{name}_ms={_ms(asked)} {name}_actual_ms={_ms(actual)}"
                for name, asked, actual in times_s
            ),
        )


def _rounded_ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.2f}"
