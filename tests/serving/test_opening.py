"""What comes before the first token: the head of a stream, comments, and their refusals."""

import json
import socket
import time
import uuid
from collections.abc import Mapping

import pytest

from conftest import sdk_client
from emulator.emulation.opening import Opening
from emulator.settings import Settings
from schemas import APIError, EmulationHeaders
from tests.support.server import PLAIN, Server, eventually
from tests.support.simulated.client import Simulated, Timed
from tests.support.wire import CHAT_PATH, DONE, Post, chat, headers, post, unread

COMMENT = ": keep-alive"
TTFT_MS = 400


def first_bytes_s(server: Server, sent: Mapping[str, str]) -> tuple[float, bytes]:
    """Return when the first bytes of a stream came, in seconds after the request, and all bytes."""
    with socket.create_connection(server.address, 30) as connection:
        start_s = time.monotonic()
        connection.sendall(Post(chat(stream=True), dict(sent)).encode(server.address[0]))
        data = connection.recv(65_536)
        arrival_s = time.monotonic() - start_s
        while not data.endswith(b"0\r\n\r\n"):
            data += connection.recv(65_536)
    return arrival_s, data


def test_head_leaves_with_the_first_token(one_worker: Server) -> None:
    """With X-HEAD: first-token no byte comes before it is due; without, the head comes at once."""
    held_s, data = first_bytes_s(one_worker, headers(TTFT_MS) | {"X-HEAD": "first-token"})
    assert held_s >= TTFT_MS / 1000
    assert data.startswith(b"HTTP/1.1 200 OK")
    with unread(one_worker.address, [Post(chat(stream=True), headers(600_000))]) as (connection,):
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("failure", [{"X-FAULT-STATUS": "429"}, {"X-TTFT-MS": "soon"}])
def test_failures_keep_their_status(one_worker: Server, failure: dict[str, str]) -> None:
    """A status on purpose and a refusal come as their own status, and at once."""
    sent = headers(60_000) | {"X-HEAD": "first-token"} | failure
    answer = post(one_worker.address, chat(stream=True), sent)
    assert answer.status in (400, 429)
    assert answer.headers["content-type"] == "application/json"


def test_streams_that_fail_hold_their_head_too(one_worker: Server) -> None:
    """A stream that is to break off begins as it was asked to."""
    sent = headers(TTFT_MS) | {"X-HEAD": "first-token", "X-FAULT-KIND": "eof"}
    held_s, _ = first_bytes_s(one_worker, sent | {"X-FAULT-AFTER-TOKENS": "2"})
    assert held_s >= TTFT_MS / 1000


def test_client_that_leaves_while_the_head_is_held(one_worker: Server) -> None:
    """A client that goes away before the head is told in the log as gone."""
    model = f"gone-{uuid.uuid4()}"
    sent = headers(600_000) | {"X-HEAD": "first-token"}
    with unread(one_worker.address, [Post(chat(model=model, stream=True), sent)]):
        pass
    assert eventually(lambda: model in one_worker.log())
    (line,) = [line for line in one_worker.log().splitlines() if model in line]
    assert "status=499" in line


def test_comments_come_by_the_clock(simulated: Simulated) -> None:
    """With X-KEEPALIVE-MS: 100 comments come after 100, 200 and 300 ms, and then the tokens."""
    answer = simulated.stream(headers(TTFT_MS, 5, 3) | {"X-KEEPALIVE-MS": "100"})
    comments_s = [event.arrival_s for event in answer.events if event.data == COMMENT]
    tokens = [e for e in answer.events if e.data not in (COMMENT, DONE) and e.content]
    assert comments_s == pytest.approx([0.1, 0.2, 0.3])
    assert [token.arrival_s for token in tokens] == pytest.approx([0.400, 0.405, 0.410])


@pytest.mark.parametrize("place", ["header", "body"])
def test_places(simulated: Simulated, place: str) -> None:
    """Header and body say the same, and the report tells it."""
    asked = {"keepalive_ms": 30, "emulation_report": True, "ttft_ms": 100}
    if place == "header":
        sent = {f"X-{name.upper().replace('_', '-')}": str(v) for name, v in asked.items()}
        answer = simulated.stream(sent)
    else:
        answer = simulated.stream(emulation=asked)
    last = json.loads(answer.events[-2].data)
    assert last["emulation"]["keepalives"] == 3
    held = simulated.stream(headers(100) | {"X-HEAD": "first-token", "X-EMULATION-REPORT": "true"})
    assert held.report["head_ms"] == {"asked": 100, "actual": 100}


def test_official_client_reads_on(one_worker: Server) -> None:
    """OpenAI's client skips comments, and gets the whole answer."""
    extra = headers(200, 1, 12) | {"X-KEEPALIVE-MS": "20"}
    with sdk_client(one_worker.url) as client:
        chunks = list(
            client.chat.completions.create(
                model="gpt-4",
                messages=[{"role": "user", "content": "Hi"}],
                stream=True,
                extra_headers=extra,
            )
        )
    assert len([c for c in chunks if c.choices and c.choices[0].delta.content]) == 12


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ({"X-HEAD": "later"}, "X-HEAD"),
        ({"X-KEEPALIVE-MS": "-1"}, "X-KEEPALIVE-MS"),
        ({"X-KEEPALIVE-MS": "60001"}, "X-KEEPALIVE-MS"),
        ({"X-HEAD": "first-token", "X-KEEPALIVE-MS": "10"}, "X-KEEPALIVE-MS"),
    ],
)
def test_bad_values(one_worker: Server, sent: dict[str, str], name: str) -> None:
    """A bad value and a contradiction are a 400 that names the header."""
    answer = PLAIN.post(one_worker.url + CHAT_PATH, json=chat(stream=True), headers=sent)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


def opening(asked: Mapping[str, object], **settings: object) -> Opening | None:
    """Return how a stream begins that asks for this on a server with these settings."""
    fields = {f"X-{n.upper().replace('_', '-')}": str(value) for n, value in asked.items()}
    return Opening.of(EmulationHeaders.model_validate(fields), Settings(**settings))


def test_settings_are_defaults() -> None:
    """Settings count where a request says nothing, and what it says wins over them."""
    assert opening({}) is None
    assert opening({}, head="first-token") == Opening(holds_head=True, keepalive_s=0)
    assert opening({}, keepalive_ms=50) == Opening(holds_head=False, keepalive_s=0.05)
    assert opening({"head": "accepted"}, head="first-token") is None
    held = opening({"head": "first-token"}, keepalive_ms=50)
    assert held == Opening(holds_head=True, keepalive_s=0)
    with pytest.raises(APIError):
        opening({"keepalive_ms": 50}, head="first-token")


def test_contradicting_settings_are_refused() -> None:
    """A server whose heads wait cannot send comments before them."""
    with pytest.raises(ValueError, match="keepalive_ms must be 0"):
        Settings(head="first-token", keepalive_ms=10)


def test_engine_times_comments_too(simulated_paper: Simulated) -> None:
    """Where an engine makes the times, comments come until it has made the first token."""
    extra = {"X-KEEPALIVE-MS": "20", "X-OUTPUT-LENGTH": "3"}
    (answer,) = simulated_paper.answers(Timed(chat("word " * 1000, stream=True), extra))
    data = [event.data for event in answer.events]
    assert data[0] == COMMENT
    assert data[-1] == DONE
    assert COMMENT not in data[data.count(COMMENT) :]
