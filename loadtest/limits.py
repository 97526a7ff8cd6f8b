"""Limits that make a run pass or fail in CI."""

from collections.abc import Iterator

from locust.stats import RequestStats, StatsEntry

from loadtest.options import Options, flag
from loadtest.report import ITL, TTFT, rows, tokens_per_s

# With fewer observations the p99 is their maximum: one gap in which the machine did something else.
MIN_GAPS = 100


def broken_limits(stats: RequestStats, options: Options) -> Iterator[str]:
    """Yield one line for each limit that broke: which, what was measured, and what was allowed.

    A limit on what was never measured is broken too, and one on ITL if no row has gaps enough.
    """
    yield from _broken_p99(stats, TTFT, "max_ttft_p99_ms", options.max_ttft_p99_ms)
    yield from _broken_p99(stats, ITL, "max_itl_p99_ms", options.max_itl_p99_ms)
    limit = options.max_error_rate
    if limit is not None and not stats.num_requests:
        yield f"{flag('max_error_rate')} {limit:g}: no request was made"
    elif limit is not None and stats.total.fail_ratio > limit:
        yield (
            f"{flag('max_error_rate')} {limit:g}: the error rate was {stats.total.fail_ratio:.4f} "
            f"({stats.num_failures} of {stats.num_requests} requests)"
        )
    floor = options.min_tokens_per_s
    if floor is not None and (measured := tokens_per_s(stats)) < floor:
        yield f"{flag('min_tokens_per_s')} {floor:g}: there were {measured:.1f} tokens/s"


def _broken_p99(stats: RequestStats, kind: str, name: str, limit: float | None) -> Iterator[str]:
    if limit is None:
        return
    measured = rows(stats, kind)
    if not measured:
        yield f"{flag(name)} {limit:g}: no {kind} was measured"
        return
    measured = [entry for entry in measured if _is_judged(entry, kind)]
    if not measured:
        yield f"{flag(name)} {limit:g}: no row has the {MIN_GAPS} gaps that a p99 is judged by"
        return
    worst = max(measured, key=lambda entry: entry.get_response_time_percentile(0.99))
    p99_ms = worst.get_response_time_percentile(0.99)
    if p99_ms > limit:
        yield f"{flag(name)} {limit:g}: the p99 of {kind} was {p99_ms:g} ms in {worst.name!r}"


def unjudged(stats: RequestStats, options: Options) -> Iterator[str]:
    """Yield one line for each row of ITL that the limit on its p99 does not judge."""
    limit = options.max_itl_p99_ms
    for entry in rows(stats, ITL) if limit is not None else ():
        if not _is_judged(entry, ITL):
            yield (
                f"{flag('max_itl_p99_ms')} {limit:g} in {entry.name!r}: "
                f"{entry.num_requests} gaps, and a p99 is judged by {MIN_GAPS} or more"
            )


def _is_judged(entry: StatsEntry, kind: str) -> bool:
    return kind != ITL or entry.num_requests >= MIN_GAPS


def exit_code(stats: RequestStats, options: Options) -> int | None:
    """Return the exit code that the limits ask for; None leaves the choice to locust.

    Locust exits with 1 after any failed request; a maximum error rate replaces that rule.
    """
    if any(broken_limits(stats, options)):
        return 1
    return None if options.max_error_rate is None else 0
