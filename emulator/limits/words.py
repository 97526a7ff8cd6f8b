"""OpenAI's headers and error messages for limits and keys, word for word."""

from dataclasses import dataclass
from functools import lru_cache

from emulator.limits.buckets import Bucket, Limits, Verdict

ORGANIZATION = "org-x"
_MORE = "Visit https://platform.openai.com/account/rate-limits to learn more."
_KEYS_PAGE = "https://platform.openai.com/account/api-keys"

_REQUESTS, _TOKENS = (
    b"".join(
        b"x-ratelimit-%b-%b: %b\r\n" % (figure, kind, form)
        for figure, form in ((b"limit", b"%d"), (b"remaining", b"%d"), (b"reset", b"%b"))
    )
    for kind in (b"requests", b"tokens")
)
_RETRY = b"retry-after: %d\r\nretry-after-ms: %d\r\n"


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
    """Return the refusal of an unknown key."""
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
    """Return the refusal of a request by a bucket."""
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


def header_lines(limits: Limits, verdict: Verdict | None) -> bytes:
    """Return the x-ratelimit-* headers and, where waiting helps, retry-after and retry-after-ms.

    They are lines as HTTP has them, ready to be sent: to put six headers together one by one is a
    thirtieth of an answer. `retry-after` is in whole seconds, at least 1. Without a verdict nothing
    is known.
    """
    lines = b""
    if verdict is None:
        return lines
    bucket, left = limits.requests, verdict.requests_left
    if bucket is not None and left is not None:
        limit = bucket.limit
        lines = _REQUESTS % (limit, left, _reset(bucket.refill_ms(limit - left)))
    bucket, left = limits.tokens, verdict.tokens_left
    if bucket is not None and left is not None:
        limit = bucket.limit
        lines += _TOKENS % (limit, left, _reset(bucket.refill_ms(limit - left)))
    if verdict.retry_ms:
        lines += _RETRY % (-(-verdict.retry_ms // 1000), verdict.retry_ms)
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
