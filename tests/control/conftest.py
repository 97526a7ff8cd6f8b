"""Servers whose settings the tests of control change, and the client that changes them."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.server import PLAIN, Server, args, eventually, running_server

KEY = "a-key-of-thirty-two-characters-x"
JSON = {"content-type": "application/json"}


class Controller:
    """Changes a server; each method returns the answer's JSON, and fails if it is an error.

    Args:
        server: The server.
    """

    def __init__(self, server: Server) -> None:
        self.server = server

    def ask(self, method: str, path: str, body: object = None, **extra: str) -> httpx.Response:
        """Return the answer to a request for control; a header's name has _ for -."""
        headers = {name.replace("_", "-"): value for name, value in extra.items()}
        return self.http(method, f"/emulator{path}", headers={**JSON, **headers}, json=body)

    def http(self, method: str, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401
        """Return the answer to a request on a connection of its own, which any worker may take."""
        return PLAIN.request(method, f"{self.server.url}{path}", **more)

    def done(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Return what an answer says that is none of an error."""
        answer = self.ask(method, path, body)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def patch(self, **settings: object) -> dict[str, Any]:
        """Change settings."""
        return self.done("PATCH", "/settings", settings)

    def put_rules(self, *rules: dict[str, Any]) -> dict[str, Any]:
        """Swap all rules."""
        return self.done("PUT", "/rules", {"rules": rules})

    def reset(self, *what: str) -> dict[str, Any]:
        """Go back to the start's, in all or in some."""
        return self.done("POST", "/reset", {"what": what} if what else {})

    @property
    def status(self) -> dict[str, Any]:
        """What GET /emulator tells."""
        return self.done("GET", "")


@pytest.fixture(scope="package")
def controlled(local_only: None) -> Iterator[Server]:  # noqa: ARG001 - skips
    """Yield a server of two workers that nobody else changes."""
    with running_server(*args(workers=2)) as server:
        controller = Controller(server)
        assert eventually(lambda: controller.status["workers"]["count"] == 2)
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
