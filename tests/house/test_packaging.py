"""The built bento: what it holds, what its image installs, and that it serves from anywhere."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # comes with BentoML, without types
from packaging.requirements import Requirement

from tests.support.ahead import shared
from tests.support.server import REPOSITORY, Server, bentoml, clean_environment, running_server
from tests.support.wire import chat, headers, post, stream, token_count

pytestmark = pytest.mark.usefixtures("local_only")

# Whoever tries to reach the network runs into a closed port.
NO_NETWORK = dict.fromkeys(
    ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
    "http://127.0.0.1:9",
)


def requirements(lines: list[str]) -> set[Requirement]:
    """Read requirements, so that quotes and spaces do not matter."""
    return {Requirement(line) for line in lines if line.strip() and not line.startswith("#")}


def runtime_requirements() -> set[Requirement]:
    """Return the first section of requirements.txt, and the optional extra, which images have."""
    text = (REPOSITORY / "requirements.txt").read_text()
    extra = (REPOSITORY / "requirements-redis.txt").read_text()
    return requirements([*text.split("\n\n")[0].splitlines(), *extra.splitlines()])


def build(home: Path) -> Path:
    """Build the bento into a store of its own, and return the bento's folder."""
    built = subprocess.run(  # noqa: S603 - our own command line
        bentoml("build"),
        cwd=REPOSITORY,
        env=clean_environment({**NO_NETWORK, "BENTOML_HOME": str(home)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    assert built.returncode == 0, built.stdout
    store = home / "bentos" / "openai_emulator"
    return store / (store / "latest").read_text().strip()


@shared("module")
@contextmanager
def built(folder: Path) -> Iterator[tuple[Path, Server]]:
    """Build the bento and serve it from an empty folder, with no network; yield its folder too."""
    home, elsewhere, bytecode = (folder / name for name in ("home", "elsewhere", "bytecode"))
    elsewhere.mkdir()
    environment = {"BENTOML_HOME": str(home), "PYTHONPYCACHEPREFIX": str(bytecode), **NO_NETWORK}
    bento = build(home)
    target = "openai_emulator:latest"
    with running_server(target=target, cwd=elsewhere, env=environment) as server:
        yield bento, server


@pytest.fixture
def bento(built: tuple[Path, Server]) -> Path:
    """Return the folder of the built bento."""
    return built[0]


@pytest.fixture
def served_bento(built: tuple[Path, Server]) -> Server:
    """Return the server of the built bento."""
    return built[1]


def test_image_has_the_runtime_packages() -> None:
    """bentofile.yaml lists the runtime section and the optional extra, no more and no less."""
    bentofile = yaml.safe_load((REPOSITORY / "bentofile.yaml").read_text())
    assert requirements(bentofile["python"]["packages"]) == runtime_requirements()


def test_runtime_packages_have_lower_bounds() -> None:
    """Every runtime requirement says from which version on it works."""
    unbounded = [r.name for r in runtime_requirements() if ">=" not in str(r.specifier)]
    assert unbounded == []


def test_bento_holds_the_modules(bento: Path) -> None:
    """The bento holds the modules that the service imports."""
    names = {file.name for file in (bento / "src").glob("*.py")}
    assert {"service.py", "schemas.py", "tokenizer.py"} <= names


def test_bento_holds_the_vocabularies(bento: Path) -> None:
    """The bento holds the vocabularies, byte for byte."""
    bundled = sorted((REPOSITORY / "tiktoken_cache").iterdir())
    assert len(bundled) == 3
    packed = sorted((bento / "src" / "tiktoken_cache").iterdir())
    assert [file.name for file in packed] == [file.name for file in bundled]
    assert [file.read_bytes() for file in packed] == [file.read_bytes() for file in bundled]


def test_bento_holds_no_tests(bento: Path) -> None:
    """Neither tests nor the load test nor tools' leftovers are in the bento."""
    held = [str(file.relative_to(bento / "src")) for file in (bento / "src").rglob("*")]
    unwanted = re.compile(r"(^|/)(tests?($|/)|test_|conftest|locustfile|\.|__pycache__|venv)")
    assert [name for name in held if unwanted.search(name)] == []


def test_image_installs_the_requirements(bento: Path) -> None:
    """The generated Dockerfile installs the bento's requirements with a supported Python."""
    dockerfile = (bento / "env" / "docker" / "Dockerfile").read_text()
    assert re.search(r"^FROM python:3\.\d+-slim", dockerfile, re.MULTILINE)
    assert re.search(r"pip install -r \S*env/python/requirements\.txt", dockerfile)


def test_image_requirements_are_the_runtime_ones(bento: Path) -> None:
    """The image installs the runtime packages, and nothing but BentoML's own pin beside them."""
    lines = (bento / "env" / "python" / "requirements.txt").read_text().splitlines()
    extra = requirements(lines) - runtime_requirements()
    assert runtime_requirements() <= requirements(lines)
    assert {requirement.name for requirement in extra} <= {"bentoml"}


def test_bento_answers_exactly(served_bento: Server) -> None:
    """The built bento, served from another folder with no network, answers exactly."""
    answer = post(served_bento.address, chat(), headers(ttft_ms=20, output_length=50))
    assert answer.status == 200
    content = json.loads(answer.body)["choices"][0]["message"]["content"]
    assert token_count(content, "cl100k_base") == 50


def test_bento_streams_exactly(served_bento: Server) -> None:
    """The built bento streams as exactly, and no earlier, than the repository's service."""
    answer = stream(served_bento.address, headers(20, 10, 50), model="gpt-4o")
    assert token_count(answer.text, "o200k_base") == len(answer.content) == 50
    assert answer.content[-1].arrival_s >= 0.020 + 49 * 0.010
