"""Bodies in other encodings and types, HTTP/1.0, and the websocket of the Responses API."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pytest
import zstandard
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from conftest import sdk_client
from emulator.apis.responses.websocket import MAX_FRAMES_WAITING, MAX_SOCKETS
from emulator.reading.encodings import decoded
from emulator.transport.uvicorn_seam import MAX_FRAME_BYTES
from schemas import APIError
from tests.support.raw import exchange, received
from tests.support.raw import request as to_send
from tests.support.server import PLAIN, Server, eventually
from tests.support.wire import CHAT_PATH, chat, headers

SMALL = chat("Hello, compressed!", max_tokens=3)
LARGE = chat("word " * 100_000, max_tokens=3)
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "zstd": zstandard.compress,
    "identity": bytes,
}


def sent(server: Server, body: bytes, *, path: str = CHAT_PATH, **fields: str) -> httpx.Response:
    """Post bytes with headers whose names have underscores for dashes."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return PLAIN.post(server.url + path, content=body, headers=named | headers())


# --------------------------------------------------------------------------------------
# Encodings
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODERS)
@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["here", "in a helper"])
def test_encoded_bodies_are_read(server: Server, encoding: str, body: dict[str, object]) -> None:
    """A body in gzip or zstd is answered as the plain one, usage included."""
    data = json.dumps(body).encode()
    plain = sent(server, data, content_type="application/json").json()
    encoded = sent(
        server,
        ENCODERS[encoding](data),
        content_type="application/json",
        content_encoding=encoding,
    )
    assert encoded.status_code == 200
    assert encoded.json()["usage"] == plain["usage"]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/responses/input_tokens", "/tokenize"])
def test_other_endpoints_decode_too(server: Server, path: str) -> None:
    """Whatever reads a body decodes it."""
    body = {"model": "gpt-4", "prompt" if path == "/tokenize" else "input": "Hi"}
    data = gzip.compress(json.dumps(body).encode())
    answer = sent(server, data, path=path, content_encoding="gzip")
    assert answer.status_code == 200


@pytest.mark.parametrize("encoding", ["br", "deflate", "foo", "gzip, zstd"])
def test_other_encodings_are_refused(server: Server, encoding: str) -> None:
    """Another coding is a 415 that names it and those that are decoded."""
    answer = sent(server, b"{}", content_encoding=encoding)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (415, "unsupported_content_encoding")
    assert "gzip, zstd, identity" in error["message"]


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_what_is_not_encoded_as_it_says(server: Server, encoding: str) -> None:
    """Plain JSON that is said to be encoded is a 400 that says so."""
    answer = sent(server, json.dumps(SMALL).encode(), content_encoding=encoding)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_content_encoding")


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_bombs_are_refused(server: Server, encoding: str) -> None:
    """A body that would be larger than a body may be is a 413, however small it comes."""
    bomb = ENCODERS[encoding](b" " * 60_000_000)
    assert len(bomb) < 100_000
    answer = sent(server, bomb, content_encoding=encoding)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_decoding_is_bounded(encoding: str) -> None:
    """No more is decoded than may be, and a byte to know that there is more."""
    data = ENCODERS[encoding](b"x" * 1000)
    assert decoded(data, encoding, 1000) == b"x" * 1000
    assert decoded(data, encoding, 999) is None
    assert decoded(data + data, encoding, 3000) == b"x" * 2000
    with pytest.raises(APIError):
        decoded(b"garbage", encoding, 10)


# --------------------------------------------------------------------------------------
# Types
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/json; charset=utf-8", "Application/JSON", "text/x+json", ""],
)
def test_json_is_taken(server: Server, kind: str) -> None:
    """JSON by any of its names is read, and so is a body of which nothing is said."""
    fields = {"content_type": kind} if kind else {}
    assert sent(server, json.dumps(SMALL).encode(), **fields).status_code == 200


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=a"]
)
@pytest.mark.parametrize("path", [CHAT_PATH, "/v1/responses", "/v1/embeddings", "/tokenize"])
def test_other_types_are_refused(server: Server, kind: str, path: str) -> None:
    """Another type is a 400 in OpenAI's words."""
    answer = sent(server, json.dumps(SMALL).encode(), path=path, content_type=kind)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "unsupported_content_type")
    assert f"'Content-Type: {kind}'" in error["message"]


# --------------------------------------------------------------------------------------
# HTTP/1.0
# --------------------------------------------------------------------------------------


