"""Projects that are not this one, whose tests use the package."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.server import clean_environment

PLUGIN = ("-p", "openai_api_emulator.pytest_plugin")
TIMEOUT_S = 900


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files of a project."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def command(*options: str, python: str | Path = sys.executable) -> list[str]:
    """Return the command line that runs a project's tests, in the order of its files."""
    return [str(python), "-m", "pytest", "-p", "no:cacheprovider", *options]


def run(folder: Path, words: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command line in a project, and return how it has ended."""
    environment = clean_environment({"NO_COLOR": "1"})
    if words[0] != sys.executable:  # of an environment of its own
        environment.pop("PYTHONPATH", None)
    return subprocess.run(  # noqa: S603 - our own command line
        words,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
