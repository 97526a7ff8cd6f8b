"""Pages of other origins: which of them a browser lets read answers."""

from collections.abc import Iterator

import httpx
import pytest

from conftest import PAGE
from emulator.transport.cors import EXPOSED, OPERATORS_PATHS
from tests.support.server import Server
from tests.support.wire import CHAT_PATH, chat, headers

ORIGIN = {"Origin": PAGE}
ASKED = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type, x-ttft-ms",
}
ALLOWED = "access-control-allow-origin"


@pytest.fixture(scope="module")
def narrowed(other_server: Server) -> Iterator[httpx.Client]:
    """Yield a client of a server that lets the pages of two origins in."""
    with httpx.Client(base_url=other_server.url, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def closed(lenient_server: Server) -> Iterator[httpx.Client]:
    """Yield a client of a server that lets no page of another origin in."""
    with httpx.Client(base_url=lenient_server.url, trust_env=False) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", CHAT_PATH, chat(max_tokens=1), 200),
        ("POST", CHAT_PATH, chat(max_tokens=1, stream=True), 200),
        ("POST", CHAT_PATH, chat(n=0), 400),
        ("GET", "/v1/models", None, 200),
        ("GET", "/v1/nothing", None, 404),
        ("DELETE", CHAT_PATH, None, 405),
        ("POST", "/chat/completions", chat(), 404),
        ("GET", "/health", None, 200),
        ("POST", "/tokenize", {"prompt": "a"}, 200),
    ],
)
def test_any_page_may_read_answers(
    http: httpx.Client, method: str, path: str, body: object, status: int
) -> None:
    """Whole answers, streams, errors and unknown paths tell that any page may read them."""
    answer = http.request(method, path, json=body, headers={**headers(), **ORIGIN})
    assert (answer.status_code, answer.headers[ALLOWED]) == (status, "*")
    assert answer.headers["access-control-expose-headers"].split(", ") == list(EXPOSED)
    assert "access-control-allow-credentials" not in answer.headers


def test_fault_may_be_read(http: httpx.Client) -> None:
    """A failure on purpose, and what it says of itself, may be read too."""
    asked = {"X-FAULT-KIND": "status", "X-FAULT-STATUS": "503", **ORIGIN}
    answer = http.post(CHAT_PATH, json=chat(), headers=asked)
    assert (answer.status_code, answer.headers[ALLOWED]) == (503, "*")
    assert "x-fault-injected" in answer.headers["access-control-expose-headers"]


def test_preflight_is_answered(http: httpx.Client) -> None:
    """A browser's question before the request is answered with the headers that it names."""
    answer = http.options(CHAT_PATH, headers={**ORIGIN, **ASKED})
    told = answer.headers
    assert (answer.status_code, told[ALLOWED]) == (204, "*")
    assert told["access-control-allow-headers"] == ASKED["Access-Control-Request-Headers"]
    assert "POST" in told["access-control-allow-methods"]


def test_other_options_are_none(http: httpx.Client) -> None:
    """OPTIONS that is no preflight is a 405."""
    assert http.options(CHAT_PATH, headers=ORIGIN).status_code == 405


def test_without_origin_nothing_is_told(http: httpx.Client) -> None:
    """An answer to no browser has no header for one."""
    answer = http.post(CHAT_PATH, json=chat(max_tokens=1), headers=headers())
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", sorted(OPERATORS_PATHS))
def test_operators_pages_are_not_for_other_origins(http: httpx.Client, path: str) -> None:
    """What is for operators is not told to pages of other origins."""
    assert ALLOWED not in http.get(path, headers=ORIGIN).headers


def test_named_origins_alone_are_let_in(narrowed: httpx.Client) -> None:
    """With origins set these are named in the answer, and others are not let in."""
    origins = [PAGE, "http://localhost:5173", "https://other.example", "null", f"{PAGE}.evil"]
    answers = [narrowed.get("/v1/models", headers={"Origin": origin}) for origin in origins]
    asked = {"Origin": "https://other.example", **ASKED}
    assert [answer.headers.get(ALLOWED) for answer in answers] == [*origins[:2], None, None, None]
    assert answers[0].headers["vary"] == "Origin"
    assert ALLOWED not in narrowed.options(CHAT_PATH, headers=asked).headers


def test_cors_can_be_turned_off(closed: httpx.Client) -> None:
    """With no origins no page is let in, and a preflight is a 405."""
    answers = [
        closed.get("/v1/models", headers=ORIGIN),
        closed.options(CHAT_PATH, headers={**ORIGIN, **ASKED}),
    ]
    assert [answer.status_code for answer in answers] == [200, 405]
    assert not any(ALLOWED in answer.headers for answer in answers)
