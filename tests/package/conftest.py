"""A server that the clients of the package control."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from openai_api_emulator import Emulator
from tests.support.server import REPOSITORY, Server, args, running_server
from tests.support.servers.ahead import shared


@shared()
def packaged(_: Path) -> AbstractContextManager[Server]:
    """Yield a server of two workers that only these tests change."""
    return running_server(*args(workers=2, ttft_ms=0, itl_ms=0))


@pytest.fixture
def emulator(packaged: Server) -> Iterator[Emulator]:
    """Yield the client of that server; after the test it is as it was at its start."""
    with Emulator(packaged.url) as client:
        yield client
        client.reset()


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let other processes import the package from the repository."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
