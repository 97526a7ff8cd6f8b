"""Systems that lack what Linux has: the server starts there, and answers the same."""

import json
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from tests.support.server import PLAIN, REPOSITORY, Server, args, clean_environment, running_server
from tests.support.servers.ahead import shared
from tests.support.wire import CHAT_PATH, chat

# What Windows does not have; the libraries of others are loaded before it is taken away.
IMPORT_ALL = """
import bentoml, openai, prometheus_client, redis.asyncio, starlette, tiktoken, uvicorn
import multiprocessing.connection, os, pkgutil, signal, socket, sys, tempfile
from bentoml._internal.server import http_app
from uvicorn.protocols.http import auto, httptools_impl

for module in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[module] = None
for module, names in {
    os: ("closerange", "fork", "memfd_create", "nice", "preadv", "sysconf", "wait", "waitpid"),
    signal: ("SIGALRM", "SIGBUS", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGXCPU"),
    socket: ("AF_UNIX", "SOCK_SEQPACKET", "recv_fds", "send_fds"),
}.items():
    for name in names:
        vars(module).pop(name, None)
sys.platform = "win32"

import emulator
for module in pkgutil.walk_packages(emulator.__path__, "emulator."):
    if module.name.rpartition(".")[2] not in {"bounds", "nursery", "processes"}:
        __import__(module.name)
import schemas, tokenizer
"""

# As on macOS.
NO_PROCESSES = """
import errno, socket

def socketpair(family=socket.AF_UNIX, kind=socket.SOCK_STREAM, *rest, pair=socket.socketpair):
    if kind == socket.SOCK_SEQPACKET:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")
    return pair(family, kind, *rest)

socket.socketpair = socketpair
"""

# What helpers do: each with a seed, or without chance.
ORDERS: list[tuple[str, dict[str, object]]] = [
    (CHAT_PATH, chat("json", seed=1, response_format={"type": "json_object"})),
    (CHAT_PATH, chat("hello " * 40_000, seed=2)),
    (CHAT_PATH, chat("hello " * 40_000, temperature=9)),
    ("/v1/embeddings", {"model": "text-embedding-3-small", "input": ["some words"] * 1500}),
    ("/tokenize", {"prompt": "hello " * 10_000}),
]


def test_every_room_is_imported_without_posix() -> None:
    """All but what only helper processes need can be imported where POSIX's modules are not."""
    ended = subprocess.run(  # noqa: S603 - our own Python
        [sys.executable, "-c", IMPORT_ALL],
        cwd=REPOSITORY,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def answers(server: Server) -> list[tuple[int, object]]:
    """Return status and body of what helpers do, without what is random in it."""
    found = []
    for path, body in ORDERS:
        response = PLAIN.post(server.url + path, json=body, headers={"X-TTFT-MS": "0"})
        content = response.json()
        for name in ("id", "created"):
            content.pop(name, None)
        found.append((response.status_code, content))
    return found


@shared("module")
def without_processes(folder: Path) -> AbstractContextManager[Server]:
    """Yield a server on a system that lets it have no helper processes."""
    (folder / "sitecustomize.py").write_text(NO_PROCESSES)
    return running_server(*args(workers=1), env={"PYTHONPATH": str(folder)})


def test_server_without_processes_answers_the_same(
    one_worker: Server, without_processes: Server
) -> None:
    """Without helper processes the server says so, has none, and gives the same answers."""
    server = without_processes
    assert server.helpers == []
    found = answers(server)
    assert server.helpers == []
    assert server.log().count("no helper processes on linux") == 1
    assert [status for status, _ in found] == [200, 200, 400, 200, 200]
    assert json.loads(found[0][1]["choices"][0]["message"]["content"])  # type: ignore[index]
    assert found == answers(one_worker)
