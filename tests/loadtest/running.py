"""Runs locust until it has seen enough: how long that takes is the machine's affair."""

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.process import free_port
from tests.support.server import REPOSITORY, eventually

Row = dict[str, str]

START_AND_RUN_S, END_S = 120.0, 60.0


def locust_command(host: str, *arguments: str) -> list[str]:
    """Return the command line that the README gives."""
    command = [sys.executable, "-m", "locust", "-f", "locustfile.py", "--host", host]
    return [*command, *arguments]


def locust_environment() -> dict[str, str]:
    """Return an environment in which locust may patch what it likes."""
    return {k: v for k, v in os.environ.items() if k != "LOCUST_SKIP_MONKEY_PATCH"}


@contextmanager
def running_locust(
    host: str, *arguments: str, output: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run locust while the body runs, and stop it by its process id; it writes to a file."""
    with (output or Path(os.devnull)).open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 - our own command line
            locust_command(host, *arguments),
            cwd=REPOSITORY,
            env=locust_environment(),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(END_S)


def two_processes() -> tuple[str, ...]:
    """Return the arguments that let two workers run, on a port of their own and their master's."""
    port = str(free_port())
    return ("--processes", "2", "--master-bind-port", port, "--master-port", port)


class Run:
    """A headless run, and what it has left behind.

    Args:
        folder: An empty one.
        host: The server's address.
        arguments: Of the command line.
        until: Looks at the run each time that locust has written its files, and says whether that
            is enough; without it the run ends by itself.
    """

    def __init__(
        self, folder: Path, host: str, *arguments: str, until: Callable[["Run"], bool] | None = None
    ) -> None:
        self._folder = folder
        files = ("--headless", "--only-summary", "--csv", str(folder / "run"))
        with running_locust(host, *files, *arguments, output=folder / "output") as process:

            def is_over() -> bool:
                self.read()
                return process.poll() is not None or (until is not None and until(self))

            assert eventually(is_over, START_AND_RUN_S), self.output
        self.exit_code = process.returncode
        self.read()

    def read(self) -> None:
        """Read the files as they are now."""
        self.output = _text(self._folder / "output")
        self.rows = _rows(self._folder / "run_stats.csv")
        self.failures = _rows(self._folder / "run_failures.csv")
        self.exceptions = _text(self._folder / "run_exceptions.csv")

    @property
    def errors(self) -> dict[str, int]:
        """How often each error occurred."""
        return {row["Error"]: int(row["Occurrences"]) for row in self.failures}

    def tokens(self) -> tuple[int, float]:
        """Return the tokens, and the tokens/s."""
        found = re.search(r"(\d+) tokens received, (\S+) tokens/s", self.output)
        assert found, self.output
        return int(found[1]), float(found[2])

    def named(self, kind: str, name: str) -> Row:
        """Return the one row of a kind whose name starts so."""
        (row,) = [r for r in self.rows if r["Type"] == kind and r["Name"].startswith(name)]
        return row

    def count(self, kind: str, name: str) -> int:
        """Return how many requests a kind has whose name starts so."""
        rows = [r for r in self.rows if r["Type"] == kind and r["Name"].startswith(name)]
        return sum(int(row["Request Count"]) for row in rows)

    def median(self, kind: str, name: str) -> float:
        """Return a row's median in ms."""
        return float(self.named(kind, name)["Median Response Time"])


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _rows(path: Path) -> list[Row]:
    """Return a CSV file's rows, which may be just being written."""
    rows = list(csv.DictReader(_text(path).splitlines()))
    return [row for row in rows if None not in row and None not in row.values()]
