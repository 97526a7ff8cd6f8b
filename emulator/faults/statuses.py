"""OpenAI's error for each status and each code: type, code and message."""

from http import HTTPStatus

from emulator.contract.errors import ErrorBody
from emulator.faults.codes import CODES, INVALID, TOO_LONG
from emulator.limits.words import NO_KEY, go_duration, masked, wrong_key

_TOKENS_PER_MINUTE = 30_000
_WITHOUT_A_WAIT_MS = 18_642

# What a status says that comes without a code.
_CODES_OF_STATUSES = {
    404: "model_not_found",
    429: "rate_limit_exceeded",
    500: "server_error",
    503: "server_is_overloaded",
}


def error_body(
    status: int,
    *,
    model: str,
    api_key: str = "",
    retry_after_ms: int | None = None,
    code: str | None = None,
    path: str = "",
) -> ErrorBody:
    """Return the error that OpenAI sends with a status from 400 to 599, or with `code`.

    The message of a rate limit has the wait of its headers, and a number of tokens to explain it.

    Args:
        status: The HTTP status, which decides if there is no code.
        model: The model that was asked for.
        api_key: The key that was sent.
        retry_after_ms: The wait in the headers.
        code: One of `CODES`.
        path: The path of the API, as some have their own messages.
    """
    if code is None and status == HTTPStatus.UNAUTHORIZED:
        return _unauthorized(api_key)
    name = code or _CODES_OF_STATUSES.get(status)
    if name is None:
        kind = INVALID if status < 500 else "server_error"
        return ErrorBody(message=f"{_phrase(status)}.", type=kind, param=None, code=None)
    known = CODES[name]
    param, message = known.param, known.message
    if name == "context_length_exceeded":
        param, message = TOO_LONG.get(path, (param, message))
    wait_ms = _WITHOUT_A_WAIT_MS if retry_after_ms is None else retry_after_ms
    message = message.format(
        model=model,
        limit=_TOKENS_PER_MINUTE,
        requested=-(-wait_ms * _TOKENS_PER_MINUTE // 60_000),
        wait=go_duration(wait_ms),
        key=masked(api_key),
    )
    if code is None and status == HTTPStatus.INTERNAL_SERVER_ERROR:
        name = None  # OpenAI's has none
    return ErrorBody(message=message, type=known.type, param=param, code=name)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


def _unauthorized(api_key: str) -> ErrorBody:
    refusal = wrong_key(api_key) if api_key else NO_KEY
    return ErrorBody(message=refusal.message, type=refusal.type, param=None, code=refusal.code)