def old_request(body: dict[str, object]) -> bytes:
    """Return a request of HTTP/1.0."""
    data = json.dumps(body).encode()
    asked = [f"{name}: {value}" for name, value in headers(20, 5, 4).items()]
    return to_send("POST", CHAT_PATH, *asked, body=data).replace(b" HTTP/1.1", b" HTTP/1.0", 1)


def test_streams_to_http_1_0_have_no_chunks(server: Server) -> None:
    """A stream to a client of HTTP/1.0 is plain, and ends with the connection."""
    with socket.create_connection(server.address, 30) as connection:
        connection.sendall(old_request(chat(stream=True)))
        head, _, body = received(connection).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    events = body.decode().split("\n\n")
    assert (events[-2], events[-1]) == ("data: [DONE]", "")
    assert all(event.startswith("data: ") for event in events[:-1])


def test_whole_answers_to_http_1_0_tell_their_length(server: Server) -> None:
    """A whole answer to a client of HTTP/1.0 has its length, and is whole."""
    [answer] = exchange(server.address, old_request(chat()))
    assert (answer.status, json.loads(answer.body)["object"]) == (200, "chat.completion")
    assert int(answer.headers["content-length"]) == len(answer.body)


# --------------------------------------------------------------------------------------
# Websockets
# --------------------------------------------------------------------------------------


def opened(server: Server, **extra: str) -> Connection:
    """Open a websocket of the Responses API."""
    url = server.url.replace("http://", "ws://") + "/v1/responses"
    return connect(url, additional_headers=headers(50, 5, 4) | extra, proxy=None)


def create(**fields: object) -> str:
    """Return a frame that creates a response."""
    return json.dumps({"type": "response.create", "model": "gpt-4", "input": "Hi", **fields})


def frames_of(socket_: Connection) -> list[dict[str, object]]:
    """Return the frames of one answer."""
    frames: list[dict[str, object]] = []
    while not frames or frames[-1]["type"] not in ("response.completed", "error"):
        frames.append(json.loads(socket_.recv(30)))
    return frames


def test_answers_over_a_websocket(one_worker: Server) -> None:
    """Requests in turn on one connection get the events of a stream, none before it is due."""
    with opened(one_worker) as socket_:
        for _ in range(2):
            start_s = time.monotonic()
            socket_.send(create())
            frames = frames_of(socket_)
            took_s = time.monotonic() - start_s
            kinds = [frame["type"] for frame in frames]
            assert kinds.count("response.output_text.delta") == 4
            assert [frame["sequence_number"] for frame in frames] == list(range(len(frames)))
            assert took_s >= 0.065


def test_prewarm_generates_nothing(one_worker: Server) -> None:
    """A request that generates nothing ends at once, and the next one goes on from it."""
    tools = [{"type": "function", "name": "shell", "parameters": None}]
    with opened(one_worker, **{"X-TTFT-MS": "60000", "X-TOOL-CALLS": "1"}) as socket_:
        socket_.send(create(generate=False, tools=tools, store=False))
        frames = frames_of(socket_)
    prewarmed: dict[str, Any] = frames[-1]["response"]  # type: ignore[assignment]
    assert {frame["type"] for frame in frames} == {
        "response.created",
        "response.in_progress",
        "response.completed",
    }
    assert (prewarmed["output"], prewarmed["usage"]["output_tokens"]) == ([], 0)


def test_connection_knows_its_latest_response(one_worker: Server) -> None:
    """A request goes on from the response before it on its connection, stored or not; no other."""
    with opened(one_worker) as socket_:
        for _ in range(2):
            socket_.send(create(store=False))
            latest: Any = frames_of(socket_)[-1]["response"]
        socket_.send(create(previous_response_id=latest["id"]))
        answer: Any = frames_of(socket_)[-1]["response"]
    with opened(one_worker) as another:
        another.send(create(previous_response_id=latest["id"]))
        error: Any = frames_of(another)[-1]["error"]
    assert answer["previous_response_id"] == latest["id"] != answer["id"]
    assert error["code"] == "previous_response_not_found"


@pytest.mark.filterwarnings("ignore:connect:DeprecationWarning")  # of websockets, for its client
def test_official_client_connects(one_worker: Server) -> None:
    """OpenAI's client gets its events over a websocket."""
    extra = headers(10, 1, 3)
    kinds: list[str] = []
    with (
        sdk_client(one_worker.url) as client,
        client.responses.connect(extra_headers=extra) as connection,
    ):
        connection.send({"type": "response.create", "model": "gpt-4", "input": "Hi"})
        while not kinds or kinds[-1] != "response.completed":
            kinds.append(connection.recv().type)
    assert kinds.count("response.output_text.delta") == 3


