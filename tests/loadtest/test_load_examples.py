"""The script that runs the load kit's examples, and the settings of servers that are measured."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kit.server import emulator
from benchmarks.load_examples import arguments, examples
from tests.support.server import REPOSITORY, clean_environment


def test_settings_of_a_measured_server() -> None:
    """The server that is measured with settings is started with them."""
    command = emulator(2, ["rpm=5", "tpm=10"])
    assert command[3:-1] == ["--arg", "workers=2", "--arg", "rpm=5", "--arg", "tpm=10"]


def test_examples_of_the_load_kit_are_found() -> None:
    """Those that run against one emulator are: the README's, scenarios, limits and processes."""
    lines = [" ".join(words) for words in examples()]
    for part in ("--html run.html", "LongChatUser", "--max-itl-p99-ms", "--processes"):
        assert [line for line in lines if part in line]
    assert not [line for line in lines if "--master" in line or "api.example.com" in line]
    words = ["locust", "-f", "locustfile.py", "-t", "1m", "--host", "http://localhost:3000"]
    file, url = str(REPOSITORY / "locustfile.py"), "http://localhost:1"
    assert [*arguments(words, url, "2s")] == ["-f", file, "-t", "2s", "--host", url]


@pytest.mark.slow
@pytest.mark.usefixtures("local_only")
def test_examples_of_the_load_kit_pass(tmp_path: Path) -> None:
    """The example with limits passes, run as the script runs them 20 times."""
    once = ["--times", "1", "--duration", "5s", "--only=--max-itl"]
    ended = subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, "-m", "benchmarks.load_examples", *once],
        cwd=REPOSITORY,
        env=clean_environment({"BENTOML_HOME": str(tmp_path)}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.startswith("1 of 1 passed: locust ")
