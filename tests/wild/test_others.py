"""What real applications hit in legacy completions, failures, moderations and absent endpoints.

A case for each row of these in the list of what was seen in the wild.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.support.wire import CHAT_PATH, chat, headers

LEGACY = "/v1/completions"
PROMPT = {"model": "davinci-002", "prompt": "The capital of France is", "logprobs": 1}
ECHO = {**PROMPT, "echo": True, "max_tokens": 1}
TOKENS = 5  # of the prompt
ABSENT = "This emulator has no such endpoint"
ARRAYS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


@dataclass(frozen=True)
class Row:
    """A request, and what is right about its answer."""

    name: str
    path: str
    body: dict[str, Any] | None
    status: int
    holds: Callable[[httpx.Response], bool]
    asked: dict[str, str] = field(default_factory=headers)
    method: str = "POST"

    def __str__(self) -> str:
        """Name it in a test's id."""
        return self.name


def logprobs(answer: httpx.Response) -> dict[str, list[Any]]:
    """Return the log probabilities of the first choice."""
    found: dict[str, list[Any]] = answer.json()["choices"][0]["logprobs"]
    return found


def error(answer: httpx.Response) -> dict[str, Any]:
    """Return the error of OpenAI's envelope."""
    found: dict[str, Any] = answer.json()["error"]
    return found


def holds_prompt_and(answered: int) -> Callable[[httpx.Response], bool]:
    """Return what tells whether all arrays hold the prompt and so many tokens of the answer."""

    def holds(answer: httpx.Response) -> bool:
        found = logprobs(answer)
        figures, top = found["token_logprobs"], found["top_logprobs"]
        return (
            {len(found[name]) for name in ARRAYS} == {TOKENS + answered}
            and "".join(found["tokens"]) == answer.json()["choices"][0]["text"]
            and (figures[0], top[0], found["text_offset"][:2]) == (None, None, [0, 3])
            and all(figure < 0 for figure in figures[1:])
            and all(
                row[name] == figure
                for row, name, figure in zip(top[1:], found["tokens"][1:], figures[1:], strict=True)
            )
        )

    return holds


def fails(code: str, **more: str) -> dict[str, str]:
    """Return the headers that ask for an error."""
    named = {f"X-FAULT-{name.upper().replace('_', '-')}": value for name, value in more.items()}
    return headers() | {"X-FAULT-CODE": code, **named}


def told(**fields: object) -> Callable[[httpx.Response], bool]:
    """Return what tells whether an error has these fields; of the message a part."""

    def holds(answer: httpx.Response) -> bool:
        found = error(answer)
        part = str(fields.get("message", ""))
        return part in found["message"] and fields.items() <= (found | {"message": part}).items()

    return holds


def unflagged(results: int) -> Callable[[httpx.Response], bool]:
    """Return what tells whether so many results say that nothing is wrong."""

    def holds(answer: httpx.Response) -> bool:
        found = answer.json()["results"]
        return len(found) == results and not any(
            result["flagged"] or any(result["categories"].values()) for result in found
        )

    return holds


def absent(method: str, path: str) -> Row:
    """Return the row of an endpoint of OpenAI that is not here."""
    says = told(type="invalid_request_error", code="unsupported_endpoint", message=ABSENT)
    body: dict[str, Any] | None = {} if method == "POST" else None
    return Row(f"{method} {path}", path, body, 404, says, method=method)


PARTS = [
    {"type": "text", "text": "hello"},
    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
]
ROWS = [
    Row("echo with logprobs", LEGACY, ECHO, 200, holds_prompt_and(1)),
    Row("echo of the prompt alone", LEGACY, {**ECHO, "max_tokens": 0}, 200, holds_prompt_and(0)),
    Row(
        "best_of with stream",
        LEGACY,
        {**PROMPT, "best_of": 2, "stream": True},
        400,
        told(param="best_of", message="esults cannot be streamed"),
    ),
    Row(
        "insufficient_quota",
        CHAT_PATH,
        chat(),
        429,
        lambda answer: (
            "retry-after" not in answer.headers
            and told(type="insufficient_quota", code="insufficient_quota")(answer)
        ),
        fails("insufficient_quota"),
    ),
    Row(
        "context_length_exceeded",
        CHAT_PATH,
        chat(),
        400,
        told(param="messages", code="context_length_exceeded", message="maximum context length"),
        fails("context_length_exceeded"),
    ),
    Row(
        "a message of one's own",
        CHAT_PATH,
        chat(),
        429,
        told(code="rate_limit_exceeded", message="slower, please"),
        fails("rate_limit_exceeded", message="slower, please"),
    ),
    Row(
        "unknown X-FAULT-* name",
        CHAT_PATH,
        chat(),
        400,
        told(param="X-FAULT-KNID", message="X-FAULT-KIND"),
        headers() | {"X-FAULT-KNID": "reset"},
    ),
    Row(
        "unknown X-EMULATION-* name",
        CHAT_PATH,
        chat(),
        400,
        told(param="X-EMULATION-REPROT", message="X-EMULATION-REPORT"),
        headers() | {"X-EMULATION-REPROT": "true"},
    ),
    Row("moderation of a text", "/v1/moderations", {"input": "hi"}, 200, unflagged(1)),
    Row("moderation of texts", "/v1/moderations", {"input": ["a", "b"]}, 200, unflagged(2)),
    Row("moderation of parts", "/v1/moderations", {"input": PARTS}, 200, unflagged(1)),
    absent("POST", "/v1/conversations"),
    absent("POST", "/v1/files"),
    absent("POST", "/v1/images/generations"),
    absent("POST", "/v1/audio/speech"),
    absent("POST", "/v1/batches"),
    absent("POST", "/v1/vector_stores"),
    absent("GET", "/v1/chat/completions/chatcmpl-1"),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row_is_right(http: httpx.Client, row: Row) -> None:
    """What an application sends in the wild is answered as OpenAI answers it."""
    answer = http.request(row.method, row.path, json=row.body, headers=row.asked)
    assert answer.status_code == row.status, answer.text
    assert row.holds(answer), answer.text


def test_keys_come_before_what_clients_number(http: httpx.Client) -> None:
    """Attempts are counted by a key that is given, though the client numbers each of them 0.

    DSPy and LiteLLM try again by themselves, around an SDK that numbers its own attempts.
    """
    key = {"X-FAULT-KEY": uuid.uuid4().hex, "x-stainless-retry-count": "0"}
    asked = headers() | {"X-FAULT-STATUS": "503", "X-FAULT-ATTEMPTS": "2"} | key
    tries = [http.post(CHAT_PATH, json=chat(), headers=asked).status_code for _ in range(4)]
    assert tries == [503, 503, 200, 200]
