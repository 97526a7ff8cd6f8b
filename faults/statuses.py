"""What OpenAI says with each status: type, code and message of the envelope."""

from http import HTTPStatus

from schemas import ErrorBody

_KEYS_PAGE = "https://platform.openai.com/account/api-keys"
_NO_KEY = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header "
    "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY), or as the password field (with blank "
    "username) if you're accessing the API from your browser and are prompted for a username and "
    f"password. You can obtain an API key from {_KEYS_PAGE}."
)
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
    """Return the error that OpenAI sends with `status`, from 400 to 599.

    A 429 names the wait that its headers tell, and the number of tokens that makes it.
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
            wait=f"{wait_ms / 1000:.3f}".rstrip("0").rstrip(".") + "s",
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
    kind = "invalid_request_error"
    if not api_key:
        return ErrorBody(message=_NO_KEY, type=kind, param=None, code=None)
    message = (
        f"Incorrect API key provided: {_masked(api_key)}. "
        f"You can find your API key at {_KEYS_PAGE}."
    )
    return ErrorBody(message=message, type=kind, param=None, code="invalid_api_key")


def _masked(key: str) -> str:
    """Return a key as an error shows it: no more than 9 of its characters, and half of them."""
    head, tail = min(5, len(key) // 4), min(4, len(key) // 4)
    return f"{key[:head]}***{key[len(key) - tail :]}"
