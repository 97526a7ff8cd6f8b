"""The rooms of the code: data goes one way, so that imports do too."""

import ast
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import REPOSITORY

# From low to high: a module imports from its own room and from those before it.
ROOMS = (
    "emulator/settings",
    "emulator/metrics",
    "emulator/yaml_files",
    "emulator/shared_memory",
    "emulator/helpers",
    "emulator/limits",
    "emulator/timing",
    "emulator/engine",
    "tokenizer",
    "emulator/prompts",
    "emulator/embeddings",
    "schemas",
    "emulator/schema_instances",
    "emulator/answers",
    "emulator/faults",
    "emulator",
    "service",
)
BY_LENGTH = sorted(ROOMS, key=len, reverse=True)


def room(name: str) -> str | None:
    """Return the room of a module; None if it is none of the product's."""
    path = name.replace(".", "/")
    return next((one for one in BY_LENGTH if path == one or path.startswith(f"{one}/")), None)


def module(path: Path) -> str:
    """Return the name of a file's module."""
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)


def modules() -> list[Path]:
    """Return the files of the product."""
    tracked = subprocess.run(
        ["git", "ls-files", "*.py"],  # noqa: S607 - the developer's own git
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return [REPOSITORY / name for name in tracked if room(name.removesuffix(".py"))]


MODULES = modules()


def imported(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=module)
def test_imports_go_one_way(path: Path) -> None:
    """A module imports from no room above its own."""
    own = room(module(path))
    assert own
    above = ROOMS[ROOMS.index(own) + 1 :]
    assert sorted({name for name in imported(path) if room(name) in above}) == []


def test_timing_knows_no_http() -> None:
    """Nothing that keeps time imports a library of HTTP or of schemas."""
    files = [path for path in MODULES if room(module(path)) == "emulator/timing"]
    names = {name.partition(".")[0] for path in files for name in imported(path)}
    assert files
    assert not names & {"starlette", "bentoml", "uvicorn", "pydantic", "httpx"}


def test_no_module_stands_in_two_rooms() -> None:
    """No room is named twice."""
    assert [name for name, times in Counter(ROOMS).items() if times > 1] == []
