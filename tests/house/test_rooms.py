"""The rooms of the code: data goes one way, so that imports do too, and no room is too large."""

import ast
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import REPOSITORY

# From low to high: a module imports from its own room and from those before it.
ROOMS = (
    "emulator.settings",
    "emulator.yaml_files",
    "emulator.metrics",
    "emulator.log_lines",
    "emulator.shared_memory",
    "emulator.helpers",
    "emulator.timing",
    "emulator.limits",
    "emulator.engine",
    "tokenizer",
    "emulator.embeddings",
    "emulator.prompts",
    "emulator.contract",
    "emulator.schema_instances",
    "emulator.grammars",
    "emulator.faults",
    "emulator.emulation",
    "emulator.dialects",
    "emulator.answers",
    "emulator.rules",
    "emulator.rendering",
    "emulator.state",
    "emulator.transport",
    "emulator.reading",
    "emulator.serving",
    "emulator.injection",
    "emulator.apis.api",
    "emulator.apis.constraints",
    "emulator.apis.prompt_logprobs",
    "emulator.apis.whole",
    "emulator.apis.asking",
    "emulator.apis.computations",
    "emulator.apis.chat",
    "emulator.apis.completions",
    "emulator.apis.responses",
    "emulator.apis.messages",
    "emulator.apis.embeddings",
    "emulator.apis.moderations",
    "emulator.apis.models",
    "emulator.apis.vllm",
    "emulator.apis.table",
    "emulator.worker",
    "emulator.control",
    "emulator.journal",
    "emulator.trials",
    "emulator.pages",
    "emulator.process",
    "schemas",
    "service",
)
BY_LENGTH = sorted(ROOMS, key=len, reverse=True)
PACKAGES = {"emulator", "emulator.apis"}  # they hold rooms, and nothing of their own
MOST_FOLDERS_AT_THE_ROOT = 10
MOST_MODULES_OF_A_FOLDER = 12
AS_THEY_ARE = {"emulator/schema_instances", "loadtest"}


def room(name: str) -> str | None:
    """Return the room of a module; None if it is none of the product's."""
    return next((one for one in BY_LENGTH if name == one or name.startswith(f"{one}.")), None)


def tracked(pattern: str) -> list[Path]:
    """Return the files that git knows and that match a pattern, by their paths from the root."""
    listed = subprocess.run(  # noqa: S603 - our own pattern
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern],  # noqa: S607
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return [Path(name) for name in listed if (REPOSITORY / name).exists()]


def module(path: Path) -> str:
    """Return the name of a file's module."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


MODULES = [path for path in tracked("*.py") if room(module(path)) or module(path) in PACKAGES]


def lines(path: Path) -> int:
    """Return how many lines a file has."""
    return (REPOSITORY / path).read_text().count("\n")


def imported(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, and the names that it imports of them."""
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=module)
def test_imports_go_one_way(path: Path) -> None:
    """A module imports from no room above its own."""
    own = room(module(path))
    above = ROOMS[ROOMS.index(own) + 1 :] if own else ROOMS
    assert sorted({name for name in imported(path) if room(name) in above}) == []


def test_timing_knows_no_http() -> None:
    """Nothing that keeps time imports a library of HTTP or of schemas."""
    files = [path for path in MODULES if room(module(path)) == "emulator.timing"]
    names = {name.partition(".")[0] for path in files for name in imported(path)}
    assert files
    assert not names & {"starlette", "bentoml", "uvicorn", "pydantic", "httpx"}


@pytest.mark.parametrize(
    ("package", "seams"),
    [("uvicorn", {"emulator/transport/uvicorn_seam.py"})],
)
def test_one_file_is_the_seam(package: str, seams: set[str]) -> None:
    """What is not ours, and not documented, is imported in one file."""
    users = {
        path.as_posix()
        for path in MODULES
        if any(name.partition(".")[0] == package for name in imported(path))
    }
    assert users == seams


def test_root_is_clear() -> None:
    """The root shows what the user named, and few folders."""
    folders = {path.parts[0] for path in tracked("*") if len(path.parts) > 1}
    assert len(folders) <= MOST_FOLDERS_AT_THE_ROOT


def test_no_folder_is_crowded() -> None:
    """No folder has more modules than one can keep in view."""
    sizes = Counter(path.parent.as_posix() for path in tracked("*.py"))
    assert {
        name: size
        for name, size in sizes.items()
        if size > MOST_MODULES_OF_A_FOLDER and name not in AS_THEY_ARE
    } == {}


def test_no_folder_is_a_third() -> None:
    """No folder holds a third of the product."""
    files = [*MODULES, *tracked("loadtest/*.py")]
    sizes: Counter[str] = Counter()
    for path in files:
        sizes[path.parent.as_posix()] += lines(path)
    assert max(sizes.values()) < sum(sizes.values()) / 3


def test_service_is_a_list_of_steps() -> None:
    """service.py is short, and imports few names."""
    names = list(imported(Path("service.py")))
    assert lines(Path("service.py")) <= 260
    assert len(names) <= 40


def test_schemas_is_a_door() -> None:
    """schemas.py is small, and all that it imports can be imported from it."""
    tree = ast.parse((REPOSITORY / "schemas.py").read_text())
    names = {name.rpartition(".")[2] for name in imported(Path("schemas.py"))}
    [listed] = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    assert lines(Path("schemas.py")) <= 120
    assert set(ast.literal_eval(listed)) == names
