"""The rows of locust's statistics that a request does not have by itself: TTFT, ITL and TOKENS."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

import gevent
import locust.stats
from locust.env import Environment
from locust.stats import RequestStats, StatsEntry

from loadtest.stream import ChatStream

TTFT = "TTFT"
ITL = "ITL"
E2E = "E2E"
TOKENS = "TOKENS"
STOP_LASTS_S = 1.0


def bucket(time_ms: float) -> float:
    """Round to the steps that percentiles are taken in: 0.1 ms, and 0.5 % of what is over 100 ms.

    Locust's own steps are 1 ms up to 100 ms and then two digits: too coarse for inter-token
    latencies, and for a median that is to be right within 2 ms.

    >>> bucket(20.123), bucket(123.45), bucket(2344)
    (20.1, 123.5, 2345.0)
    """
    if time_ms < 100:
        return round(time_ms, 1)
    if time_ms < 1000:
        return round(time_ms * 2) / 2
    return round(time_ms / 5) * 5.0 if time_ms < 10_000 else round(time_ms / 50) * 50.0


def use_fine_buckets() -> None:
    """Have locust round with `bucket` (its documented way: the name in its module is replaced).

    Every process of a run must, as workers send the rounded times and the master adds them up.
    """
    locust.stats.bucket_response_time = bucket  # type: ignore[assignment]


@dataclass
class Stop:
    """The stop of the test, which delays what this process reads.

    ``stop()`` of locust blocks the event loop, 42 to 85 ms while it looks for its caller's source,
    and then ends one user after the other. What arrives meanwhile is read late, so that an
    observation that ends then is none.
    """

    at_s: float = inf  # on time.perf_counter(); infinity while the test runs

    def delays(self, instant_s: float) -> bool:
        """Return whether what was read at this instant may have been there before."""
        return self.at_s <= instant_s < self.at_s + STOP_LASTS_S


THE_STOP = Stop()


@dataclass
class StreamLog:
    """Logs one stream to the rows of `name` while it is open, every observation once.

    Args:
        stats: Locust's statistics of this process.
        name: The rows' name.
        start_s: When the request was sent, or should have been, on ``time.perf_counter()``.
        stream: The stream, which is fed with times of the same clock.
        stop: The stop of the test, on the same clock.
    """

    stats: RequestStats
    name: str
    start_s: float
    stream: ChatStream
    stop: Stop = field(default_factory=lambda: THE_STOP)
    arrivals: int = 0
    tokens: int = 0

    def log(self) -> None:
        """Log what came since the last call.

        The server's usage, if it comes at the end only, may then correct the number of tokens.
        """
        arrivals_s, tokens = self.stream.arrivals_s, self.stream.completion_tokens
        log_stream(self.stats, self.name, self.start_s, arrivals_s, self.arrivals, self.stop)
        log_tokens(self.stats, self.name, tokens - self.tokens, arrivals_s[self.arrivals :])
        self.arrivals, self.tokens = len(arrivals_s), tokens


def log_stream(
    stats: RequestStats,
    name: str,
    start_s: float,
    arrivals_s: Sequence[float],
    logged: int = 0,
    stop: Stop = THE_STOP,
) -> None:
    """Log TTFT and the gaps of one stream to the rows of `name`.

    Args:
        stats: Locust's statistics of this process.
        name: The row's name.
        start_s: When the request was sent, or should have been, on ``time.perf_counter()``.
        arrivals_s: When each token arrived, on the same clock.
        logged: How many of them were logged before.
        stop: The stop of the test: what it delays is left out.
    """
    if arrivals_s and not logged and not stop.delays(arrivals_s[0]):
        log_times(stats, TTFT, name, [(arrivals_s[0] - start_s) * 1000])
    new_s = arrivals_s[max(logged - 1, 0) :]
    gaps_ms = [(b - a) * 1000 for a, b in pairwise(new_s) if not stop.delays(b)]
    if gaps_ms:
        log_times(stats, ITL, name, gaps_ms)


def log_times(stats: RequestStats, kind: str, name: str, times_ms: Sequence[float]) -> None:
    """Log many observations at once to one row.

    An event for each of a stream's gaps would cost more than receiving its tokens. The observations
    are gathered in an entry of their own, and that is added to the row the way a master adds what
    its workers send: workers, web UI, CSV and HTML need to know nothing of it. The aggregated row
    is left alone: it stays one observation for each request.
    """
    entry = StatsEntry(stats, name, kind)
    now_s = time.time()
    entry.num_requests = len(times_ms)
    entry.total_response_time = sum(times_ms)  # type: ignore[arg-type]
    entry.min_response_time = min(times_ms)  # type: ignore[assignment]
    entry.max_response_time = max(times_ms)  # type: ignore[assignment]
    entry.response_times = Counter(map(bucket, times_ms))  # type: ignore[arg-type]
    entry.num_reqs_per_sec[int(now_s)] = len(times_ms)
    entry.last_request_timestamp = now_s
    stats.get(name, kind).extend(entry)


def log_tokens(
    stats: RequestStats, name: str, tokens: int, arrivals_s: Sequence[float] = ()
) -> None:
    """Log tokens of one answer to a row in which each is a "request" without a time.

    What locust shows as that row's requests/s is tokens/s. A token counts in the second in which it
    arrived; those that did not come in an event of their own count now.

    Args:
        stats: Locust's statistics of this process.
        name: The row's name.
        tokens: How many there were; below 0 to take back what was counted too much.
        arrivals_s: When events with tokens arrived, on ``time.perf_counter()``.
    """
    if not tokens:
        return
    entry = StatsEntry(stats, name, TOKENS)
    now_s = time.time()
    entry.num_requests = entry.num_none_requests = tokens
    in_events_s = arrivals_s[: max(tokens, 0)]
    for second, count in _count_by_second(in_events_s, now_s - time.perf_counter()):
        entry.num_reqs_per_sec[second] += count
        tokens -= count
    entry.num_reqs_per_sec[int(now_s)] += tokens
    entry.last_request_timestamp = now_s
    stats.get(name, TOKENS).extend(entry)
    extend_run(stats)


def extend_run(stats: RequestStats) -> None:
    """Have the run last until now, for all that locust divides by its length.

    By itself locust takes the last answer's end for the run's, and so gives the tokens of open
    streams to too short a time, and has a server that hangs keep its rate.
    """
    entry = StatsEntry(stats, stats.total.name, stats.total.method)
    entry.last_request_timestamp = time.time()
    stats.total.extend(entry)


def extend_run_every_second(environment: Environment) -> None:
    """Keep the length of the test that runs up to date; never returns."""
    while True:
        gevent.sleep(1)
        if environment.runner and environment.runner.state in ("spawning", "running"):
            extend_run(environment.stats)


def _count_by_second(arrivals_s: Sequence[float], offset_s: float) -> Iterator[tuple[int, int]]:
    """Yield each second that had arrivals, after adding the offset, and how many."""
    start = 0
    while start < len(arrivals_s):
        second = int(arrivals_s[start] + offset_s)
        end = bisect_left(arrivals_s, second + 1 - offset_s, start + 1)
        yield second, end - start
        start = end


def rows(stats: RequestStats, kind: str) -> list[StatsEntry]:
    """Return the rows of one kind that have observations, sorted by name."""
    found = [entry for (_, method), entry in stats.entries.items() if method == kind]
    return sorted((entry for entry in found if entry.num_requests), key=lambda entry: entry.name)


def tokens_per_s(stats: RequestStats) -> float:
    """Return the tokens/s of all scenarios, over the whole run."""
    return float(sum(entry.total_rps for entry in rows(stats, TOKENS)))


def summary(stats: RequestStats) -> str:
    """Return the run's figures on one line."""
    tokens = sum(entry.num_requests for entry in rows(stats, TOKENS))
    return f"{tokens} tokens received, {tokens_per_s(stats):.1f} tokens/s"
