"""One request for embeddings: from its body to the vectors, when they are due."""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from emulator import metrics
from emulator.apis.embeddings.schema import EmbeddingRequest
from emulator.contract.errors import APIError
from emulator.contract.headers import EmulationHeaders
from emulator.embeddings.embedder import Embedded, Embedder, InputError
from emulator.embeddings.models import most_dimensions
from emulator.injection.fault_injector import Injector
from emulator.injection.faulty_answers import instant_s
from emulator.metrics import TALLY
from emulator.serving.bodies import Asked
from emulator.serving.generation import MAX_NAME_LOGGED
from emulator.serving.planning import draw_offsets, refuse_beyond_timeout
from emulator.settings import Settings
from emulator.timing.clock import sleep_until
from emulator.timing.jitter import Floats
from emulator.timing.plan import GenerationPlan
from emulator.transport.log_lines import LINES
from emulator.transport.sending import (
    CLIENT_CLOSED_REQUEST,
    PiecesResponse,
    ended_by_disconnect,
    openai_headers,
)
from tokenizer import count_tokens


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A request for embeddings that was read, and the vectors if a helper has made them."""

    request: EmbeddingRequest
    asked: Asked
    embedded: Embedded | None = None

    def count(self) -> int:
        """Return how many tokens the inputs have."""
        if self.embedded is not None:
            return self.embedded.tokens
        return sum(
            count_tokens(item, self.request.model) if isinstance(item, str) else len(item)
            for item in self.request.inputs
        )


def embed(embedder: Embedder, asked: EmbeddingRequest) -> Iterator[tuple[bytes, int]]:
    """Yield the vectors of a request, some at a time: a piece of JSON, and its inputs' tokens.

    Raises:
        APIError: There are too many tokens, or ones that do not exist.
    """
    try:
        yield from embedder.embed(
            asked.inputs, asked.model, dimensions_of(asked), as_base64=asked.wants_base64
        )
    except InputError as error:
        param = "input" if error.index is None else asked.param(error.index)
        raise APIError(str(error), param=param, code=error.code) from None


def embed_all(embedder: Embedder, asked: EmbeddingRequest) -> Embedded:
    """Return the vectors of a request.

    Raises:
        APIError: There are too many tokens, or ones that do not exist.
    """
    pieces, tokens = zip(*embed(embedder, asked), strict=True)
    return Embedded(pieces, sum(tokens))


def dimensions_of(asked: EmbeddingRequest) -> int:
    """Return how many numbers each vector of a request has."""
    return asked.dimensions or most_dimensions(asked.model)


class EmbeddingEndpoint:
    """Answers requests for embeddings after their time to first token.

    The vectors of small ones are made in a thread, which serves one request after the other.

    Args:
        settings: Holds the time of a request that asks for none.
        traces: What X-TTFT-JITTER may name.
        injector: Decides which answers fail.
    """

    def __init__(
        self, settings: Settings, traces: Mapping[str, Floats], injector: Injector
    ) -> None:
        self._injector = injector
        self._settings = settings
        self._traces = traces
        self._embedder = Embedder()
        self._thread = ThreadPoolExecutor(1, "embeddings")

    async def answer(self, request: Request, wanted: Embeddings) -> Response:
        """Return the vectors of a request, when they are due.

        Raises:
            APIError: There are too many tokens, or ones that do not exist, or the time is too long.
            ClientDisconnect: The client went away.
        """
        asked, headers = wanted.request, wanted.asked.emulation
        fault = self._injector.decide(request, asked)
        plan = await self._plan(headers)
        refuse_beyond_timeout(plan, self._settings.timeout_s)
        start_s = request.scope["start_s"]
        done = partial(_finish, asked, plan, start_s)
        embedded = wanted.embedded
        async with ended_by_disconnect(request.receive):
            try:
                if embedded is None:
                    embedded = await asyncio.get_running_loop().run_in_executor(
                        self._thread, embed_all, self._embedder, asked
                    )
                if fault is None:
                    await sleep_until(start_s + plan.total_s)
            except asyncio.CancelledError:
                done(CLIENT_CLOSED_REQUEST, 0)
                raise
        if fault is not None:
            whole = _Vectors(
                asked, embedded, plan, start_s, fault.kind.name, report=headers.emulation_report
            )
            wait = partial(sleep_until, start_s + instant_s(fault, plan, ()))
            return await self._injector.inject_whole(request, fault, asked, whole, wait)
        elapsed_s = done(200, embedded.tokens)
        report = _report(plan, elapsed_s) if headers.emulation_report else ""
        return PiecesResponse(_pieces(asked, embedded, report), openai_headers(request))

    async def _plan(self, headers: EmulationHeaders) -> GenerationPlan:
        """Return when the answer is due: as the one token of a generation."""
        given_ms = headers.ttft_ms
        ttft_ms = self._settings.ttft_ms if given_ms is None else given_ms
        plan = GenerationPlan(1, "stop", ttft_s=ttft_ms / 1000, itl_s=0)
        if headers.ttft_jitter is None and headers.itl_jitter is None:
            return plan
        offsets = await asyncio.to_thread(draw_offsets, plan, headers, None, self._traces)
        return plan.timed_at(offsets)


@dataclass(frozen=True)
class _Vectors:
    """An answer that is to fail."""

    asked: EmbeddingRequest
    embedded: Embedded
    plan: GenerationPlan
    start_s: float
    fault: str
    report: bool

    async def whole(self) -> bytes:
        """Return the answer as JSON."""
        return b"".join(_pieces(self.asked, self.embedded, ""))

    def reported(self, body: bytes | bytearray) -> bytes | bytearray:
        """Return the answer with the report, if that was asked for."""
        if not self.report:
            return body
        report = _report(self.plan, time.monotonic() - self.start_s, self.fault)
        return body[:-1] + f"{report}}}".encode()

    def finish_fault(self, status: int) -> None:
        """Note that the answer, or what took its place, has left."""
        _finish(self.asked, self.plan, self.start_s, status, self.embedded.tokens, self.fault)


def _finish(
    asked: EmbeddingRequest,
    plan: GenerationPlan,
    start_s: float,
    status: int,
    tokens: int,
    fault: str = "",
) -> float:
    """Note that an answer leaves, or that its client did; return the seconds since the start."""
    elapsed_s = time.monotonic() - start_s
    if status == 200 and not fault:
        TALLY.observe(metrics.WHOLE_LAG, elapsed_s - plan.total_s)
    LINES.add(
        f"embeddings model={json.dumps(asked.model[:MAX_NAME_LOGGED])} status={status} "
        f"inputs={len(asked.inputs)} prompt_tokens={tokens} dimensions={dimensions_of(asked)} "
        f"total_ms={plan.total_s * 1000:.2f} total_actual_ms={elapsed_s * 1000:.2f}"
        f"{f' fault={fault}' if fault else ''}"
    )
    return elapsed_s


def _pieces(
    asked: EmbeddingRequest, embedded: Embedded, report: str
) -> list[bytes | bytearray | memoryview]:
    """Return the answer as JSON, in parts."""
    tokens = embedded.tokens
    usage = f'{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}'
    end = f'],"model":{json.dumps(asked.model)},"usage":{usage}{report}}}'
    return [b'{"object":"list","data":[', *embedded.pieces, end.encode()]


def _report(plan: GenerationPlan, elapsed_s: float, fault: str = "") -> str:
    """Return the times asked and actual in ms, as the last member of the answer."""
    times_ms = {
        "asked": round(plan.total_s * 1000, 3),
        "actual": round(elapsed_s * 1000, 3),
    }
    lag_ms = round((elapsed_s - plan.total_s) * 1000, 3)
    report: dict[str, object] = {"total_ms": times_ms, "worst_lag_ms": lag_ms}
    if fault:
        report["fault"] = fault
    return f',"emulation":{json.dumps(report, separators=(",", ":"))}'
