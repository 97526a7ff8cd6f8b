"""What rules look at of a request's head."""

from emulator.contract.error_words import invalid_header
from emulator.limits.keys import key_of
from emulator.rules.subject import Seen
from emulator.transport.exchange import Exchange

_RETRIES = "x-stainless-retry-count"
_ATTEMPTS = "x-envoy-attempt-count"
ATTEMPT_HEADERS = (_RETRIES, _ATTEMPTS)


def seen_of(exchange: Exchange) -> Seen:
    """Return what rules look at of a request's head.

    Raises:
        APIError: A header tells no number of attempts.
    """
    rules = exchange.state.rules
    if rules is None:
        return Seen(exchange.path)
    key = key_of(exchange.header(b"authorization"))
    attempt = attempts_told(exchange) if rules.draws else None
    seen = rules.see(exchange.path, exchange.header, key, attempt or 0)
    has_keys = exchange.state.policy is not None and exchange.state.policy.keys is not None
    return seen._replace(scope=None) if has_keys else seen


def attempts_told(exchange: Exchange) -> int | None:
    """Return how many attempts came before this one, as the client tells it; None if it does not.

    Raises:
        APIError: It tells no number.
    """
    for name, first in ((_RETRIES, 0), (_ATTEMPTS, 1)):
        if (value := exchange.header(name.encode())) is not None:
            return _number(name, value, first) - first
    return None


def _number(name: str, value: str, least: int) -> int:
    """Read the number that a header has.

    Raises:
        APIError: It is none, or less than `least`.
    """
    if not value.isascii() or not value.isdecimal() or len(value) > 9 or int(value) < least:
        raise invalid_header(
            name, f"expected a whole number of at least {least}, but got '{value[:64]}'"
        )
    return int(value)
