"""The wheel: what is in it, what it asks for, and that it works in other projects."""

import re
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.package.projects import command, run, write
from tests.support.documents import page
from tests.support.server import REPOSITORY, clean_environment

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
# Files of the page, by the names in their first lines.
EXAMPLES = {
    code.splitlines()[0].removeprefix("# "): code
    for code in page("docs/testing.md").blocks("python")
}
MOST_LINES_OF_AN_EXAMPLE = 10
OF_THE_SERVICE = ("service.py", "schemas.py", "tokenizer.py", "emulator.py")
SHARED = """
import pytest


@pytest.mark.parametrize("number", range(8))
def test_shared(emulator, worker_id, pytestconfig, number):
    client = emulator.openai(max_retries=0)
    with emulator.override(answer={"text": emulator.id}):
        told = {
            client.chat.completions.create(
                model="gpt-4", messages=[{"role": "user", "content": "Hi"}]
            ).choices[0].message.content
            for _ in range(3)
        }
    assert told == {emulator.id}
    emulator.assert_requests(3)
    (pytestconfig.rootpath / f"seen-{number}").write_text(f"{worker_id} {emulator.url}")
"""


def requirements(file: str) -> set[Requirement]:
    """Return the first block of a file of requirements."""
    lines = (REPOSITORY / file).read_text().split("\n\n")[0].splitlines()
    return {Requirement(line) for line in lines if not line.startswith("#")}


def as_requirements(texts: list[str]) -> set[Requirement]:
    """Return what the project's table says."""
    return set(map(Requirement, texts))


def test_package_asks_for_what_the_service_needs() -> None:
    """The package's requirements are those of the service, and httpx for its clients."""
    asked = as_requirements(PROJECT["dependencies"])
    beside = asked - requirements("requirements.txt")
    assert requirements("requirements.txt") <= asked
    assert [requirement.name for requirement in beside] == ["httpx"]
    redis = as_requirements(PROJECT["optional-dependencies"]["redis"])
    assert redis == requirements("requirements-redis.txt")


def test_examples_are_short() -> None:
    """A retry, a timeout, an agent and the clock are tested in ten lines each."""
    functions = re.findall(
        r"^def (test_\w+).*?\n((?:(?:    .*)?\n)+)", "\n".join(EXAMPLES.values()), re.MULTILINE
    )
    lengths = {name: 1 + len(body.rstrip().splitlines()) for name, body in functions}
    assert set(lengths) == {"test_retry", "test_timeout", "test_agent", "test_clock"}
    assert max(lengths.values()) <= MOST_LINES_OF_AN_EXAMPLE


# --------------------------------------------------------------------------------------
# In an environment of its own
# --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fresh:
    """A fresh environment that has the wheel alone, pytest, pytest-xdist and openai."""

    wheel: Path
    python: Path


@pytest.fixture(scope="module")
def fresh(
    local_only: None,  # noqa: ARG001 - skips
    tmp_path_factory: pytest.TempPathFactory,
) -> Fresh:
    """Return the environment; pip takes from its cache what it has."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = ["-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = ["wheel", "--no-deps", "--wheel-dir", str(folder), str(REPOSITORY)]
    done(folder, sys.executable, *pip, *built)
    [wheel] = folder.glob("*.whl")
    done(folder, sys.executable, "-m", "venv", str(folder / "venv"))
    python = folder / "venv" / "bin" / "python"
    done(folder, str(python), *pip, "install", f"{wheel}[openai]", "pytest", "pytest-xdist")
    return Fresh(wheel, python)


def done(folder: Path, *words: str) -> str:
    """Return what a command prints; it must end well."""
    ended = run(folder, [*words])
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@pytest.mark.slow
def test_wheel_has_one_name(fresh: Fresh) -> None:
    """The wheel adds one name at the top, with the service as data within it."""
    names = zipfile.ZipFile(fresh.wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"openai_api_emulator"}
    service = {name for name in names if name.startswith("openai_api_emulator/service/")}
    packed = {name.removeprefix("openai_api_emulator/service/") for name in service}
    assert packed == set(tracked("service.py", "schemas.py", "tokenizer.py", *FOLDERS))
    assert "openai_api_emulator/py.typed" in names


FOLDERS = ("emulator", "engines", "tiktoken_cache")


def tracked(*paths: str) -> list[str]:
    """Return the files of some paths that git knows or would."""
    return subprocess.run(  # noqa: S603 - our own paths
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *paths],  # noqa: S607
        cwd=REPOSITORY,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()


@pytest.mark.slow
def test_examples_of_the_page_pass(fresh: Fresh, tmp_path: Path) -> None:
    """The examples of the page pass in a project that has modules of the service's names."""
    write(tmp_path, EXAMPLES | dict.fromkeys(OF_THE_SERVICE, "raise RuntimeError"))
    ended = run(tmp_path, command("-q", python=fresh.python))
    assert "4 passed" in ended.stdout, ended.stdout
    assert done(tmp_path, str(fresh.python), "script.py") == "20.0\n"


@pytest.mark.slow
def test_workers_of_xdist_share_a_server(fresh: Fresh, tmp_path: Path) -> None:
    """Two workers of pytest-xdist use one server, each test in a scope of its own."""
    write(tmp_path, {"test_shared.py": SHARED, "pytest.ini": "[pytest]\n"})
    ended = run(tmp_path, command("-q", "-n", "2", python=fresh.python))
    assert "8 passed" in ended.stdout, ended.stdout
    seen = [file.read_text().split() for file in tmp_path.glob("seen-*")]
    workers, urls = ({each[index] for each in seen} for index in (0, 1))
    assert len(seen) == 8
    assert workers == {"gw0", "gw1"}
    assert len(urls) == 1


@pytest.mark.slow
def test_command_is_installed(fresh: Fresh, tmp_path: Path) -> None:
    """The command stands beside the environment's Python, and tells what is wrong."""
    program = fresh.python.with_name("openai-api-emulator")
    version = re.search(r"-(\d[^-]*)-", fresh.wheel.name)
    assert version
    assert done(tmp_path, str(program), "--version").strip() == version[1]
    ended = run(tmp_path, [str(program), "serve", "--workers", "0"])
    assert ended.returncode == 2
    assert ended.stdout == "--workers=0: Input should be greater than or equal to 1\n"


@pytest.mark.slow
def test_types_are_told(fresh: Fresh, tmp_path: Path) -> None:
    """A type checker of the project sees the package's types."""
    text = "from openai_api_emulator import Emulator\nreveal_type(Emulator('').requests)\n"
    write(tmp_path, {"typed.py": text})
    words = [sys.executable, "-m", "mypy", "--python-executable", str(fresh.python), "typed.py"]
    ended = run(tmp_path, words)
    assert "JournalRow" in ended.stdout, ended.stdout
