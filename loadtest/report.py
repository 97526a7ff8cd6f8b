"""The rows of locust's statistics that a request does not have by itself: TTFT, ITL and TOKENS."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import locust.stats
from locust.stats import RequestStats, StatsEntry

TTFT = "TTFT"
ITL = "ITL"
E2E = "E2E"
TOKENS = "TOKENS"


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


def log_stream(stats: RequestStats, name: str, start_s: float, arrivals_s: Sequence[float]) -> None:
    """Log TTFT and the gaps of one stream to the rows of `name`.

    Args:
        stats: Locust's statistics of this process.
        name: The row's name.
        start_s: When the request was sent, or should have been, on ``time.perf_counter()``.
        arrivals_s: When each token arrived, on the same clock.
    """
    if arrivals_s:
        log_times(stats, TTFT, name, [(arrivals_s[0] - start_s) * 1000])
    if len(arrivals_s) > 1:
        log_times(stats, ITL, name, [(b - a) * 1000 for a, b in pairwise(arrivals_s)])


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
    """Log the tokens of one answer to a row in which each is a "request" without a time.

    What locust shows as that row's requests/s is tokens/s. A token counts in the second in which it
    arrived; those that did not come in an event of their own count now.

    Args:
        stats: Locust's statistics of this process.
        name: The row's name.
        tokens: How many there were.
        arrivals_s: When events with tokens arrived, on ``time.perf_counter()``.
    """
    entry = StatsEntry(stats, name, TOKENS)
    now_s = time.time()
    entry.num_requests = entry.num_none_requests = tokens
    for second, count in _count_by_second(arrivals_s[:tokens], now_s - time.perf_counter()):
        entry.num_reqs_per_sec[second] += count
        tokens -= count
    entry.num_reqs_per_sec[int(now_s)] += tokens
    entry.last_request_timestamp = now_s
    stats.get(name, TOKENS).extend(entry)


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
