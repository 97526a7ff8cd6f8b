"""Clients of other people, unmodified, in an environment of their own."""

import subprocess

import pytest

from tests.support.server import REPOSITORY, clean_environment, running_server

CANNOT_INSTALL = 77  # as the script says where it cannot install them
TIMEOUT_S = 600  # the first time everything is downloaded


@pytest.mark.slow
@pytest.mark.usefixtures("local_only")
def test_other_clients_work() -> None:
    """openai-agents, pydantic-ai, LangChain, the Vercel AI SDK and openai-node all work."""
    quick = ("--arg", "ttft_ms=0", "--arg", "itl_ms=0", "--arg", "workers=1")
    with running_server(*quick) as server:
        ended = subprocess.run(  # noqa: S603 - our own script
            [str(REPOSITORY / "tests" / "clients" / "run"), server.url],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    if ended.returncode == CANNOT_INSTALL:
        pytest.skip(f"the clients cannot be installed here: {ended.stdout[-500:]}")
    assert ended.returncode == 0, ended.stdout
