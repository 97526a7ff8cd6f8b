"""The names of failures: what locust's table of failures groups by.

A name says what was seen on the wire and nothing that differs from request to request but the
number of tokens before it, so that a thousand failures of one kind are a few rows.
"""

import errno
import json
from collections.abc import Iterator
from typing import Any

import gevent
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError

BEFORE_THE_ANSWER = "before the answer"
WITHIN_THE_ANSWER = "within the answer"

_ENDED = "Incomplete response."  # what geventhttpclient's parser says of a FIN within a body
_MESSAGE_LENGTH = 200
_REFUSALS = range(400, 429)  # they say what is wrong with the request; later ones are of the server


class StreamError(Exception):
    """An answer that is not what it should be; the message is the failure's name."""


def after(tokens: int) -> str:
    """Return how far a stream came, as names say it.

    >>> after(12), after(1)
    ('after 12 tokens', 'after 1 token')
    """
    return f"after {tokens} token{'' if tokens == 1 else 's'}"


def error_name(body: Any) -> str:
    """Return what tells an error in OpenAI's envelope from others: its code, type or message.

    >>> error_name({"error": {"message": "Try again in 18.642s.", "code": "rate_limit_exceeded"}})
    'rate_limit_exceeded'
    """
    error = body.get("error") or body if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return str(error)[:_MESSAGE_LENGTH]
    named = next((error[key] for key in ("code", "type", "message") if error.get(key)), body)
    return str(named)[:_MESSAGE_LENGTH]


def status_name(status: int, body: Any) -> str:
    """Return the name of an answer that is not a 200.

    A refused request's message says which parameter is wrong, and is the same for all; the message
    of a rate limit or an overload may hold figures that never come again.
    """
    error = body.get("error") if isinstance(body, dict) else None
    if status in _REFUSALS and isinstance(error, dict) and error.get("message"):
        return f"HTTP {status}: {str(error['message'])[:_MESSAGE_LENGTH]}"
    return f"HTTP {status}: {error_name(body)}"


def broken_json_name(text: str | bytes) -> str | None:
    """Return what is wrong with a whole answer's JSON, None if nothing is.

    JSON that stops before its end is told from JSON that is none: a body may have been cut.

    >>> broken_json_name('{"id": "chatc'), broken_json_name("{]}"), broken_json_name("")
    ('cut JSON', 'broken JSON', 'empty body')
    """
    if not text.strip():
        return "empty body"
    try:
        json.loads(text)
    except UnicodeDecodeError:
        return "broken JSON"
    except json.JSONDecodeError as error:
        end = len(error.doc.rstrip())
        return "cut JSON" if error.pos >= end or "Unterminated" in error.msg else "broken JSON"
    return None


def connection_name(error: BaseException, where: str, silence_s: float) -> str:
    """Return the name of what broke a connection.

    Args:
        error: What the client raised.
        where: How far the answer had come.
        silence_s: For how long nothing may come, in seconds.
    """
    causes = list(_causes(error))
    numbers = {cause.errno for cause in causes if isinstance(cause, OSError)}
    if any(isinstance(cause, TimeoutError | gevent.Timeout) for cause in causes):
        return f"nothing for {silence_s:g} s"
    if errno.ECONNREFUSED in numbers:
        return "connection refused"
    if numbers & {errno.ECONNRESET, errno.EPIPE}:
        return f"connection reset {where}"
    if any(isinstance(cause, HTTPConnectionClosed) or str(cause) == _ENDED for cause in causes):
        return f"connection closed {where}"
    if isinstance(error, HTTPParseError):
        return f"broken HTTP {where}: {error}"
    return str(error) or repr(error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised for; geventhttpclient hides a reset behind its own."""
    pending: list[BaseException | None] = [error]
    while pending:
        cause = pending.pop()
        if cause is not None:
            yield cause
            pending += [cause.__cause__, cause.__context__, getattr(cause, "original", None)]
