"""Streams in mid-flight: what a token costs a worker there, and how many streams it holds."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from benchmarks.kit.client import Chat, ServerError, StreamResult, run_streams
from benchmarks.kit.server import Cpu, Server

ITL_MS = 20.0
GAP_LIMIT_MS = 5.0
KEPT_SHARE = 0.97  # of the tokens asked for; with fewer, the server was behind
_FIRST_TOKEN_S = 0.2
_START_EACH_S = 0.0005
# Time runs when a request is read: one that waits for the one before is not due with the others.
_START_EACH_TOGETHER_S = 0.003
_MARGIN_S = 0.2
_GRACE_S = 3.0


@dataclass(frozen=True, slots=True)
class Steady:
    """What a window saw in which all streams ran: neither a start nor an end is in it."""

    tokens: int
    asked: float
    cpu: Cpu
    gap_error_p99_ms: float
    client_behind_p99_ms: float
    # Of first tokens, where all streams ask for one TTFT.
    ttft_error_p50_ms: float = math.nan
    ttft_error_p99_ms: float = math.nan

    @property
    def kept(self) -> bool:
        """Whether the tokens came as fast as they were asked for."""
        return self.tokens >= KEPT_SHARE * self.asked

    @property
    def held(self) -> bool:
        """Whether the streams were in time."""
        return self.kept and self.gap_error_p99_ms < GAP_LIMIT_MS

    @property
    def us_per_token(self) -> float:
        """The worker's CPU time for each token."""
        return self.cpu.sum_s / self.tokens * 1e6 if self.tokens else math.nan


@dataclass(slots=True)
class _Window:
    """When it began and ended, ns on CLOCK_REALTIME, and what the server had used then."""

    server: Server
    edges: list[tuple[int, Cpu]] = field(default_factory=list)

    def note(self) -> None:
        """Note one of the two edges."""
        self.edges.append((time.time_ns(), self.server.cpu()))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` of them do not exceed; NaN if there is none."""
    if not values:
        return math.nan
    return sorted(values)[max(math.ceil(len(values) * percent / 100) - 1, 0)]


def run_steady(
    server: Server,
    streams: int,
    duration_s: float,
    *,
    together: bool = False,
    as_response: bool = False,
) -> Steady:
    """Run streams of 50 tokens/s and look at them for `duration_s` seconds in their middle.

    They start at random instants, and the last has started before the first token of any is due.
    Their tokens are due at random instants too, or with `together` all at the same. With
    `as_response` they are of the Responses API.

    Raises:
        ServerError: It refused a request, or ended all streams too early.
    """
    within_s = streams * (_START_EACH_TOGETHER_S if together else _START_EACH_S)
    ttft_s = _FIRST_TOKEN_S + within_s
    begin_s = within_s + ttft_s + _MARGIN_S
    end_s = begin_s + duration_s
    tokens = math.ceil((end_s + _MARGIN_S - ttft_s) * 1000 / ITL_MS)
    chat = Chat(True, ttft_s * 1000, ITL_MS, tokens, as_response)
    window = _Window(server)
    actions = [(begin_s, window.note), (end_s, window.note)]
    timeout_s = ttft_s + within_s + tokens * ITL_MS / 1000 + _GRACE_S
    results = run_streams(
        server.address, chat, streams, within_s, timeout_s, actions, together=together
    )
    if len(window.edges) < 2:
        raise ServerError(f"{server.name} ended all streams before their last token was due.")
    (begin_ns, before), (end_ns, after) = window.edges
    steady = _summarize(results, begin_ns, end_ns, after - before)
    if together:
        return steady
    errors_ms = [
        abs(result.arrived_ns[0] - result.sent_ns - ttft_s * 1e9) / 1e6
        for result in results
        if result.arrived_ns
    ]
    p50_ms, p99_ms = percentile(errors_ms, 50), percentile(errors_ms, 99)
    return replace(steady, ttft_error_p50_ms=p50_ms, ttft_error_p99_ms=p99_ms)


def _summarize(results: Sequence[StreamResult], begin_ns: int, end_ns: int, cpu: Cpu) -> Steady:
    seen = [[ns for ns in result.arrived_ns if begin_ns <= ns < end_ns] for result in results]
    itl_ns = ITL_MS * 1e6
    errors_ms = [
        abs(later - earlier - itl_ns) / 1e6 for ns in seen for earlier, later in pairwise(ns)
    ]
    behind_ms = [behind / 1e6 for result in results for behind in result.behind_ns]
    return Steady(
        tokens=sum(map(len, seen)),
        asked=len(results) * (end_ns - begin_ns) / itl_ns,
        cpu=cpu,
        gap_error_p99_ms=percentile(errors_ms, 99),
        client_behind_p99_ms=percentile(behind_ms, 99),
    )


@dataclass(slots=True)
class Search:
    """Finds the most streams that are held: doubles until they are not, then halves the rest.

    >>> search = Search(first=100, most=4000)
    >>> while (streams := search.next()):
    ...     search.note(streams, held=streams <= 730)
    >>> search.held
    700
    """

    first: int
    most: int
    precision: float = 0.1
    held: int = 0
    _failed: int = 0

    def next(self) -> int:
        """Return what to try next, 0 if the answer is known."""
        if not self._failed:
            upto = min(max(self.first, 2 * self.held), self.most)
            return upto if upto > self.held else 0
        near = self._failed - self.held <= max(self.precision * self._failed, 1)
        return 0 if near else (self.held + self._failed) // 2

    def note(self, streams: int, held: bool) -> None:
        """Take note of how a try ended."""
        if held:
            self.held = streams
        else:
            self._failed = streams