@pytest.mark.parametrize(
    ("frame", "param"),
    [
        ("{", None),
        ("[]", "type"),
        (json.dumps({"type": "response.cancel"}), "type"),
        (json.dumps({"type": "response.create", "model": "gpt-4"}), "input"),
        (create(temperature=3), "temperature"),
    ],
)
def test_bad_frames(one_worker: Server, frame: str, param: str | None) -> None:
    """A bad frame gets an error with its status, and the connection goes on."""
    with opened(one_worker) as socket_:
        socket_.send(frame)
        error = json.loads(socket_.recv(30))
        socket_.send(create())
        assert frames_of(socket_)[-1]["type"] == "response.completed"
    assert (error["type"], error["status"], error["error"]["param"]) == ("error", 400, param)


def test_large_frames(one_worker: Server) -> None:
    """A frame that a helper reads is answered as a small one, and told of what is wrong in it."""
    long = "Hi " * 60_000
    with opened(one_worker) as socket_:
        socket_.send(create(input=long))
        assert frames_of(socket_)[-1]["type"] == "response.completed"
        socket_.send(create(input=long, temperature=3))
        assert frames_of(socket_)[-1]["error"]["param"] == "temperature"  # type: ignore[index]
        socket_.send(json.dumps({"type": "response.cancel", "input": long}))
        assert frames_of(socket_)[-1]["error"]["param"] == "type"  # type: ignore[index]


def test_a_failure_on_purpose(one_worker: Server) -> None:
    """A status on purpose comes as an error with that status."""
    with opened(one_worker, **{"X-FAULT-STATUS": "429"}) as socket_:
        socket_.send(create())
        error = json.loads(socket_.recv(30))
    assert (error["status"], error["error"]["code"]) == (429, "rate_limit_exceeded")


@pytest.mark.parametrize(("frames", "code"), [([b"bytes"], 1003), ([create()] * 40, 1008)])
def test_rules_of_the_connection(one_worker: Server, frames: list[str | bytes], code: int) -> None:
    """Binary frames, and more requests than may wait, end the connection with a reason."""
    assert len(frames) == 1 or len(frames) > MAX_FRAMES_WAITING
    with opened(one_worker, **{"X-TTFT-MS": "60000"}) as socket_:
        with suppress(ConnectionClosed):  # the server need not read all of them
            for frame in frames:
                socket_.send(frame)
        with pytest.raises(ConnectionClosed):
            frames_of(socket_)
    assert socket_.close_code == code


def test_too_large_frames(one_worker: Server) -> None:
    """A frame beyond the bound ends the connection, and says so."""
    with opened(one_worker) as socket_:
        with suppress(ConnectionClosed):
            socket_.send(create(input="a" * MAX_FRAME_BYTES))
        with pytest.raises(ConnectionClosed):
            frames_of(socket_)
    assert socket_.close_code == 1009


def test_sockets_of_a_worker_are_bounded(one_worker: Server) -> None:
    """One websocket more than a worker has is told to come later; others go on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(opened(one_worker)) for _ in range(MAX_SOCKETS)]
        with opened(one_worker) as refused:
            with pytest.raises(ConnectionClosed):
                refused.recv(30)
            assert refused.close_code == 1013
        sockets[0].send(create())
        assert frames_of(sockets[0])[-1]["type"] == "response.completed"


def test_client_that_leaves_ends_its_answer(one_worker: Server) -> None:
    """An answer ends when the client of its websocket goes away."""
    log = len(one_worker.log())
    with opened(one_worker, **{"X-TTFT-MS": "60000"}) as socket_:
        socket_.send(create())
        threading.Event().wait(0.05)
    assert eventually(lambda: "status=499" in one_worker.log()[log:])


def test_other_paths_take_no_websocket(one_worker: Server) -> None:
    """An offer anywhere else is answered as the plain request that it is."""
    offer = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAA=")
    sent_ = to_send("GET", "/v1/models", *offer, close=False)
    [answer] = exchange(
        one_worker.address,
        sent_.replace(b"Upgrade: ", b"Connection: Upgrade\r\nUpgrade: ", 1).replace(
            b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1
        ),
    )
    assert answer.status == 200
