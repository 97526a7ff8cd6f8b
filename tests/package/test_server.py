"""Servers that tests start: each ends with those who use it, however they end."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from openai_api_emulator import Emulator, Server, ServerError
from openai_api_emulator.running.keeper import end
from tests.support.server import PLAIN, eventually, is_alive

pytestmark = pytest.mark.usefixtures("importable")

USE = """
import sys
from pathlib import Path
from typing import Any
from openai_api_emulator import Server

with Server(folder=Path(sys.argv[1])) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""
KEEPER = "openai_api_emulator.running.keeper"
# Ends in no other way than by being killed.
DEAF = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def servers(folder: Path) -> list[psutil.Process]:
    """Return the processes of the server of a folder, its keeper first."""
    for process in psutil.process_iter(["cmdline"]):
        if {KEEPER, str(folder)} <= set(process.info["cmdline"] or ()):
            return [process, *process.children(recursive=True)]
    return []


@pytest.fixture
def users(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Yield two processes that use one server, of the test's folder."""
    command = [sys.executable, "-c", USE, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    started = [subprocess.Popen(command, **pipes) for _ in range(2)]  # type: ignore[call-overload]  # noqa: S603
    yield started
    for each in started:
        each.kill()
        each.communicate()


def url_of(user: "subprocess.Popen[bytes]") -> str:
    """Return the address that a process prints when its server is ready."""
    assert user.stdout is not None
    return user.stdout.readline().decode().strip()


def test_server_has_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server has the settings that it is given, one worker, and nothing of the environment."""
    monkeypatch.setenv("EMULATOR_TTFT_MS", "7")
    monkeypatch.setenv("EMULATOR_NOTHING", "7")
    given: dict[str, Any] = {"itl_ms": 3, "lenient": True, "reasoning_lengths": {"low": 4}}
    given |= {"models": ("a", "b")}
    with Server(**given) as server, Emulator(server.url) as emulator:
        status = emulator.status()
    told = {name: status["settings"][name] for name in given}
    assert told == {**given, "models": ["a", "b"]}
    assert status["settings"]["ttft_ms"] == 100
    assert status["fixed"]["workers"] == 1


@pytest.mark.slow
def test_server_ends_with_its_block() -> None:
    """After the body no process of the server is left, nor its folder."""
    with Server() as server:
        folder = server.log_file.parent
        processes = servers(folder)
        assert len(processes) > 2
        assert server.log_size() > 0
        assert "Starting production HTTP BentoServer" in server.log()
    assert not any(map(is_alive, processes))
    assert not folder.exists()


def test_server_that_does_not_start_is_told(tmp_path: Path) -> None:
    """A setting that is wrong is told in its own words, and nothing is left."""
    with pytest.raises(ServerError, match=r"EMULATOR_TTFT=1: .* the nearest is EMULATOR_TTFT_MS"):
        Server(folder=tmp_path, ttft=1).start()
    assert eventually(lambda: not servers(tmp_path), 10)


@pytest.mark.slow
def test_processes_share_a_server(users: list["subprocess.Popen[bytes]"], tmp_path: Path) -> None:
    """Processes that name one folder have one server, until the last of them has left."""
    urls = {url_of(user) for user in users}
    assert len(urls) == 1
    users[0].communicate(b"")
    assert PLAIN.get(f"{urls.pop()}/readyz").status_code == 200
    users[1].communicate(b"")
    assert servers(tmp_path) == []


def test_server_ends_with_users_that_are_killed(
    users: list["subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    """A server ends too when nobody could leave it."""
    for user in users:
        url_of(user)
    processes = servers(tmp_path)
    assert len(processes) > 2
    for user in users:
        user.send_signal(signal.SIGKILL)
    assert eventually(lambda: not any(map(is_alive, processes)), 30)


@pytest.mark.slow
def test_server_that_died_is_started_again(tmp_path: Path) -> None:
    """A folder whose server was killed gets another one for its next user."""
    first = Server(folder=tmp_path).start()
    keeper, *_ = servers(tmp_path)
    keeper.terminate()
    assert eventually(lambda: not is_alive(keeper), 30)
    with Server(folder=tmp_path) as second:
        assert PLAIN.get(f"{second.url}/readyz").status_code == 200
    first.close()
    assert servers(tmp_path) == []


def test_what_does_not_end_is_killed() -> None:
    """A server that takes no notice is killed in a few seconds, with its children."""
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE) as server:  # noqa: S603
        assert server.stdout is not None
        child = psutil.Process(int(server.stdout.readline()))
        begun_s = time.monotonic()
        end(server)
        assert not is_alive(child)
        assert time.monotonic() - begun_s < 60
