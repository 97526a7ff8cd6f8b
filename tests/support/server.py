"""The emulator in processes of its own, started the way an operator starts it."""

import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.support.process import free_port

REPOSITORY = Path(__file__).parents[2]
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 300.0
LOG_TAIL_LINES = 40

# For every client, as nothing here is encrypted: to read all authorities' certificates takes 20 ms.
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
# Sends single requests, each on a connection of its own.
PLAIN = httpx.Client(
    timeout=300, trust_env=False, verify=TLS, limits=httpx.Limits(max_keepalive_connections=0)
)


@dataclass(frozen=True)
class Server:
    """A server to talk to; one that was started elsewhere has neither process nor log."""

    url: str
    process: subprocess.Popen[bytes] | None = None
    log_file: Path | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for raw sockets."""
        url = httpx.URL(self.url)
        return url.host, url.port or 80

    @property
    def workers(self) -> list[psutil.Process]:
        """The worker processes."""
        if self.process is None:
            return []
        return [
            worker for worker in psutil.Process(self.process.pid).children() if is_worker(worker)
        ]

    @property
    def helpers(self) -> list[psutil.Process]:
        """The helper processes of the workers, and the nurseries that forked them."""
        return [helper for worker in self.workers for helper in worker.children(recursive=True)]

    @property
    def client_ports(self) -> set[int]:
        """The ports of the clients whose connections the workers have not closed."""
        connections = [c for worker in self.workers for c in worker.net_connections("tcp")]
        return {connection.raddr.port for connection in connections if connection.raddr}

    @contextmanager
    def alone(self, worker: psutil.Process) -> Iterator[None]:
        """Let one worker alone take connections while the body runs."""
        others = [other for other in self.workers if other != worker]
        for other in others:
            other.suspend()
        try:
            yield
        finally:
            for other in others:
                other.resume()

    def is_idle(self) -> bool:
        """Tell whether no request is under way, by its metrics."""
        metrics = self.metrics()
        under_way = ("bentoml_service_request_in_progress", "openai_emulator_active_streams")
        return all(metrics.total(name) == 0 for name in under_way)

    def wait_until_ready(self) -> None:
        """Return when the server is ready.

        Raises:
            RuntimeError: It ended, or was not ready in time; the message holds its log.
        """

        def has_ended() -> bool:
            return self.process is not None and self.process.poll() is not None

        eventually(lambda: has_ended() or _is_ready(self.url), START_TIMEOUT_S)
        if has_ended() or not _is_ready(self.url):
            raise RuntimeError(f"bentoml serve is not ready. Its log:\n{self.log()}")

    def metrics(self) -> "Metrics":
        """Return what /metrics says now."""
        answer = PLAIN.get(f"{self.url}/metrics")
        return Metrics.parse(answer.raise_for_status().text)

    def log(self) -> str:
        """Return all that the server has written so far."""
        return self.log_file.read_text(errors="replace") if self.log_file else ""

    def log_tail(self) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log().splitlines()[-LOG_TAIL_LINES:])


def is_worker(process: psutil.Process) -> bool:
    """Tell whether a child of `bentoml serve` is a worker, and alive."""
    try:
        return "--worker-id" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


@dataclass(frozen=True)
class Metrics:
    """Prometheus metrics: the values of all samples."""

    samples: Sequence[Sample]

    @classmethod
    def parse(cls, text: str) -> "Metrics":
        """Read Prometheus's text format."""
        families = text_string_to_metric_families(text)
        return cls([sample for family in families for sample in family.samples])

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples with this name and these labels, 0 if there is none."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def errors(self) -> float:
        """Return how many requests were refused or failed.

        Connections that another test left open may run out of time at any moment, and count aside.
        """
        name = "openai_emulator_errors_total"
        return self.total(name) - self.total(name, code="request_timeout")


def eventually(condition: Callable[[], bool], timeout_s: float = 120.0) -> bool:
    """Look at `condition` until it holds or the time is over; return whether it held."""
    deadline_s = time.monotonic() + timeout_s
    while not (held := condition()) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return held


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without what the tests set for themselves.

    Bytecode is kept: to compile the service again takes each process of each server 0.4 s.
    """
    own = {"TIKTOKEN_CACHE_DIR", "EMULATOR_URL", "PYTHONDONTWRITEBYTECODE"}
    kept = {name: value for name, value in os.environ.items() if name not in own}
    return {**kept, "BENTOML_DO_NOT_TRACK": "True", **(extra or {})}


def bentoml(*arguments: str) -> list[str]:
    """Return the command line of bentoml in this environment."""
    return [sys.executable, "-m", "bentoml", *arguments]


def args(**settings: object) -> list[str]:
    """Return the command line's words for settings."""
    return [word for name, value in settings.items() for word in ("--arg", f"{name}={value}")]


@contextmanager
def running_server(
    *serve_args: str,
    target: str = "service.py:OpenAIEmulator",
    cwd: Path = REPOSITORY,
    env: Mapping[str, str] | None = None,
    ready: bool = True,
    port: int | None = None,
) -> Iterator[Server]:
    """Run ``bentoml serve`` on a port (a free one) while the body runs, and kill it after it.

    The body begins when it is ready, or at once if `ready` is false.

    Its BENTOML_HOME is its own unless `env` says otherwise.

    Raises:
        RuntimeError: The server ended, or was not ready in time; the message holds its log.
    """
    port = port or free_port()
    with tempfile.TemporaryDirectory() as folder:
        log_file = Path(folder) / "server.log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own command line
                bentoml("serve", target, "--port", str(port), *serve_args),
                cwd=cwd,
                # BentoML empties the metrics of all servers that share its home.
                env=clean_environment({"BENTOML_HOME": folder, "TMPDIR": folder, **(env or {})}),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = Server(f"http://127.0.0.1:{port}", process, log_file)
        try:
            if ready:
                server.wait_until_ready()
            yield server
        finally:
            _kill(process)


def configured(folder: Path, text: str) -> AbstractContextManager[Server]:
    """Run a server with one worker and a configuration of BentoML's.

    The file tells no version: BentoML 1.4 reads it as one of version 1 and then of version 2.
    """
    file = folder / "bentoml.yaml"
    file.write_text(f"services:\n  openai_emulator:{text}")
    return running_server(*args(workers=1), env={"BENTOML_CONFIG": str(file)})


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a server and its workers at once: a second each is saved, and the folder is ours."""
    try:
        root = psutil.Process(process.pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        processes = []
    for each in processes:  # the parent first: it would start others
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()
    eventually(lambda: not any(map(is_alive, processes)), STOP_TIMEOUT_S)


def is_alive(process: psutil.Process) -> bool:
    """Tell whether a process still runs; one that waits to be reaped does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _is_ready(url: str) -> bool:
    try:
        return PLAIN.get(f"{url}/readyz", timeout=300).status_code == 200
    except httpx.TransportError:
        return False
