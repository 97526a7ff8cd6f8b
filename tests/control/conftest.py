"""Servers whose settings the tests of control change."""

from collections.abc import Iterator

import pytest

from tests.control.controller import Controller
from tests.support.server import Server, args, eventually, running_server

KEY = "a-key-of-thirty-two-characters-x"


@pytest.fixture(scope="package")
def controlled(local_only: None) -> Iterator[Server]:  # noqa: ARG001 - skips
    """Yield a server of two workers that nobody else changes."""
    with running_server(*args(workers=2)) as server:
        controller = Controller(server)
        assert eventually(lambda: controller.status["workers"]["count"] == 2, 20)
        yield server


@pytest.fixture
def control(controlled: Server) -> Iterator[Controller]:
    """Yield what changes that server; after the test it is as it was at its start."""
    controller = Controller(controlled)
    yield controller
    controller.reset()


@pytest.fixture(scope="package")
def keyed(local_only: None) -> Iterator[Server]:  # noqa: ARG001 - skips
    """Yield a server with an engine, one worker, and a key for its control."""
    with running_server(*args(workers=1, engine="paper", control_key=KEY)) as server:
        yield server


@pytest.fixture
def engine(keyed: Server) -> Iterator[Controller]:
    """Yield what changes that server; after the test it is as it was at its start."""
    controller = Controller(keyed)
    yield controller
    controller.reset()
