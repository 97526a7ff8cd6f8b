"""The built bento: what it holds, what its image installs, and that it serves from anywhere."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.raw import ended, request
from tests.support.server import (
    REPOSITORY,
    Server,
    args,
    bentoml,
    clean_environment,
    running_server,
)
from tests.support.servers.ahead import shared
from tests.support.wire import chat, headers, post, stream, token_count

pytestmark = pytest.mark.usefixtures("local_only")

LOCK = "requirements-image.txt"

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


@dataclass(frozen=True)
class Built:
    """The bento: its store, its folder there, and a server that serves it."""

    home: Path
    folder: Path
    server: Server


@shared("module")
@contextmanager
def built(folder: Path) -> Iterator[Built]:
    """Build the bento, and serve it from an empty folder, with settings and no network."""
    home, elsewhere, bytecode = (folder / name for name in ("home", "elsewhere", "bytecode"))
    elsewhere.mkdir()
    bento = build(home)
    with running_server(
        *args(workers=1, itl_ms=10),
        target="openai_emulator:latest",
        cwd=elsewhere,
        env={
            **NO_NETWORK,
            "BENTOML_HOME": str(home),
            "EMULATOR_TTFT_MS": "300",
            "EMULATOR_ITL_MS": "10000",
            "EMULATOR_KEEP_ALIVE_S": "1",
            "PYTHONPYCACHEPREFIX": str(bytecode),  # what it compiles is not of the bento
        },
    ) as server:
        yield Built(home, bento, server)


@pytest.fixture
def bento_home(built: Built) -> Path:
    """Return the store of the built bento."""
    return built.home


@pytest.fixture
def bento(built: Built) -> Path:
    """Return the folder of the built bento."""
    return built.folder


@pytest.fixture
def served_bento(built: Built) -> Server:
    """Return the server of the built bento."""
    return built.server


def test_lock_has_the_runtime_packages() -> None:
    """What the image installs is in the bounds of the runtime section and the optional extra."""
    pins = {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in requirements((REPOSITORY / LOCK).read_text().splitlines())
    }
    wanted = {one for one in runtime_requirements() if one.name != "bentoml"}
    differing = [
        str(one)
        for one in wanted
        if not one.specifier.contains(pins.get(canonicalize_name(one.name), "0.dev0"))
    ]
    assert differing == []


def test_runtime_packages_have_lower_bounds() -> None:
    """Every runtime requirement says from which version on it works."""
    unbounded = [r.name for r in runtime_requirements() if ">=" not in str(r.specifier)]
    assert unbounded == []


def test_bento_holds_the_modules(bento: Path) -> None:
    """The bento holds the modules that the service imports."""
    names = {file.name for file in (bento / "src").glob("*.py")}
    assert {"service.py", "schemas.py", "tokenizer.py"} <= names


def test_bento_holds_the_page(bento: Path) -> None:
    """The files of the page are in the bento as they are in the repository."""
    folder = "emulator/pages/console/web"
    packed = {path.name: path.read_bytes() for path in (bento / "src" / folder).iterdir()}
    assert packed == {path.name: path.read_bytes() for path in (REPOSITORY / folder).iterdir()}


def test_bento_holds_the_vocabularies(bento: Path) -> None:
    """The bento holds the vocabularies, byte for byte."""
    bundled = sorted((REPOSITORY / "tiktoken_cache").iterdir())
    assert len(bundled) == 3
    packed = sorted((bento / "src" / "tiktoken_cache").iterdir())
    assert [file.name for file in packed] == [file.name for file in bundled]
    assert [file.read_bytes() for file in packed] == [file.read_bytes() for file in bundled]


def test_bento_holds_no_tests(bento: Path) -> None:
    """Neither tests nor the load test, the package nor tools' leftovers are in the bento."""
    held = [str(file.relative_to(bento / "src")) for file in (bento / "src").rglob("*")]
    others = r"tests?($|/)|test_|conftest|locustfile|openai_api_emulator|\.|__pycache__|venv"
    unwanted = re.compile(f"(^|/)({others})")
    assert [name for name in held if unwanted.search(name)] == []


