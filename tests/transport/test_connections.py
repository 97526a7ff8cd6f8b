"""What a connection may ask of the server before a request is one."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from operator import sub
from pathlib import Path

import psutil
import pytest

from emulator.transport.bounded_protocol import (
    MAX_CLOSED_AT_ONCE,
    MAX_HEADER_BYTES,
    MAX_HEADERS_BYTES,
    MAX_URL_BYTES,
    MAX_WAITING,
)
from tests.support.raw import (
    TIMEOUT_S,
    Reply,
    ended,
    exchange,
    received,
    replies,
    request,
    statuses,
)
from tests.support.reference import here_s, least, watched_machine
from tests.support.server import Server, eventually
from tests.support.wire import CHAT_PATH, Post, chat, headers, local_ports

# The CPU that a fast machine may take for a client that sends too much: no stream waits longer.
MAX_CPU_S = 0.2

BODY = json.dumps(chat("Hello", max_tokens=1)).encode()
COMPLETIONS = "openai_emulator_completions_total"
BODY_OF_MANY = json.dumps(chat("Hello")).encode()
HEALTH = request("GET", "/health", close=False)
NO_TIME, ITL, LONG = "X-TTFT-MS: 0", "X-ITL-MS: 0", "X-OUTPUT-LENGTH: 131072"
KEEP_ALIVE_S = 5.0  # uvicorn's own
H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAA")
CHUNKED = ("Transfer-Encoding: chunked", NO_TIME)


def chat_request(*lines: str, close: bool = False) -> bytes:
    """Return a request for one token at once."""
    return request("POST", CHAT_PATH, NO_TIME, *lines, body=BODY, close=close)


def only(answers: list[Reply]) -> Reply:
    """Return the one answer, which must end the connection."""
    (answer,) = answers
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"
    return answer


# --------------------------------------------------------------------------------------
# Sizes
# --------------------------------------------------------------------------------------


def test_headers_at_the_bounds_are_served(one_worker: Server) -> None:
    """The longest value, the longest URL and many headers of 60 KB are served."""
    value = f"X-Long: {'a' * MAX_HEADER_BYTES}"
    many = [f"X-Long-{i}: {'a' * 6_000}" for i in range(10)]
    path = "/health?" + "a" * (MAX_URL_BYTES - len("/health?"))
    asked = [request("GET", "/health", value), request("GET", "/health", *many)]
    answers = [exchange(one_worker.address, one) for one in [*asked, request("GET", path)]]
    assert [statuses(answer) for answer in answers] == [[200]] * 3


@pytest.mark.parametrize("before", [b"", HEALTH], ids=["first", "after another"])
def test_longer_header_is_refused(one_worker: Server, before: bytes) -> None:
    """A value of one byte more is a 431 that names the header, also in a second request."""
    value = f"X-Long: {'a' * (MAX_HEADER_BYTES + 1)}"
    *_, answer = exchange(one_worker.address, before + request("GET", "/health", value))
    assert (answer.status, answer.headers["connection"]) == (431, "close")
    assert (answer.error["param"], answer.error["code"]) == ("x-long", "headers_too_large")
    assert (
        f"at most {MAX_HEADER_BYTES} bytes, but got {MAX_HEADER_BYTES + 1}"
        in answer.error["message"]
    )


def test_many_tiny_headers_are_served(one_worker: Server) -> None:
    """More headers than are parsed at once are all taken, and so are the body and what follows."""
    many = [f"{i:x}:" for i in range(6000)]
    asked = chat_request(*many)
    whole, after = exchange(one_worker.address, asked + request("GET", "/health"))
    assert json.loads(whole.body)["usage"]["completion_tokens"] == 1
    assert after.status == 200


def test_more_headers_are_refused(one_worker: Server) -> None:
    """Many headers that are too large together are a 431."""
    many = [f"X-Many-{i}: {'a' * 1_000}" for i in range(70)]
    answer = only(exchange(one_worker.address, request("GET", "/health", *many)))
    assert (answer.status, answer.error["code"]) == (431, "headers_too_large")
    assert str(MAX_HEADERS_BYTES) in answer.error["message"]


def test_longer_url_is_refused(one_worker: Server) -> None:
    """A longer URL is a 414."""
    answer = only(exchange(one_worker.address, request("GET", "/" + "a" * MAX_URL_BYTES)))
    assert (answer.status, answer.error["code"]) == (414, "url_too_long")


@pytest.mark.parametrize(
    ("begin", "status"),
    [
        (b"GET /health HTTP/1.1\r\nHost: a\r\nX-Endless: ", 431),
        (b"GET /", 414),
        (b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
         b"0\r\nX-Endless: ", 431),
    ],
    ids=["header", "url", "trailer"],
)  # fmt: skip
def test_endless_header_costs_nobody_anything(
    one_worker: Server, begin: bytes, status: int
) -> None:
    """50 MB of a header, a URL or a trailer are refused, and take neither memory nor time."""
    [worker] = one_worker.workers
    before = worker.memory_info().rss

    def refuse() -> None:
        answer = only(exchange(one_worker.address, begin + b"a" * 50_000_000))
        assert answer.status == status

    most_s = here_s(MAX_CPU_S)
    assert least(lambda: taken_s(worker, refuse), below=most_s) < most_s
    assert worker.memory_info().rss - before < 20_000_000


def taken_s(worker: psutil.Process, act: Callable[[], None]) -> float:
    """Return the CPU time that a worker takes while something is done, in seconds."""
    before_s = sum(worker.cpu_times()[:2])
    act()
    return float(sum(worker.cpu_times()[:2]) - before_s)


@contextmanager
def longest_gap(server: Server) -> Iterator[Callable[[], float]]:
    """Read a stream of 10 ms while the body runs; yield what tells its longest gap then, in s.

    What the machine itself did is taken off.
    """
    with ThreadPoolExecutor(1) as pool, watched_machine() as machine:
        asked = headers(0, 10, 2000)
        with socket.create_connection(server.address, TIMEOUT_S) as connection:
            connection.sendall(Post(chat(stream=True), asked).encode("localhost"))
            assert connection.recv(65_536)
            watched = pool.submit(reads_s, connection)
            arrivals_s: list[float] = []
            yield lambda: max(map(sub, arrivals_s[1:], arrivals_s)) - machine.worst_s
            connection.shutdown(socket.SHUT_RD)
            arrivals_s += watched.result()


def reads_s(connection: socket.socket) -> list[float]:
    """Return when something came, until nothing will."""
    times_s = [time.monotonic()]
    while connection.recv(65_536):
        times_s.append(time.monotonic())
    return [*times_s, time.monotonic()]


# --------------------------------------------------------------------------------------
# Requests that wait
# --------------------------------------------------------------------------------------


def test_some_requests_may_wait(one_worker: Server) -> None:
    """As many requests as may wait are all answered, in their order."""
    asked = HEALTH * MAX_WAITING + request("GET", "/v1/models")
    answers = exchange(one_worker.address, asked)
    assert statuses(answers) == [200] * (MAX_WAITING + 1)
    assert json.loads(answers[-1].body)["object"] == "list"


def test_flood_of_requests_costs_nobody_anything(one_worker: Server) -> None:
    """Of 200,000 requests at once the first are answered, the rest is a 400."""
    [worker] = one_worker.workers
    before = worker.memory_info().rss

    def flood() -> None:
        *answers, refused = exchange(one_worker.address, HEALTH * 200_000)
        assert statuses(answers) == [200] * (MAX_WAITING + 1)
        assert (refused.status, refused.error["code"]) == (400, "too_many_waiting_requests")

    most_s = here_s(MAX_CPU_S)
    assert least(lambda: taken_s(worker, flood), below=most_s) < most_s
    assert worker.memory_info().rss - before < 20_000_000


# --------------------------------------------------------------------------------------
# Offers to change to another protocol
# --------------------------------------------------------------------------------------

OFFERS = {
    "h2c": H2C,
    "capitals": ("connection: keep-alive ,  UPGRADE", "uPgRaDe:   H2C  "),
    "websocket": ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "several": ("Upgrade: h2c, websocket", "Connection: upgrade"),
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS.keys())
@pytest.mark.parametrize("size", [1_000_000, 11, 1], ids=["whole", "in parts", "in bytes"])
def test_offers_are_ignored(one_worker: Server, offer: tuple[str, ...], size: int) -> None:
    """Requests with an offer keep their bodies, pipelined and split over packets too."""
    data = chat_request(*offer) * 2 + chat_request("Connection: close")
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    answers = exchange(one_worker.address, *parts)
    assert statuses(answers) == [200] * 3
    assert {json.loads(a.body)["object"] for a in answers} == {"chat.completion"}


def test_offer_with_a_chunked_body_is_ignored(one_worker: Server) -> None:
    """A body in chunks is whole too, and so is a request without a body."""
    head = request("POST", CHAT_PATH, *CHUNKED, *H2C, close=False)
    chunks = b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (BODY[:5], len(BODY) - 5, BODY[5:])
    asked = request("GET", "/health", *H2C, close=False) + head + chunks
    assert statuses(exchange(one_worker.address, asked + request("GET", "/health"))) == [200] * 3


# --------------------------------------------------------------------------------------
# What is no request
# --------------------------------------------------------------------------------------


def test_tiny_chunks_are_put_together(one_worker: Server) -> None:
    """A body in chunks of a byte, fed in many turns, is whole, and so is the request after it."""
    body = json.dumps(chat("word " * 12_000, max_tokens=1)).encode()
    head = request("POST", CHAT_PATH, *CHUNKED, close=False)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    answers = exchange(one_worker.address, head + chunks + chat_request(close=True))
    assert statuses(answers) == [200, 200]
    assert json.loads(answers[0].body)["usage"]["prompt_tokens"] > 12_000


def test_body_that_is_not_read_leaves_nothing(one_worker: Server) -> None:
    """A large body whose headers are refused leaves no descriptor in the worker."""
    [worker] = one_worker.workers

    def spools() -> int:
        names = []
        for fd in Path(f"/proc/{worker.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # it was closed meanwhile
                names.append(fd.readlink().name)
        return sum(name.startswith("memfd:request") for name in names)

    large = request("POST", CHAT_PATH, NO_TIME, NO_TIME, body=b" " * 2_000_000)
    assert [statuses(exchange(one_worker.address, large)) for _ in range(5)] == [[400]] * 5
    assert eventually(lambda: spools() == 0)


def test_tiny_chunks_cost_nobody_anything(one_worker: Server) -> None:
    """While 2 MB come in chunks of a byte, a stream has no gap as long as they take to parse."""
    head = request("POST", CHAT_PATH, *CHUNKED)
    data = head + b"1\r\n \r\n" * 2_000_000

    def gap_s() -> float:
        sent, until_s = 0, time.monotonic() + 0.5
        with (
            longest_gap(one_worker) as gap,
            socket.create_connection(one_worker.address, TIMEOUT_S) as connection,
        ):
            connection.settimeout(0.1)
            while time.monotonic() < until_s or sent < 1_000_000:
                with suppress(TimeoutError):
                    sent += connection.send(data[sent : sent + (1 << 20)])
        return gap()

    assert least(gap_s, below=0.06) < 0.06


def test_trailers_are_no_headers(one_worker: Server) -> None:
    """A header after a chunked body counts for nothing."""
    head = request("POST", CHAT_PATH, *CHUNKED)
    body = b"%x\r\n%b\r\n0\r\nX-OUTPUT-LENGTH: nonsense\r\n\r\n" % (len(BODY), BODY)
    in_one = exchange(one_worker.address, head + body)
    apart = exchange(one_worker.address, head, body[:-30], body[-30:])
    assert statuses(in_one) == statuses(apart) == [200]


MALFORMED = {
    "words": b"HELLO SERVER\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303"),
    "two lengths": request("POST", CHAT_PATH, "Content-Length: 1", "Content-Length: 2"),
    "smuggling": request("POST", CHAT_PATH, "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "chunk": request("POST", CHAT_PATH, *CHUNKED) + b"zz\r\n",
    "CONNECT": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "path": b"GET \xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_request_is_refused(one_worker: Server, data: bytes) -> None:
    """What is no HTTP is a 400 in OpenAI's envelope, alone or after a request."""
    alone = only(exchange(one_worker.address, data))
    first, second = exchange(one_worker.address, chat_request() + data)
    assert (alone.status, alone.error["code"]) == (400, "malformed_request")
    assert statuses([first, second]) == [200, 400]
    assert second.headers["connection"] == "close"
    assert "Traceback" not in one_worker.log()


