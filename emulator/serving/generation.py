"""One generation under way: its answers, its times and its log line."""

import asyncio
import json
import logging
import math
import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as quoted
from time import monotonic

from emulator import metrics
from emulator.answers.answer import Answer
from emulator.contract.bodies import GenerationRequest
from emulator.contract.errors import ErrorBody
from emulator.contract.usage import Usage
from emulator.engine.times import TokenTimes
from emulator.metrics import TALLY
from emulator.serving.events import EVENT_END, STEP_US, AnswerStream, Renderer, rendering_us
from emulator.timing.clock import sleep_until
from emulator.timing.pace import Pace
from emulator.timing.plan import GenerationPlan
from emulator.transport.log_lines import LINES
from emulator.transport.sending import CLIENT_CLOSED_REQUEST
from tokenizer import TokenGenerator, Write

# The end of a stream that repeats a longer answer, as a response does, is made in a thread. It
# takes a twentieth of what its tokens took.
LONG_END = 20

MAX_NAME_LOGGED = 128

logger = logging.getLogger("bentoml.openai_emulator")


def random_id(prefix: str, digits: int = 29) -> str:
    """Return `prefix` and so many random hexadecimal digits."""
    return f"{prefix}{random.getrandbits(digits * 4):0{digits}x}"


@dataclass(slots=True)
class Generation:
    """One request's answers on their way to the client.

    Args:
        request: What the client asked for.
        plan: When the answers' tokens are due.
        answers: What the choices say.
        renderer: Writes them as JSON or events.
        counted: The prompt's tokens; the count may be under way.
        start_s: When the request's headers arrived, on ``time.monotonic()``.
        id: The completion's id.
        cached_tokens: How many of the prompt's tokens to report as cached.
        report: Whether the end of the answer says when its tokens were due and when they left.
        note: What the log line says of how the answers were made.
        times: The due times as an engine makes them, if one does.
        fault: The failure that the answer is to have, and after how many tokens: ``reset@12``.
        is_cut: Whether the failure keeps the answer from being complete.
        slots_before_cut: How many slots of the clock come before the failure of a stream.
    """

    request: GenerationRequest
    plan: GenerationPlan
    answers: Sequence[Answer]
    renderer: Renderer
    counted: asyncio.Future[int]
    start_s: float
    id: str
    cached_tokens: int = 0
    report: bool = False
    note: str = ""
    times: TokenTimes | None = None
    fault: str = ""
    is_cut: bool = False
    slots_before_cut: int | None = None
    pace: Pace = field(init=False)
    events: AnswerStream = field(init=False)

    def __post_init__(self) -> None:
        """Start to watch the pace."""
        batch_size = self.plan.sse_batch_size
        self.pace = Pace(self.plan, self.start_s, batch_size, keep_gaps=self.report)

    async def usage(self) -> Usage:
        """Return the token counts, once the prompt is counted."""
        return Usage.of(
            prompt=await self.counted,
            visible=self.visible_tokens,
            hidden=self.reasoning_tokens,
            cached=self.cached_tokens or (0 if self.times is None else self.times.cached_tokens),
        )

    def usage_so_far(self, tokens: int) -> str:
        """Return as JSON the usage after so many tokens of one choice; the prompt is counted."""
        shown = self.plan.reasoning_tokens - self.plan.hidden_tokens
        thoughts = min(tokens, shown)
        return Usage.of(
            prompt=self.counted.result(),
            visible=tokens - thoughts,
            hidden=thoughts + self.plan.hidden_tokens,
            cached=self.cached_tokens,
        ).model_dump_json()

    @property
    def visible_tokens(self) -> int:
        """The tokens of all answers that the client gets, reasoning aside."""
        return sum(answer.tokens for answer in self.answers)

    @property
    def reasoning_tokens(self) -> int:
        """The reasoning tokens of all answers."""
        return self.plan.reasoning_tokens * len(self.answers)

    @property
    def is_due(self) -> bool:
        """Whether a whole answer can leave at once."""
        return self.elapsed_s >= self.plan.total_s and self.counted.done()

    async def whole(self) -> bytes | bytearray:
        """Return the whole answer as JSON, as soon as the prompt is counted."""
        if self.times is not None:
            await self.times.admitted()  # what the usage tells of the cache is known then
        usage, answers = await self.usage(), self.answers
        longest = answers[0].tokens if len(answers) == 1 else max(a.tokens for a in answers)
        if rendering_us(answers, longest) <= STEP_US:
            return self.renderer.whole(answers, usage)
        return await asyncio.to_thread(self.renderer.whole, self.answers, usage)

    async def whole_in_time(self) -> bytes | bytearray:
        """Return the whole answer as JSON when its last token is due."""
        try:
            body = await self.whole()
            if self.times is None:
                await sleep_until(self.start_s + self.plan.total_s)
            else:
                await self.times.sleep_until(math.inf)
        except asyncio.CancelledError:
            self.log(CLIENT_CLOSED_REQUEST)
            raise
        finally:
            self.leave()
        return body

    def reported(self, body: bytes | bytearray) -> bytes | bytearray:
        """Return a whole answer with the report, if that was asked for."""
        if not self.report:
            return body
        return body[:-1] + f',"emulation":{self.emulation()}}}'.encode()

    def leave(self) -> None:
        """Take what has not come out of the engine, if one makes the times."""
        if self.times is not None:
            self.times.leave()

    def finish_fault(self, status: int) -> None:
        """Note that what took the place of the whole answer, or a broken one, has left."""
        self.leave()
        if status == 200 and not self.is_cut:
            self.count()
        self.log(status)

    def finish_whole(self, body: bytes | bytearray) -> bytes | bytearray:
        """Note that the whole answer leaves; return it, with the report if that was asked for."""
        self.count()
        self.log(200)
        body = self.reported(body)
        # Last of all: what comes before it is part of the lag.
        TALLY.observe(metrics.WHOLE_LAG, self.elapsed_s - self.plan.total_s)
        return body

    def stream(self, generator: TokenGenerator, write: Write | None) -> AsyncGenerator[bytes]:
        """Return what yields the stream up to its last token, in the blocks that leave together.

        It yields no block that `write` has taken.

        A choice's role leaves with its first token: clients take any chunk for a token.
        """
        return generator.generate(
            self.open(), self.plan, self.start_s, self.pace, clock=self.times, write=write
        )

    def open(self) -> AnswerStream:
        """Make the stream's events ready."""
        count_usage = self.usage_so_far if self.request.continuous_usage else None
        batch_size = self.plan.sse_batch_size
        self.events = self.renderer.stream(self.answers, batch_size, count_usage)
        return self.events

    async def end(self) -> bytes:
        """Return what comes after the last token of the stream."""
        usage = await self.usage() if self.request.include_usage else None
        report = self.emulation() if self.report else ""
        if rendering_us(self.answers, self.plan.output_tokens) <= STEP_US * LONG_END:
            return self._rendered_end(usage, report)
        return await asyncio.to_thread(self._rendered_end, usage, report)

    def _rendered_end(self, usage: Usage | None, report: str) -> bytes:
        return self.renderer.end(self.events.end(), usage, report).encode()

    def error(self, error: ErrorBody) -> bytes:
        """Return the event of a failure in mid-stream, with the report of one on purpose."""
        event = self.renderer.error(error)
        if self.report and self.fault:
            event = f'{event.removesuffix(EVENT_END)},"emulation":{self.emulation()}{EVENT_END}'
        return event.encode()

    def finish(self, status: int) -> None:
        """Note that the stream has ended, or broken off."""
        pace = self.pace
        self.leave()
        if pace.events:
            TALLY.observe(metrics.TTFT_LAG, pace.first_s - pace.first_due_s)
        if pace.events > 1:
            TALLY.observe(metrics.ITL_LAG, pace.itl_lag_s)
        if status == 200 and not self.is_cut:
            self.count()
        else:
            sent = sum(answer.left_after(self.slots_passed) for answer in self.answers)
            TALLY.add(metrics.TOKENS, sent)
        self.log(status)

    def count(self) -> None:
        """Add a finished answer to the metrics."""
        TALLY.add(metrics.TOKENS, self.visible_tokens + self.reasoning_tokens)
        for answer in self.answers:
            TALLY.add(metrics.COMPLETED[answer.finish_reason])

    @property
    def elapsed_s(self) -> float:
        """The seconds since the start."""
        return monotonic() - self.start_s

    @property
    def slots_passed(self) -> int:
        """How far on the clock the stream has come, in tokens of each answer."""
        passed = min(self.pace.passed * self.plan.sse_batch_size, self.plan.output_tokens)
        return passed if self.slots_before_cut is None else min(passed, self.slots_before_cut)

    @property
    def asked_itl_s(self) -> float:
        """The asked time from token to token; where an engine makes the times, their mean."""
        if self.times is None:
            return self.plan.itl_s
        return self.times.mean_itl_s(self.plan.hidden_tokens)

    def emulation(self) -> str:
        """Return the times asked and actual as JSON, in ms; of a whole answer only the total.

        ``asked`` and ``mean`` of the ITL are from token to token; ``asked_gap``, ``p99`` and
        ``max`` from event to event, which are ``X-SSE-BATCH-SIZE`` tokens apart.
        """
        plan, pace, itl_s = self.plan, self.pace, self.asked_itl_s
        total_s = self.elapsed_s
        times_s: dict[str, dict[str, float | None]] = {
            "ttft_ms": {
                "asked": pace.first_due_s if self.times is None else plan.due_s(0),
                "actual": pace.first_s if pace.events else None,
            },
            "itl_ms": {
                "asked": itl_s,
                "mean": pace.mean_itl_s,
                "asked_gap": itl_s * plan.sse_batch_size,
                "p99": pace.gap_percentile_s(99),
                "max": pace.largest_gap_s if pace.events > 1 else None,
            },
            "total_ms": {"asked": plan.total_s, "actual": total_s},
        }
        report: dict[str, object] = {
            name: {key: _rounded_ms(value) for key, value in part.items()}
            for name, part in times_s.items()
        }
        lag_s = pace.worst_lag_s if self.request.stream else total_s - plan.total_s
        report |= {"worst_lag_ms": _rounded_ms(lag_s), "blocked_ms": _rounded_ms(pace.blocked_s)}
        if self.fault:
            report["fault"] = self.fault
        return json.dumps(report, separators=(",", ":"))

    def log(self, status: int) -> None:
        """Write the log line of this completion; all times in ms, and no content."""
        if not logger.isEnabledFor(logging.INFO):
            return
        plan, pace, request = self.plan, self.pace, self.request
        itl_s = self.asked_itl_s
        first_due_s = pace.first_due_s if self.times is None else plan.due_s(0)
        batch_itl_s = itl_s * plan.sse_batch_size
        first_s = pace.first_s if pace.events else None
        largest_s = pace.largest_gap_s if pace.events > 1 else None
        is_whole = not request.stream and status == 200 and not self.is_cut
        sent = plan.output_tokens if is_whole else self.slots_passed
        fault = f" fault={self.fault}" if self.fault else ""
        LINES.add(
            f"completion id={self.id} model={quoted(request.model[:MAX_NAME_LOGGED])} "
            f"mode={'stream' if request.stream else 'whole'} status={status} "
            f"choices={len(self.answers)} tokens={sent}/{plan.output_tokens} "
            f"finish_reason={self.answers[0].finish_reason} "
            f"ttft_ms={first_due_s * 1000:.2f} ttft_actual_ms={_ms(first_s)} "
            f"itl_ms={itl_s * 1000:.2f} itl_actual_ms={_ms(pace.mean_itl_s)} "
            f"itl_max_ms={batch_itl_s * 1000:.2f} itl_max_actual_ms={_ms(largest_s)} "
            f"total_ms={plan.total_s * 1000:.2f} total_actual_ms={self.elapsed_s * 1000:.2f}"
            f"{fault}{self.note}"
        )


def _rounded_ms(seconds: float | None) -> float | None:
    """Return a time in ms, None where there is none or an engine has not come so far."""
    return None if seconds is None or math.isinf(seconds) else round(seconds * 1000, 3)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.2f}"
