"""Starts the servers that are measured, and reads what processor time and memory they use."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from operator import add, sub
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks.kit import bare_app
from tests.support.process import free_port, stop

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10
COMPILED = "C program"
INTERPRETED = "Python timerfd"
WITH_SETTINGS = "with settings"


@dataclass(frozen=True, slots=True)
class Cpu:
    """Processor seconds, and how often a process waited for something to do.

    The sum is exact. The kernel divides it by where the ticks of its own clock found the process,
    so that the parts need some seconds of work to say something.
    """

    user_s: float = 0.0
    system_s: float = 0.0
    sum_s: float = 0.0
    waits: int = 0

    def __sub__(self, earlier: "Cpu") -> "Cpu":
        return Cpu(*map(sub, astuple(self), astuple(earlier)))

    def __add__(self, other: "Cpu") -> "Cpu":
        return Cpu(*map(add, astuple(self), astuple(other)))


def process_cpu(pid: int) -> Cpu:
    """Return what a process and its threads have used so far; `waits` is of its main thread."""
    process = psutil.Process(pid)
    times = process.cpu_times()
    sum_s = times.user + times.system
    if sys.platform == "linux":
        sum_s = time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3), to the ns
    return Cpu(times.user, times.system, sum_s, process.num_ctx_switches().voluntary)


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
    worker_pids: tuple[int, ...] = ()

    @property
    def address(self) -> tuple[str, int]:
        """What a socket connects to."""
        return self.host, self.port

    def cpu(self) -> Cpu:
        """Return what the processes that serve have used so far; 0 if they are elsewhere."""
        return sum(map(process_cpu, self.worker_pids), Cpu())

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


def stop_servers_on_sigterm() -> None:
    """Let SIGTERM unwind this process, so that the servers it has started end with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


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
    return _server(f"{parts.hostname}:{port}", parts.hostname, port, pids)


def _server(name: str, host: str, port: int, pids: Iterable[int]) -> Server:
    """Return a server whose workers are those that BentoML calls so, or else all its processes."""
    ranked = tuple(sorted(pids))
    called = {pid for pid in ranked if "--worker-id" in psutil.Process(pid).cmdline()}
    # Their helpers are forks of them.
    workers = tuple(sorted(pid for pid in called if psutil.Process(pid).ppid() not in called))
    return Server(name, host, port, ranked, workers or ranked)


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


def emulator(workers: int = 1, settings: Sequence[str] = ()) -> list[str]:
    """Return the command that serves the emulator with settings; the port comes last."""
    bentoml = Path(sys.executable).with_name("bentoml")
    program = str(bentoml) if bentoml.exists() else shutil.which("bentoml") or "bentoml"
    given = [word for setting in (f"workers={workers}", *settings) for word in ("--arg", setting)]
    return [program, "serve", "service.py:OpenAIEmulator", *given, "--port"]


def bare(workers: int = 1) -> list[str]:
    """Return the command that serves the bare app; the port comes last."""
    app = ["benchmarks.kit.bare_app:app", "--workers", str(workers)]
    loop = ["--loop", "uvloop", "--http", "httptools"]
    quiet = ["--log-level", "warning", "--no-access-log"]
    return [sys.executable, "-m", "uvicorn", *app, *loop, *quiet, "--port"]


@contextmanager
def c_program() -> Iterator[list[str] | None]:
    """Compile timerfd_server.c; yield its command, the port comes last.

    It is None where there is no C compiler, or where the system is not Linux.
    """
    compiler = shutil.which("cc")
    if sys.platform != "linux" or not compiler:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "timerfd_server"
        source = Path(__file__).with_name("timerfd_server.c")
        subprocess.run([compiler, "-O2", "-o", program, source], check=True)
        events = [bare_app.response_head(), bare_app.ROLE, bare_app.TOKEN, bare_app.END]
        yield [str(program), *(event.decode() for event in events)]


@contextmanager
def serving(name: str, command: Sequence[str], root: Path = ROOT) -> Iterator[Server]:
    """Start a server on a free port and stop it at the end.

    Args:
        name: What it is called in the tables.
        command: All but the port.
        root: The working tree that its modules come from.

    Raises:
        RuntimeError: It ended or did not answer in time; the message holds what it wrote.
    """
    port = free_port()
    env = {**os.environ, "PYTHONPATH": str(root), "BENTOML_DO_NOT_TRACK": "True"}
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as home:
        # BentoML empties the metrics of all servers that share its home.
        env["BENTOML_HOME"] = home
        process = subprocess.Popen(
            [*command, str(port)], cwd=root, env=env, stdout=log, stderr=log, start_new_session=True
        )
        try:
            try:
                _await_ready(process, port)
            except RuntimeError as error:
                log.seek(0)
                raise RuntimeError(f"{name} {error}:\n{log.read().decode()}") from None
            children = psutil.Process(process.pid).children(recursive=True)
            pids = [process.pid, *(child.pid for child in children)]
            yield _server(name, "127.0.0.1", port, pids)
        finally:
            stop(process, STOP_TIMEOUT_S)


@contextmanager
def reference() -> Iterator[Server | None]:
    """Start the C program, or the Python one that stands in for it; there is none off Linux."""
    with c_program() as command:
        if command:
            with serving(COMPILED, command) as server:
                yield server
        elif sys.platform == "linux":
            program = [sys.executable, "-m", "benchmarks.kit.timerfd_server"]
            with serving(INTERPRETED, program) as server:
                yield server
        else:
            yield None


def add_emulator_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `emulators` serves."""
    parser.add_argument(
        "--checkout",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="measure the emulator of this working tree too, in turn; may be repeated",
    )
    parser.add_argument(
        "--arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="measure the emulator with this setting too, in turn; may be repeated",
    )


@contextmanager
def emulators(
    checkouts: Sequence[Path], settings: Sequence[str], workers: int, own: bool = True
) -> Iterator[list[Server]]:
    """Start the emulators that are measured, and yield them.

    Args:
        checkouts: The working trees of others.
        settings: An operator's, of one more emulator of this working tree, if there are any.
        workers: The worker processes of each.
        own: Whether there is one of this working tree without settings.
    """
    trees = {"emulator": ROOT} if own else {}
    for root in (checkout.resolve(strict=True) for checkout in checkouts):
        trees[str(root) if root.name in trees else root.name] = root
    with ExitStack() as stack:
        servers = [serving(name, emulator(workers), root) for name, root in trees.items()]
        if settings:
            servers.append(serving(WITH_SETTINGS, emulator(workers, settings)))
        yield [stack.enter_context(server) for server in servers]


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
