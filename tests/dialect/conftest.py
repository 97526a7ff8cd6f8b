"""A server that speaks as vLLM does."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.server import Server, args, running_server

ENGINE = Path(__file__).parent / "data" / "engine.yaml"
KEYS = "keys:\n  - {name: team, key: sk-team-0123456789}\n"


@pytest.fixture(scope="session")
def vllm_server(local_only: None) -> Iterator[Server]:  # noqa: ARG001 - it skips
    """Yield a server with the dialect, the model and the context of the vLLM of the goldens."""
    with running_server(*args(workers=1, dialect="vllm", models="m", engine=ENGINE)) as server:
        yield server


@pytest.fixture(scope="session")
def keyed_server(local_only: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:  # noqa: ARG001 - it skips
    """Yield a server of that dialect that knows one key."""
    keys = tmp_path_factory.mktemp("keys") / "keys.yaml"
    keys.write_text(KEYS)
    with running_server(*args(workers=1, dialect="vllm", models="m", api_keys=keys)) as server:
        yield server


@pytest.fixture
def vllm(vllm_server: Server) -> Iterator[httpx.Client]:
    """Yield a client of the server that speaks as vLLM does."""
    with httpx.Client(base_url=vllm_server.url, timeout=60) as client:
        yield client


@pytest.fixture
def settings(vllm: httpx.Client) -> Iterator[Callable[..., None]]:
    """Yield what changes settings of the server until the test has ended."""
    before = vllm.get("/emulator/settings").json()["settings"]
    changed: dict[str, object] = {}

    def change(**wanted: object) -> None:
        changed.update({name: before[name] for name in wanted})
        vllm.patch("/emulator/settings", json=wanted).raise_for_status()

    yield change
    if changed:
        vllm.patch("/emulator/settings", json=changed).raise_for_status()
