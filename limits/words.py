"""What OpenAI says of limits and keys: headers, Go's durations, and refusals to the letter."""

from dataclasses import dataclass
from functools import lru_cache

from limits.buckets import Bucket, Limits, Verdict

ORGANIZATION = "org-x"
_MORE = "Visit https://platform.openai.com/account/rate-limits to learn more."
_KEYS_PAGE = "https://platform.openai.com/account/api-keys"

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The parts of an error in OpenAI's envelope."""

    status: int
    type: str
    code: str | None
    message: str


NO_KEY = Refusal(
    401,
    "invalid_request_error",
    None,
    "You didn't provide an API key. You need to provide your API key in an Authorization header "
    "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY), or as the password field (with blank "
    "username) if you're accessing the API from your browser and are prompted for a username and "
    f"password. You can obtain an API key from {_KEYS_PAGE}.",
)


def wrong_key(key: str) -> Refusal:
    """Refuse a key that nobody has."""
    return Refusal(
        401,
        "invalid_request_error",
        "invalid_api_key",
        f"Incorrect API key provided: {masked(key)}. You can find your API key at {_KEYS_PAGE}.",
    )


def masked(key: str) -> str:
    """Return a key as OpenAI shows it: its first 8 and last 4 characters, stars between.

    OpenAI shows a very short one in full; of up to 12 characters 5 are shown and the last 4.
    """
    head, tail = (8 if len(key) > 12 else 5), 4
    if len(key) <= head + tail:
        return key
    return key[:head] + "*" * (len(key) - head - tail) + key[-tail:]


def too_many(verdict: Verdict, bucket: Bucket, model: str) -> Refusal:
    """Refuse a request that a bucket did not let through."""
    where = f"for {model} in organization {ORGANIZATION} on {_unit(bucket)}: Limit {bucket.limit}"
    if not verdict.retry_ms:
        message = (
            f"Request too large {where}, Requested {verdict.cost}. The input or output tokens must "
            f"be reduced in order to run successfully. {_MORE}"
        )
    else:
        left = verdict.requests_left if bucket.kind == "requests" else verdict.tokens_left
        used = bucket.limit - (left or 0)
        wait = go_duration(-bucket.refill_ms(bucket.limit - used - verdict.cost))  # rounded up
        message = (
            f"Rate limit reached {where}, Used {used}, Requested {verdict.cost}. "
            f"Please try again in {wait}. {_MORE}"
        )
    return Refusal(429, bucket.kind, "rate_limit_exceeded", message)


def _unit(bucket: Bucket) -> str:
    """Return what a limit counts: ``tokens per min (TPM)``."""
    short = f"{bucket.kind[0]}p{bucket.window.name[0]}".upper()
    return f"{bucket.kind} per {bucket.window.name} ({short})"


def headers(limits: Limits, verdict: Verdict | None) -> Headers:
    """Return the x-ratelimit-* headers and, where waiting helps, retry-after and retry-after-ms.

    `retry-after` is in whole seconds, at least 1. Nothing is known without a verdict.
    """
    if verdict is None:
        return []
    lines: Headers = []
    bucket, left = limits.requests, verdict.requests_left
    if bucket is not None and left is not None:
        limit = bucket.limit
        lines = [
            (b"x-ratelimit-limit-requests", b"%d" % limit),
            (b"x-ratelimit-remaining-requests", b"%d" % left),
            (b"x-ratelimit-reset-requests", _reset(bucket.refill_ms(limit - left))),
        ]
    bucket, left = limits.tokens, verdict.tokens_left
    if bucket is not None and left is not None:
        limit = bucket.limit
        lines += (
            (b"x-ratelimit-limit-tokens", b"%d" % limit),
            (b"x-ratelimit-remaining-tokens", b"%d" % left),
            (b"x-ratelimit-reset-tokens", _reset(bucket.refill_ms(limit - left))),
        )
    retry_ms = verdict.retry_ms
    if retry_ms:
        lines.append((b"retry-after", b"%d" % -(-retry_ms // 1000)))
        lines.append((b"retry-after-ms", b"%d" % retry_ms))
    return lines


@lru_cache(maxsize=4096)
def _reset(milliseconds: int) -> bytes:
    return go_duration(milliseconds).encode()


def go_duration(milliseconds: int) -> str:
    """Write a duration as Go does: ``20ms``, ``8.64s``, ``1s``, ``6m0s``, ``1h30m0s``, ``0s``."""
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    whole, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{seconds}" + (f".{rest:03}".rstrip("0") if rest else "") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
