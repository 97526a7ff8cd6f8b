"""Prometheus metrics of the clock and the answers, on /metrics beside BentoML's.

prometheus_client keeps them in files that all workers share, so that any worker tells all of them.
"""

from prometheus_client import Counter, Gauge, Histogram

_PREFIX = "openai_emulator"
_LAG_BUCKETS_S = (
    50e-6,
    100e-6,
    250e-6,
    500e-6,
    1e-3,
    2.5e-3,
    5e-3,
    10e-3,
    25e-3,
    50e-3,
    100e-3,
    250e-3,
    500e-3,
    1.0,
)

TTFT_LAG = Histogram(
    f"{_PREFIX}_ttft_lag_seconds",
    "How long after it was due the first token of a stream left",
    buckets=_LAG_BUCKETS_S,
)
ITL_LAG = Histogram(
    f"{_PREFIX}_itl_lag_seconds",
    "By how much the gap between two tokens of a stream was longer than asked, its largest",
    buckets=_LAG_BUCKETS_S,
)
WHOLE_LAG = Histogram(
    f"{_PREFIX}_whole_lag_seconds",
    "How long after it was due an answer that was not streamed left",
    buckets=_LAG_BUCKETS_S,
)
TOKENS = Counter(f"{_PREFIX}_tokens", "Completion tokens that were sent")
COMPLETIONS = Counter(f"{_PREFIX}_completions", "Answers that were sent", ["finish_reason"])
ERRORS = Counter(f"{_PREFIX}_errors", "Requests that were refused or failed", ["status", "code"])
ACTIVE_STREAMS = Gauge(
    f"{_PREFIX}_active_streams", "Streams under way", multiprocess_mode="livesum"
)