def test_bento_holds_the_license(bento: Path) -> None:
    """Whoever has the image has its license."""
    assert (bento / "src/LICENSE").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()


def test_image_installs_no_system_packages(bento: Path) -> None:
    """The image is a slim Python that installs what the bento requires, and no compilers."""
    dockerfile = (bento / "env/docker/Dockerfile").read_text()
    assert re.search(r"^FROM python:3\.11-slim", dockerfile, re.MULTILINE)
    assert "uv venv --python 3.11 " in dockerfile
    assert re.search(r"pip install -r \S*env/python/requirements\.txt", dockerfile)
    assert "apt-get" not in dockerfile


def test_image_sends_no_usage_report(bento: Path) -> None:
    """BentoML's usage report is off in the image."""
    dockerfile = (bento / "env/docker/Dockerfile").read_text()
    assert "ARG BENTOML_DO_NOT_TRACK=True\n" in dockerfile
    assert "ENV BENTOML_DO_NOT_TRACK=$BENTOML_DO_NOT_TRACK\n" in dockerfile


def test_image_installs_the_lock(bento: Path) -> None:
    """The image installs the locked packages, and BentoML in the version that has built it."""
    installed = requirements((bento / "env/python/requirements.txt").read_text().splitlines())
    locked = requirements((REPOSITORY / LOCK).read_text().splitlines())
    assert installed == locked | {Requirement(f"bentoml=={version('bentoml')}")}


# --------------------------------------------------------------------------------------
# The bento as a server
# --------------------------------------------------------------------------------------


def test_argument_counts_in_a_bento(served_bento: Server) -> None:
    """An argument of `bentoml serve` counts though the bento was built without, and wins."""
    start_s = time.monotonic()
    asked = {"X-TTFT-MS": "0", "X-OUTPUT-LENGTH": "11"}
    assert post(served_bento.address, chat(), asked).status == 200
    assert 0.1 <= time.monotonic() - start_s < 90  # 100 s by the environment


def test_variable_counts_in_a_bento(served_bento: Server) -> None:
    """A variable of the environment counts in a bento where no argument says other."""
    start_s = time.monotonic()
    asked = {"X-OUTPUT-LENGTH": "1"}
    assert post(served_bento.address, chat(), asked).status == 200
    assert time.monotonic() - start_s >= 0.3


def test_workers_count_in_a_bento(served_bento: Server) -> None:
    """A bento starts as many workers as were asked for."""
    assert len(served_bento.workers) == 1


def test_idle_time_counts_in_a_bento(served_bento: Server) -> None:
    """A connection to a bento may be idle as long as was asked for."""
    idle = ended(served_bento.address, request("GET", "/health", close=False))
    assert 1 <= idle.after_s < 60  # 120 s by default


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (["--arg", "ttft_ms=-1"], {}, "--arg ttft_ms=-1: "),
        (["--arg", "ttft=1"], {}, "the nearest is ttft_ms"),
        ([], {"EMULATOR_TTFT_MS": "-1"}, "EMULATOR_TTFT_MS=-1: "),
        ([], {"EMULATOR_TTFT": "1"}, "the nearest is EMULATOR_TTFT_MS"),
    ],
)
def test_bad_setting_stops_a_bento(
    bento_home: Path, arguments: list[str], environment: dict[str, str], named: str
) -> None:
    """A bad setting ends `bentoml serve` of a bento with a message that names it."""
    ended_ = subprocess.run(  # noqa: S603 - our own command line
        bentoml("serve", "openai_emulator:latest", "--port", "0", *arguments),
        env=clean_environment({**environment, "BENTOML_HOME": str(bento_home)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended_.returncode > 0
    assert named in " ".join(ended_.stdout.split())
    assert "Traceback" not in ended_.stdout


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