def test_junk_in_host_is_no_fault_of_the_server(one_worker: Server) -> None:
    """A Host that is none does not break the answer of an unknown path."""
    asked = b"GET /v1/x HTTP/1.1\r\nHost: [\r\nConnection: close\r\n\r\n"
    assert statuses(exchange(one_worker.address, asked)) == [404]


# --------------------------------------------------------------------------------------
# Ends
# --------------------------------------------------------------------------------------


def test_crowd_that_leaves_is_let_go(one_worker: Server) -> None:
    """Of more clients than are let go at once every connection is closed, and every stream ends."""
    asked = request(
        "POST", CHAT_PATH, "X-TTFT-MS: 60000", body=json.dumps(chat("Hello", stream=True)).encode()
    )

    def active_streams() -> float:
        return one_worker.metrics().total("openai_emulator_active_streams")

    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(one_worker.address, TIMEOUT_S))
            for _ in range(2 * MAX_CLOSED_AT_ONCE)
        ]
        for client in clients[::2]:
            client.sendall(asked)
        ports = local_ports(clients)
        assert eventually(lambda: ports <= one_worker.client_ports)
        assert eventually(lambda: active_streams() >= MAX_CLOSED_AT_ONCE)
    assert eventually(lambda: active_streams() == 0)
    assert eventually(lambda: not ports & one_worker.client_ports)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (chat_request(close=True), 200),
        (request("POST", CHAT_PATH, f"Content-Length: {10**9}", close=False), 413),
    ],
    ids=["the client's wish", "a body that is not read"],
)
def test_whole_answer_is_the_last(one_worker: Server, asked: bytes, status: int) -> None:
    """An answer after which the connection closes says so once, and ends it at once."""
    answer = ended(one_worker.address, asked)
    assert answer.after_s < KEEP_ALIVE_S
    assert statuses(answer.replies) == [status]
    with socket.create_connection(one_worker.address, TIMEOUT_S) as connection:
        connection.sendall(asked)
        assert received(connection).count(b"connection: close\r\n") == 1


