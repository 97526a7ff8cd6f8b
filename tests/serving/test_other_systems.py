"""Systems that lack what Linux has: the server starts there, and answers the same."""

import json
from pathlib import Path

import pytest

from tests.support.server import PLAIN, Server, args, running_server
from tests.support.wire import CHAT_PATH, chat

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


@pytest.mark.usefixtures("local_only")
def test_server_without_processes_answers_the_same(one_worker: Server, tmp_path: Path) -> None:
    """Without helper processes the server says so, has none, and gives the same answers."""
    (tmp_path / "sitecustomize.py").write_text(NO_PROCESSES)
    with running_server(*args(workers=1), env={"PYTHONPATH": str(tmp_path)}) as server:
        assert server.helpers == []
        found = answers(server)
        assert server.helpers == []
        assert server.log().count("no helper processes on linux") == 1
    assert [status for status, _ in found] == [200, 200, 400, 200, 200]
    assert json.loads(found[0][1]["choices"][0]["message"]["content"])  # type: ignore[index]
    assert found == answers(one_worker)
