"""OpenAI's error for each status: type, code and message."""

from http import HTTPStatus

from emulator.contract.errors import ErrorBody
from emulator.limits.words import NO_KEY, go_duration, wrong_key

_TOKENS_PER_MINUTE = 30_000
_WITHOUT_A_WAIT_MS = 18_642

_BODIES: dict[int, tuple[str, str | None, str]] = {
    404: (
        "invalid_request_error",
        "model_not_found",
        "The model `{model}` does not exist or you do not have access to it.",
    ),
    429: (
        "tokens",
        "rate_limit_exceeded",
        "Rate limit reached for {model} in organization org-x on tokens per min (TPM): Limit "
        "{limit}, Used {limit}, Requested {requested}. Please try again in {wait}. Visit "
        "https://platform.openai.com/account/rate-limits to learn more.",
    ),
    500: (
        "server_error",
        None,
        "The server had an error while processing your request. Sorry about that!",
    ),
    503: (
        "service_unavailable_error",
        "server_is_overloaded",
        "The server is currently overloaded. Please try again later.",
    ),
}


def error_body(
    status: int, *, model: str, api_key: str = "", retry_after_ms: int | None = None
) -> ErrorBody:
    """Return the error that OpenAI sends with a status from 400 to 599.

    The message of a 429 has the wait of its headers, and a number of tokens that explains it.
    """
    if status == HTTPStatus.UNAUTHORIZED:
        return _unauthorized(api_key)
    if status in _BODIES:
        kind, code, message = _BODIES[status]
        wait_ms = _WITHOUT_A_WAIT_MS if retry_after_ms is None else retry_after_ms
        message = message.format(
            model=model,
            limit=_TOKENS_PER_MINUTE,
            requested=-(-wait_ms * _TOKENS_PER_MINUTE // 60_000),
            wait=go_duration(wait_ms),
        )
        return ErrorBody(message=message, type=kind, param=None, code=code)
    kind = "invalid_request_error" if status < 500 else "server_error"
    return ErrorBody(message=f"{_phrase(status)}.", type=kind, param=None, code=None)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


def _unauthorized(api_key: str) -> ErrorBody:
    refusal = wrong_key(api_key) if api_key else NO_KEY
    return ErrorBody(message=refusal.message, type=refusal.type, param=None, code=refusal.code)