def test_answers_wait_for_a_client_that_does_not_read(one_worker: Server) -> None:
    """Whole answers that nobody takes are not made, but for some that fill the buffers."""
    before = one_worker.metrics().total(COMPLETIONS)
    asked, closing = (
        request("POST", CHAT_PATH, NO_TIME, ITL, LONG, body=BODY_OF_MANY, close=last)
        for last in (False, True)
    )
    count = MAX_WAITING - 1

    def all_are_made() -> bool:
        return one_worker.metrics().total(COMPLETIONS) - before == count

    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.connect(one_worker.address)
        connection.sendall(asked * (count - 1) + closing)  # 9 MB of answers
        assert not eventually(all_are_made, timeout_s=0.3)
        assert statuses(replies(received(connection))) == [200] * count
        assert eventually(all_are_made)


# --------------------------------------------------------------------------------------
# Time
# --------------------------------------------------------------------------------------


def test_idle_connection_is_left_alone(one_worker: Server) -> None:
    """A connection without a byte is not ended, and serves a request after the time."""
    with socket.create_connection(one_worker.address, TIMEOUT_S) as connection:
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.sendall(request("GET", "/health"))
        assert statuses(replies(received(connection))) == [200]


def test_headers_that_come_slowly_are_served(one_worker: Server) -> None:
    """Headers that arrive byte by byte within the time are served."""
    asked = request("GET", "/health")
    assert statuses(exchange(one_worker.address, *(bytes([byte]) for byte in asked))) == [200]
