"""A server for tests, in processes of its own, that ends with those who use it."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

import httpx

from openai_api_emulator.running.sharing import SharedFolder

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
LOG_TAIL_LINES = 40
_TRIES = 3
_LOOK_EVERY_S = 0.02
_PREFIX = "EMULATOR_"


class ServerError(RuntimeError):
    """A server did not start; the message holds the end of its log."""


class Server:
    """A server on a free port of this machine.

    Settings are those of ``openai-api-emulator serve --help``, by name. Without more it has one
    worker, and takes no settings from the environment. It ends when it is closed, and also when
    this process ends otherwise.

    Args:
        folder: All servers of one folder, in all processes, are one; its settings are those of the
            first, and the last to leave ends it. None for one of its own.
        cwd: Where relative paths in its settings start; None for the current folder.
        start_timeout_s: How long it may take to be ready, in s.
        settings: What differs from the defaults.

    Raises:
        ServerError: It did not start, on entering or `start`; the message holds its log.
    """

    def __init__(
        self,
        *,
        folder: Path | None = None,
        cwd: Path | None = None,
        start_timeout_s: float = START_TIMEOUT_S,
        **settings: object,
    ) -> None:
        self._own = None if folder else tempfile.TemporaryDirectory(prefix="openai-emulator-")
        self._folder = SharedFolder(folder or Path(self._own.name))  # type: ignore[union-attr]
        self._cwd = cwd
        self._start_timeout_s = start_timeout_s
        self._settings = {"workers": 1, **settings}
        self._port = 0

    @property
    def url(self) -> str:
        """Its address, without ``/v1``; of a server that has started."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def log_file(self) -> Path:
        """The file with its log."""
        return self._folder.path / "server.log"

    def log(self, start: int = 0) -> str:
        """Return what it has written, from a byte of its log on."""
        with suppress(FileNotFoundError), self.log_file.open("rb") as file:
            file.seek(start)
            return file.read().decode(errors="replace")
        return ""

    def log_size(self) -> int:
        """Return how many bytes it has written to its log."""
        return self.log_file.stat().st_size

    def start(self) -> Self:
        """Start it, or join it if it runs already, and return it when it is ready.

        Raises:
            ServerError: It ended, or was not ready in time.
        """
        with self._folder.alone():
            self._folder.join()
            state = self._folder.published()
            if state is not None:
                self._port = int(state["port"])
                return self
            try:
                self._start()
            except BaseException:
                self._folder.leave()
                raise
            self._folder.publish(port=self._port)
        return self

    def close(self) -> None:
        """Leave it; return when it has ended, if nobody else uses it."""
        with self._folder.alone():
            self._folder.leave()
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        while self._is_ending() and time.monotonic() < deadline_s:
            time.sleep(_LOOK_EVERY_S)
        if self._own is not None:
            self._own.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_ending(self) -> bool:
        with self._folder.alone():
            return self._folder.is_kept() and not self._folder.has_users()

    def _start(self) -> None:
        for _ in range(_TRIES):
            self._port = _free_port()
            self._run()
            if self._is_ready():
                return
            if not _is_taken(self._port):
                break
        raise ServerError(f"The server did not start. Its log:\n{_tail(self.log())}")

    def _run(self) -> None:
        """Start the keeper, which runs the server."""
        lock = self._folder.keeper_lock()
        python = [sys.executable, "-m"]
        keeper = ["openai_api_emulator.running.keeper", str(self._folder.path)]
        serve = ["openai_api_emulator", "serve", "--port", str(self._port)]
        try:
            subprocess.run(  # noqa: S603 - our own command line
                [*python, *keeper, *python, *serve],
                check=True,
                cwd=self._cwd,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[lock],
            )
        finally:
            os.close(lock)

    def _environment(self) -> dict[str, str]:
        """Return the variables for the server, with its settings."""
        outer = {n: value for n, value in os.environ.items() if not n.upper().startswith(_PREFIX)}
        given = {
            f"{_PREFIX}{name.upper()}": _written(value)
            for name, value in self._settings.items()
            if value is not None
        }
        return {**outer, **given, "BENTOML_HOME": str(self._folder.path / "bentoml")}

    def _is_ready(self) -> bool:
        """Wait until the server is ready; tell whether it is."""
        deadline_s = time.monotonic() + self._start_timeout_s
        with httpx.Client(trust_env=False, timeout=self._start_timeout_s) as http:
            while self._folder.is_kept() and time.monotonic() < deadline_s:
                with suppress(httpx.TransportError):
                    if http.get(f"{self.url}/readyz").status_code == httpx.codes.OK:
                        return True
                time.sleep(_LOOK_EVERY_S)
        return False


def _written(value: object) -> str:
    """Return a setting as it stands in the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ",".join(f"{name}={each}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])


def _free_port() -> int:
    """Return a port that nobody listens on, below those that systems give to clients."""
    while True:
        port = secrets.choice(range(20_000, 32_768))
        if not _is_taken(port):
            return port


def _is_taken(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False
