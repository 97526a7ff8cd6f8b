"""Clients of other people, unmodified, in environments of their own."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.clients.parts import FOLDER, PARTS
from tests.clients.results import read_pending
from tests.clients.running import SKIPPED
from tests.support.server import REPOSITORY, Server, clean_environment, running_server

TIMEOUT_S = 600  # the first time everything is downloaded and built


@pytest.fixture(scope="module")
def server(local_only: None) -> Iterator[Server]:  # noqa: ARG001 - it starts one
    """Yield a quick server with the profiles that clients without header fields need."""
    profiles = ("--arg", f"profiles={FOLDER / 'profiles.yaml'}")
    quick = ("--arg", "ttft_ms=5", "--arg", "itl_ms=1", "--arg", "workers=1")
    with running_server(*quick, *profiles) as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_other_clients_work(server: Server, part: str) -> None:
    """All checks of a part hold, but for those that wait for the server."""
    ended = subprocess.run(  # noqa: S603 - our own script
        [str(REPOSITORY / "tests" / "clients" / "run"), server.url, part],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if ended.returncode == SKIPPED:
        pytest.skip(ended.stdout[-500:])
    assert ended.returncode == 0, ended.stdout


def test_pending_checks_are_of_parts() -> None:
    """Each line of the table of what waits for the server names a part that there is."""
    pending = read_pending(FOLDER / "pending.txt")
    assert {part for part, _ in pending} <= set(PARTS)
    assert all(pending.values())
