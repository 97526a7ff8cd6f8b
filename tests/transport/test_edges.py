"""What is around the API: unknown paths, the page at the root, faults of our own, the log."""

import re
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from emulator.transport.bounded_protocol import HEADERS_TIMEOUT_S
from tests.support.raw import Ended, exchange, request
from tests.support.server import REPOSITORY, Server, args, eventually, running_server
from tests.support.servers.ahead import shared
from tests.support.wire import CHAT_PATH, chat, headers, post

BROKEN = """
from emulator.apis.completions.api import CompletionsAPI
from emulator.apis.models import api as lookups


async def fail(*_):
    raise RuntimeError("a fault\\n\\x1b[31mof our own")


CompletionsAPI.take = fail
lookups.list_models = fail

from service import OpenAIEmulator
"""


@shared("module")
def broken(folder: Path) -> AbstractContextManager[Server]:
    """Yield a server with a fault of its own in two of its routes."""
    (folder / "broken.py").write_text(BROKEN)
    path = {"PYTHONPATH": str(REPOSITORY)}
    target = "broken.py:OpenAIEmulator"
    return running_server(*args(workers=1), target=target, cwd=folder, env=path)


# --------------------------------------------------------------------------------------
# Faults of our own
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/completions"), ("GET", "/v1/models")])
def test_fault_ends_the_connection_and_says_so(broken: Server, method: str, path: str) -> None:
    """A 500 tells that the connection ends, and the client's next request is served."""
    before = broken.log().count("Traceback")
    with httpx.Client(base_url=broken.url, trust_env=False) as client:
        answers = [client.request(method, path), client.get("/health"), client.get("/health")]
    assert [answer.status_code for answer in answers] == [500, 200, 200]
    assert answers[0].headers["connection"] == "close"
    assert answers[0].json()["error"]["type"] == "server_error"
    assert eventually(lambda: broken.log().count("Traceback") > before)
    assert broken.log().count("Traceback") == before + 1


def test_traceback_is_printable(broken: Server) -> None:
    """What an exception says cannot act on the terminal that shows the log."""
    httpx.post(f"{broken.url}/v1/completions", trust_env=False)
    assert eventually(lambda: r"a fault" in broken.log())
    assert "\x1b" not in broken.log()


# --------------------------------------------------------------------------------------
# Unknown paths
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/chat/completions"),
        ("POST", "/v1/v1/chat/completions"),
        ("POST", "//v1/responses"),
        ("GET", "/models"),
    ],
)
def test_wrong_base_url_is_told_the_right_one(http: httpx.Client, method: str, path: str) -> None:
    """A path of OpenAI's at the wrong place is a 404 that says what base URL is right."""
    answer = http.request(method, str(http.base_url).rstrip("/") + path)
    right = f"Did you mean the base URL {str(http.base_url).rstrip('/')}/v1?"
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == f"Invalid URL ({method} {path}). {right}"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1", 404),
        ("GET", "/v1/", 404),
        ("GET", "/health/", 404),
        ("GET", "/livez/", 404),
        ("GET", "/nothing", 404),
        ("GET", "/docs.json", 404),
        ("GET", "/static_content/index.css", 404),
        ("POST", "/", 405),
        ("POST", "/livez", 405),
        ("DELETE", "/metrics", 405),
        ("PUT", "/schema.json", 405),
        ("GET", "/tokenize", 405),
        ("POST", "/docs", 405),
    ],
)
def test_every_path_answers_in_the_envelope(
    http: httpx.Client, method: str, path: str, status: int
) -> None:
    """Paths and methods that are not there are OpenAI's errors everywhere, and no redirects."""
    answer = http.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


# --------------------------------------------------------------------------------------
# The page at the root
# --------------------------------------------------------------------------------------


def test_page_at_the_root_links_what_is_there(http: httpx.Client) -> None:
    """Each link of the page leads to something."""
    links = re.findall(r'<a href="(.*?)"', http.get("/").text)
    assert {link: http.get(f"/{link}").status_code for link in links} == dict.fromkeys(links, 200)
    assert {"docs", "metrics", "v1/models", "health"} <= {*links}


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_name_no_other_host(http: httpx.Client, path: str) -> None:
    """The pages name no other host, and tell the browser to ask none."""
    page = http.get(path)
    assert not re.search(r"https?:|//\w", page.text)
    assert page.headers["content-security-policy"].startswith("default-src ")


# --------------------------------------------------------------------------------------
# The log, headers
# --------------------------------------------------------------------------------------


def test_log_is_printable(one_worker: Server) -> None:
    """Control characters of paths, headers and models are escaped in the log."""
    for line in (
        request("GET", "/v1/path%0aforged%1b[31m%c2%9b"),
        request("GET", "/metrics%0a%1b[2J%7f"),
        request("POST", "/v1/responses/x%0a%0dforged/cancel", "Content-Type: a\x9bb"),
    ):
        exchange(one_worker.address, line)
    post(one_worker.address, chat(model="model\n\x1b[31mforged\x9b\u2028"), headers())
    assert eventually(lambda: "model\\n" in one_worker.log())
    lines = one_worker.log().split("\n")
    assert all(line.isprintable() for line in lines)
    assert not [line for line in lines if line.startswith("forged")]
    assert [line for line in lines if r"path=/v1/path\nforged\x1b[31m" in line]


def test_headers_that_do_not_end_are_refused(
    unended_headers: Mapping[str, Future[Ended]],
) -> None:
    """Headers that do not arrive within 10 s of their first byte are a 408, and end."""
    ends = {name: future.result() for name, future in unended_headers.items()}
    last = {name: end.replies[-1].status for name, end in ends.items()}
    assert last == dict.fromkeys(ends, 408)
    assert {end.replies[-1].headers["connection"] for end in ends.values()} == {"close"}
    assert {end.replies[-1].error["code"] for end in ends.values()} == {"request_timeout"}
    assert min(end.after_s for end in ends.values()) >= HEADERS_TIMEOUT_S - 0.1
    assert max(end.after_s for end in ends.values()) < HEADERS_TIMEOUT_S + 10


@pytest.mark.parametrize("name", ["X-TTFT-MS", "X-FAULT-KIND", "x-output-length"])
def test_repeated_header_is_refused(one_worker: Server, name: str) -> None:
    """A header of ours that comes twice, in any spelling, is a 400 that names it."""
    lines = [f"{name}: 1", f"{name.title()}: 1"]
    [answer] = exchange(
        one_worker.address, request("POST", CHAT_PATH, *lines, body=b'{"model":"m","messages":[]}')
    )
    assert answer.status == 400
    [plain] = exchange(one_worker.address, _chat(*lines))
    assert (plain.status, plain.error["param"]) == (400, name.upper())
    assert "but got 2 headers" in plain.error["message"]


def _chat(*lines: str) -> bytes:
    body = b'{"model": "gpt-4", "messages": [{"role": "user", "content": "a"}]}'
    return request("POST", CHAT_PATH, *lines, body=body)
