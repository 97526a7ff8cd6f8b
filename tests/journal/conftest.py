"""A server of two workers, and what asks its journal."""

from collections.abc import Iterator

import pytest

from tests.control.conftest import Controller
from tests.support.server import Server, args, eventually, running_server


@pytest.fixture(scope="package")
def journaled(local_only: None) -> Iterator[Server]:  # noqa: ARG001 - skips
    """Yield a server of two workers with a journal."""
    with running_server(*args(workers=2, ttft_ms=0, itl_ms=0)) as server:
        controller = Controller(server)
        assert eventually(lambda: controller.status["workers"]["count"] == 2, 20)
        yield server


@pytest.fixture
def control(journaled: Server) -> Iterator[Controller]:
    """Yield what asks that server, whose journal is empty; it is as at its start after the test."""
    controller = Controller(journaled)
    controller.reset()
    yield controller
    controller.reset()
