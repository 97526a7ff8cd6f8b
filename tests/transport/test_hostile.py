"""Bad requests: each gets an answer that names the fault, and costs nobody else anything."""

import http.client
import json
import math
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import httpx
import pytest

from benchmarks.hostile import Bounds, run_row
from benchmarks.kit.attacks import ATTACKS, refused
from benchmarks.kit.server import Server as Attacked
from benchmarks.kit.watch import gaps
from tests.support.mutations import Request, mutated
from tests.support.server import REPOSITORY, Server, clean_environment

QUICK, ALL = 1_500, 8_000
CLIENTS = 4
ENVELOPE = {"message", "type", "param", "code"}
ERROR_EVENT = re.compile(rb'^data: \{"error"|^event: (error|response\.failed)', re.MULTILINE)


# --------------------------------------------------------------------------------------
# Mutated requests
# --------------------------------------------------------------------------------------


class KeptAlive:
    """A connection that is opened again only where the server said that it closes it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def ask(self, request: Request) -> tuple[int, str, bytes]:
        """Send a request; return status, media type and body of its answer.

        Raises:
            OSError, http.client.HTTPException: There is no whole answer.
        """
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=30)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._socket.sendall(request.encode())
            with http.client.HTTPResponse(self._socket, method=request.method) as response:
                response.begin()
                body = response.read()
                is_last = response.will_close
        except BaseException:
            self.close()
            raise
        if is_last:
            self.close()
        return response.status, response.headers.get_content_type(), body

    def close(self) -> None:
        """Close it."""
        if self._socket:
            self._socket.close()
            self._socket = None


@dataclass(frozen=True)
class Verdict:
    """What is wrong with the answer to a mutated request."""

    number: int
    problem: str
    request: bytes
    answer: bytes


def problem_of(method: str, status: int, media: str, body: bytes) -> str:
    """Return what is wrong with an answer, "" if nothing is."""
    if status >= 500 and status != 503:
        return str(status)
    if method == "HEAD" or status == 204:
        return ""
    if status >= 300:
        try:
            return "" if set(json.loads(body)["error"]) == ENVELOPE else f"{status} bare"
        except (ValueError, TypeError, KeyError):
            return f"{status} bare"
    return "an error in a stream" if ERROR_EVENT.search(body) else _ill_formed(media, body)


def _ill_formed(media: str, body: bytes) -> str:
    if media == "application/json":
        try:
            json.loads(body)
        except ValueError:
            return "a 200 that is no JSON"
    return ""


def ask_all(address: tuple[str, int], numbers: Sequence[int]) -> list[Verdict]:
    """Ask each mutated request, one after another, and return what was wrong."""
    found = []
    with closing(KeptAlive(address)) as connection:
        for number in numbers:
            request = mutated(number)
            answer = b""
            try:
                status, media, answer = connection.ask(request)
                problem = problem_of(request.method, status, media, answer)
            except (OSError, http.client.HTTPException) as error:
                problem = f"cut: {error!r}"
            if problem:
                found.append(Verdict(number, problem, request.encode()[:1000], answer[:300]))
    return found


def check_mutated(server: Server, numbers: range) -> None:
    """Ask mutated requests from some clients at once, and look what they did to the server."""
    workers, log_start = server.workers, len(server.log())
    with ThreadPoolExecutor(CLIENTS) as pool:
        parts = [numbers[first::CLIENTS] for first in range(CLIENTS)]
        found = [v for part in pool.map(ask_all, [server.address] * CLIENTS, parts) for v in part]
    log = server.log()[log_start:]
    assert found == []
    assert "Traceback" not in log
    assert re.findall(r"[^\n]*[\0-\x09\x0b-\x1a\x1c-\x1f\x7f][^\n]*", log) == []
    assert server.workers == workers
    assert httpx.get(f"{server.url}/health", trust_env=False).status_code == 200


def test_mutated_requests_are_answered(logged_server: Server) -> None:
    """Whatever is wrong with a request, the answer is OpenAI's envelope and no fault of ours."""
    check_mutated(logged_server, range(QUICK))


@pytest.mark.slow
def test_many_mutated_requests_are_answered(logged_server: Server) -> None:
    """The same for many more."""
    check_mutated(logged_server, range(QUICK, ALL))


# --------------------------------------------------------------------------------------
# What one client costs the others
# --------------------------------------------------------------------------------------

# What an attack may cost others in time is for `benchmarks.hostile` on a quiet machine.
UNTIMED = Bounds(0.2, 0.3, p99_ms=math.inf, largest_ms=math.inf, neighbour_s=math.inf)
TELLING = ("empty-messages-3mb", "leaving")  # a large body, and many clients
MORE = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("unknown-key-6mb", "model-stream", "prompt-1mb")
]


@pytest.mark.parametrize("name", [*TELLING, *MORE])
def test_an_attack_gets_its_answers_and_leaves_nothing(one_worker: Server, name: str) -> None:
    """Each request of an attack gets its own answer, a neighbour its own, and memory is let go."""
    pids = tuple(worker.pid for worker in one_worker.workers)
    server = Attacked("one worker", *one_worker.address, worker_pids=pids)
    assert run_row(server, name, UNTIMED).faults == []


@pytest.mark.slow
def test_benchmark_of_attacks(local_only: None) -> None:  # noqa: ARG001 - skips
    """The benchmark starts a server, attacks it by two at once, and prints that it holds."""
    bounds = ("--p99-ms", "--largest-ms", "--neighbour-s")
    untimed = [word for bound in bounds for word in (bound, "inf")]
    command = ["-m", "benchmarks.hostile", "--attackers", "2", "--row", "pipelined", *untimed]
    ended = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "holds" in ended.stdout


def test_a_gap_counts_in_every_window_that_it_reaches_into() -> None:
    """A freeze that outlasts the window is the window's largest gap, in full."""
    arrivals = [[n * 20_000_000 for n in (0, 1, 2, 3, 53, 54)]]
    assert gaps(arrivals, 0, 50_000_000).largest_ms == 20
    assert gaps(arrivals, 50_000_000, 90_000_000).largest_ms == 1000
    assert gaps(arrivals, 1_061_000_000, 1_079_000_000).largest_ms == 20


def test_only_what_refuses_is_a_refusal() -> None:
    """A fault of the server's, a cut and silence are none."""
    assert [status for status in (-1, 0, 200, 400, 431, 499, 500, 502, 503) if refused(status)] == [
        *(400, 431, 499, 503)
    ]
    assert ATTACKS["prompt-10mb"].allowed(200)
    assert not ATTACKS["prompt-10mb"].allowed(400)
