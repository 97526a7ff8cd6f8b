"""Starts the servers that are measured, and reads what processor time and memory they use."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

ROOT = Path(__file__).parent.parent
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Usage:
    """What a server's processes have used: processor seconds so far, resident KB now."""

    cpu_s: float
    rss_kb: float


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; `pids` are its processes, as far as they are on this machine."""

    name: str
    host: str
    port: int
    pids: tuple[int, ...] = ()

    @property
    def address(self) -> tuple[str, int]:
        """What a socket connects to."""
        return self.host, self.port

    def usage(self) -> Usage | None:
        """Return what the server's processes have used, or None if they are elsewhere."""
        if not self.pids:
            return None
        processes = [psutil.Process(pid) for pid in self.pids if psutil.pid_exists(pid)]
        times = [process.cpu_times() for process in processes]
        return Usage(
            cpu_s=sum(time.user + time.system for time in times),
            rss_kb=sum(process.memory_info().rss for process in processes) / 1024,
        )


def running_server(url: str) -> Server:
    """Return the server at `url`, with its processes if it is on this machine.

    Raises:
        ValueError: The address is not of the form http://host:port.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"Expected a URL like http://localhost:3000, but got {url!r}.")
    port = parts.port or 80
    pids = _listeners(port) if parts.hostname in {"localhost", "127.0.0.1"} else set()
    return Server(f"{parts.hostname}:{port}", parts.hostname, port, tuple(sorted(pids)))


def _listeners(port: int) -> set[int]:
    """Return the processes that listen on `port`, and their children."""
    pids = set()
    for process in psutil.process_iter():
        try:
            sockets = process.net_connections("tcp")
        except psutil.Error:
            continue  # another user's process, or one that has ended
        if any(s.status == psutil.CONN_LISTEN and s.laddr.port == port for s in sockets):
            pids |= {process.pid, *(child.pid for child in process.children(recursive=True))}
    return pids


def emulator(workers: int = 1) -> list[str]:
    """Return the command that serves the emulator; the port comes last."""
    bentoml = Path(sys.executable).with_name("bentoml")
    program = str(bentoml) if bentoml.exists() else shutil.which("bentoml") or "bentoml"
    target = ["serve", "service.py:OpenAIEmulator", "--arg", f"workers={workers}"]
    return [program, *target, "--port"]


def ceiling(workers: int = 1) -> list[str]:
    """Return the command that serves the bare app of ceiling.py; the port comes last."""
    app = ["--app-dir", str(Path(__file__).parent), "ceiling:app", "--workers", str(workers)]
    quiet = ["--log-level", "warning", "--no-access-log"]
    return [sys.executable, "-m", "uvicorn", *app, *quiet, "--port"]


@contextmanager
def serving(name: str, command: Sequence[str]) -> Iterator[Server]:
    """Start a server on a free port and stop it at the end.

    Raises:
        RuntimeError: It ended or did not answer in time; the message holds what it wrote.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "BENTOML_DO_NOT_TRACK": "True"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, str(port)], cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True
        )
        try:
            try:
                _await_ready(process, port)
            except RuntimeError as error:
                log.seek(0)
                raise RuntimeError(f"{name} {error}:\n{log.read().decode()}") from None
            children = psutil.Process(process.pid).children(recursive=True)
            pids = (process.pid, *(child.pid for child in children))
            yield Server(name, "127.0.0.1", port, pids)
        finally:
            _stop(process)


def _await_ready(process: subprocess.Popen[bytes], port: int) -> None:
    end_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end_s:
        if process.poll() is not None:
            raise RuntimeError(f"ended with code {process.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                time.sleep(0.5)  # the other workers
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise RuntimeError(f"did not answer in {START_TIMEOUT_S} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and its workers: they are a process group of their own."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
