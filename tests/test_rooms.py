"""The rooms of the code: data goes one way, so that imports do too."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import REPOSITORY

# From low to high: a module imports from its own room and from those before it.
ROOMS = (
    "settings",
    "metrics",
    "helpers",
    "limits",
    "timing",
    "engine",
    "tokenizer",
    "prompts",
    "embeddings",
    "schemas",
    "schema_instances",
    "answers",
    "faults",
    "http_api",
    "service",
)
MODULES = [
    path
    for room in ROOMS
    for path in sorted((REPOSITORY / room).rglob("*.py")) or [REPOSITORY / f"{room}.py"]
]


def room(path: Path) -> str:
    """Return the room that a module is in."""
    return path.relative_to(REPOSITORY).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Yield the first names of what a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0] if not node.level else room(path)
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_imports_go_one_way(path: Path) -> None:
    """A module imports from no room above its own."""
    above = ROOMS[ROOMS.index(room(path)) + 1 :]
    assert sorted(set(imported(path)).intersection(above)) == []


def test_every_module_has_a_room() -> None:
    """No module or package of the service is outside the rooms."""
    apart = {"tests", "benchmarks", "loadtest", "locustfile", "conftest"}
    apart |= {"test_api", "test_multimodal"}
    modules = {path.stem for path in REPOSITORY.glob("*.py")}
    packages = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")}
    assert (modules | packages) - apart == set(ROOMS)


def test_timing_knows_no_http() -> None:
    """Nothing that keeps time imports a library of HTTP or of schemas."""
    names = {name for path in MODULES if room(path) == "timing" for name in imported(path)}
    assert not names & {"starlette", "bentoml", "uvicorn", "pydantic", "httpx"}
