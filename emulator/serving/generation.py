"""The answers of one request for texts, on their way to the client."""

import asyncio
import json
import math
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field

from emulator.answers.answer import Answer
from emulator.answers.ask import Ask
from emulator.contract.errors import APIError, ErrorBody
from emulator.contract.usage import Usage
from emulator.emulation.opening import Opening
from emulator.engine.times import TokenTimes
from emulator.reading.counting import PromptCount
from emulator.rendering.renderer import AnswerStream, FailedRenderer, Renderer
from emulator.rendering.streams import STEP_US, rendering_us
from emulator.timing.clock import sleep_until
from emulator.timing.pace import Pace
from emulator.timing.plan import GenerationPlan
from emulator.timing.watch import WATCH
from emulator.transport.ending import Ending
from emulator.transport.exchange import Exchange
from tokenizer import TokenGenerator

# The end of a stream that repeats a longer answer, as a response does, is made in a thread. It
# takes a twentieth of the time that its tokens took.
LONG_END = 20


def random_id(prefix: str, digits: int = 29, end: str = "") -> str:
    """Return `prefix` and so many hexadecimal digits, random but for the `end`."""
    free = digits - len(end)
    return f"{prefix}{random.getrandbits(free * 4):0{free}x}{end}"


@dataclass(slots=True, eq=False)
class Generation:
    """The answers of one request.

    Args:
        exchange: The request.
        ask: What was asked.
        plan: When the answers' tokens are due.
        answers: What the choices say.
        renderer: Writes them as JSON or events.
        count: The count of the prompt's tokens.
        id: The answer's id.
        note: More for the log line.
        times: The due times as an engine makes them, if one does.
        opening: How the stream begins, if not at once.
        told_usage: Figures of the usage that a rule tells in place of the true ones.
        lead: What of a stream leaves right before its first token, in parts, if it is large.
        is_large: Whether a whole answer is large, however short its texts are.
        fault: The failure that the answer is to have, and after how many tokens: ``reset@12``.
        is_cut: Whether the failure keeps the answer from being complete.
        slots_before_cut: How many slots of the clock come before the failure of a stream.
        keepalives: How many comments were sent before the first token.
        head_s: When the head of a stream left that had to wait, in seconds after the start.
    """

    exchange: Exchange
    ask: Ask
    plan: GenerationPlan
    answers: Sequence[Answer]
    renderer: Renderer
    count: PromptCount
    id: str
    note: str = ""
    times: TokenTimes | None = None
    opening: Opening | None = None
    told_usage: Mapping[str, int] | None = None
    lead: Sequence[bytes | memoryview] = ()
    is_large: bool = False
    fault: str = ""
    is_cut: bool = False
    slots_before_cut: int | None = None
    cached_tokens: int = field(init=False)
    wants_report: bool = field(init=False)
    start_s: float = field(init=False)
    keepalives: int = 0
    head_s: float | None = None
    pace: Pace = field(init=False)
    events: AnswerStream = field(init=False)

    def __post_init__(self) -> None:
        """Start to watch the pace."""
        asked = self.exchange.asked
        self.cached_tokens = asked.emulation.cached_tokens if asked else 0
        self.wants_report = bool(asked and asked.emulation.emulation_report)
        self.start_s = self.exchange.start_s
        batch_size = self.plan.sse_batch_size
        self.pace = Pace(
            self.plan,
            self.start_s,
            batch_size,
            keep_gaps=self.wants_report,
            keep_left=self.exchange.state.settings.journal and self.ask.stream,
        )

    # ----------------------------------------------------------------------------------
    # Usage
    # ----------------------------------------------------------------------------------

    async def usage(self) -> Usage:
        """Return the token counts, once the prompt is counted.

        Raises:
            APIError: It cannot be counted.
        """
        count = self.count
        usage = Usage.of(
            prompt=await count.tokens() if count.known is None else count.known,
            visible=self.visible_tokens,
            hidden=self.plan.reasoning_tokens * len(self.answers),
            cached=self._cached(),
        )
        return usage if self.told_usage is None else usage.told(self.told_usage)

    def usage_so_far(self, tokens: int) -> str:
        """Return as JSON the usage after so many tokens of one choice; the prompt is counted."""
        shown = self.plan.reasoning_tokens - self.plan.hidden_tokens
        thoughts = min(tokens, shown)
        return Usage.of(
            prompt=self.count.known or 0,
            visible=tokens - thoughts,
            hidden=thoughts + self.plan.hidden_tokens,
            cached=self._cached(),
        ).model_dump_json()

    def _cached(self) -> int:
        return self.cached_tokens or (0 if self.times is None else self.times.cached_tokens)

    @property
    def visible_tokens(self) -> int:
        """The tokens of all answers that the client gets, reasoning aside."""
        answers = self.answers
        return answers[0].tokens if len(answers) == 1 else sum(a.tokens for a in answers)

    # ----------------------------------------------------------------------------------
    # Whole answers
    # ----------------------------------------------------------------------------------

    @property
    def is_due(self) -> bool:
        """Whether a whole answer can leave at once."""
        return self.exchange.elapsed_s >= self.plan.total_s and self.count.known is not None

    async def whole(self) -> bytes | bytearray:
        """Return the whole answer as JSON, as soon as the prompt is counted.

        Raises:
            APIError: The prompt cannot be counted.
        """
        if self.times is not None:
            await self.times.admitted()  # what the usage tells of the cache is known then
        usage, answers = await self.usage(), self.answers
        longest = answers[0].tokens if len(answers) == 1 else max(a.tokens for a in answers)
        if rendering_us(answers, longest) <= STEP_US and not self.is_large:
            return self.renderer.whole(answers, usage)
        return await asyncio.to_thread(self.renderer.whole, answers, usage)

    async def whole_in_time(self) -> bytes | bytearray:
        """Return the whole answer as JSON when its last token is due.

        Raises:
            APIError: An engine does not finish it within the server's timeout.
        """
        if self.times is None:
            body = await self.whole()
            await sleep_until(self.start_s + self.plan.total_s)
            return body
        timeout_s = self.exchange.state.settings.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                body = await self.whole()
                await self.times.sleep_until(self.start_s + self.plan.total_s)
        except TimeoutError:
            raise _too_slow(timeout_s) from None
        return body

    def reported(self, body: bytes | bytearray) -> bytes | bytearray:
        """Return a whole answer with the report, if that was asked for."""
        if not self.wants_report:
            return body
        return body[:-1] + f',"emulation":{self.report()}}}'.encode()

    # ----------------------------------------------------------------------------------
    # Streams
    # ----------------------------------------------------------------------------------

    def open(self) -> AnswerStream:
        """Make the stream's events ready.

        A choice's role leaves with its first token: clients take any chunk for a token.
        """
        count_usage = self.usage_so_far if self.ask.continuous_usage else None
        self.events = self.renderer.stream(self.answers, self.plan.sse_batch_size, count_usage)
        WATCH.streams[self.pace] = len(self.answers)
        return self.events

    def announce(self) -> bytes:
        """Return the events that leave as soon as the stream is accepted; most APIs have none."""
        return self.renderer.opening(self.answers).encode()

    def blocks(self, generator: TokenGenerator) -> AsyncGenerator[bytes]:
        """Return an iterator over the stream up to its last token; each block is one write."""
        return generator.generate(self.events, self.plan, self.start_s, self.pace, self.times)

    async def end(self) -> bytes:
        """Return what comes after the last token of the stream.

        Raises:
            APIError: The prompt cannot be counted.
        """
        usage = await self.usage() if self.ask.include_usage else None
        report = self.report() if self.wants_report else ""
        if rendering_us(self.answers, self.plan.output_tokens) <= STEP_US * LONG_END:
            return self._rendered_end(usage, report)
        return await asyncio.to_thread(self._rendered_end, usage, report)

    def _rendered_end(self, usage: Usage | None, report: str) -> bytes:
        return self.renderer.end(self.events.end(), usage, report).encode()

    def error(self, error: ErrorBody) -> bytes:
        """Return what tells of a failure in mid-stream, with the report of one on purpose."""
        return self.renderer.error(error, self._fault_report()).encode()

    def failed(self, error: ErrorBody) -> bytes:
        """Return the whole answer that says that it failed."""
        return self._failed.failed(error, "").encode()

    def failed_event(self, error: ErrorBody) -> bytes:
        """Return the event that ends the stream with an answer that says that it failed."""
        return self._failed.failed_event(error, self._fault_report()).encode()

    @property
    def _failed(self) -> FailedRenderer:
        renderer = self.renderer
        if not isinstance(renderer, FailedRenderer):
            raise TypeError("answers of this API do not say that they failed")
        return renderer

    def _fault_report(self) -> str:
        return self.report() if self.wants_report and self.fault else ""

    # ----------------------------------------------------------------------------------
    # The end
    # ----------------------------------------------------------------------------------

    def release(self) -> None:
        """Remove the remaining sequences from the engine, and cancel a count under way."""
        WATCH.streams.pop(self.pace, None)
        self.count.cancel()
        if self.times is not None:
            self.times.leave()

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

    def ending(self) -> Ending:
        """Return how the answer has ended."""
        exchange, plan, pace, ask = self.exchange, self.plan, self.pace, self.ask
        is_complete = exchange.status == 200 and not self.is_cut
        is_whole = is_complete and not ask.stream
        itl_s = self.asked_itl_s
        left_s = (exchange.left_s or exchange.ended_s) - self.start_s
        first_due_s = pace.first_due_s if self.times is None else plan.due_s(0)
        if is_complete:
            tokens = plan.output_tokens if is_whole else self.slots_passed
            all_tokens = self.visible_tokens + plan.reasoning_tokens * len(self.answers)
        else:
            tokens = slots = self.slots_passed
            all_tokens = sum(answer.departed_by(slots) for answer in self.answers)
        return Ending(
            kind="completion",
            id=self.id,
            is_stream=ask.stream,
            tokens_in=self.count.known,
            finish_reasons=[answer.finish_reason for answer in self.answers],
            tokens=tokens,
            planned=plan.output_tokens,
            all_tokens=all_tokens,
            is_complete=is_complete,
            ttft_s=(first_due_s, pace.first_s if pace.events else None),
            itl_s=(itl_s, pace.mean_itl_s),
            gap_s=(itl_s * plan.sse_batch_size, pace.largest_gap_s if pace.events > 1 else None),
            total_s=(plan.total_s, left_s),
            ttft_lag_s=pace.first_s - pace.first_due_s if pace.events else None,
            itl_lag_s=pace.itl_lag_s if pace.events > 1 else None,
            whole_lag_s=left_s - plan.total_s if is_whole and not self.fault else None,
            worst_lag_s=pace.worst_lag_s if pace.events else None,
            blocked_s=pace.blocked_s,
            queue_s=None if self.times is None else self.times.queue_s,
            pace=pace if ask.stream else None,
            fault=self.fault,
            note=self.note,
        )

    def report(self) -> str:
        """Return the times asked and actual as JSON, in ms; of a whole answer only the total.

        ``asked`` and ``mean`` of the ITL are from token to token; ``asked_gap``, ``p99`` and
        ``max`` from event to event, which are ``X-SSE-BATCH-SIZE`` tokens apart.
        """
        plan, pace, itl_s = self.plan, self.pace, self.asked_itl_s
        total_s = self.exchange.elapsed_s
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
        lag_s = pace.worst_lag_s if self.ask.stream else total_s - plan.total_s
        report |= {"worst_lag_ms": _rounded_ms(lag_s), "blocked_ms": _rounded_ms(pace.blocked_s)}
        if self.keepalives:
            report["keepalives"] = self.keepalives
        if self.head_s is not None:
            asked_s = plan.due_s(0)
            report["head_ms"] = {"asked": _rounded_ms(asked_s), "actual": _rounded_ms(self.head_s)}
        if self.fault:
            report["fault"] = self.fault
        return json.dumps(report, separators=(",", ":"))


def _rounded_ms(seconds: float | None) -> float | None:
    """Return a time in ms, None where there is none or an engine has not come so far."""
    return None if seconds is None or math.isinf(seconds) else round(seconds * 1000, 3)


def _too_slow(timeout_s: float) -> APIError:
    return APIError(
        f"The engine did not finish this answer within {timeout_s:g} s, and an answer that is not "
        "streamed must take less. Set 'stream' to true, ask for fewer tokens, or raise the "
        "server's timeout_s.",
        status=504,
        type="server_error",
        code="timeout_exceeded",
    )
