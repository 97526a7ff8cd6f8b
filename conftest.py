"""A real server for the tests, and the clients that talk to it.

With EMULATOR_URL set, the tests talk to the server at that address; those that read the server's
log or start servers with settings of their own are then skipped.
"""

import os
from collections.abc import AsyncIterator, Generator, Iterator

import httpx
import openai
import pytest

from tests.server import REPOSITORY, TLS, Server, running_server

EMULATOR_URL = os.environ.get("EMULATOR_URL", "").rstrip("/")

# The tests count tokens with tiktoken too; it must not try to download a vocabulary.
os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(REPOSITORY / "tiktoken_cache"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run tests that are coroutines on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Yield the server under test, with default settings."""
    if EMULATOR_URL:
        yield Server(EMULATOR_URL)
        return
    with running_server() as started:
        yield started


@pytest.fixture
def logged_server(server: Server) -> Server:
    """Return the server under test if its log can be read."""
    if server.log_file is None:
        pytest.skip("the log of the server at EMULATOR_URL cannot be read")
    return server


@pytest.fixture(scope="session")
def local_only() -> None:
    """Skip what needs servers with settings of their own, or files, when EMULATOR_URL is set."""
    if EMULATOR_URL:
        pytest.skip("starts servers of its own, so it says nothing about EMULATOR_URL")


# What the traces of the server with one worker hold: gaps in ms.
TRACE = (0.0, 0.0, 30.0, 10.0)


@pytest.fixture(scope="session")
def one_worker(local_only: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:  # noqa: ARG001
    """Yield a server with one worker, whose figures are those of one process."""
    traces = tmp_path_factory.mktemp("traces")
    (traces / "burst.csv").write_text("# ms\n" + "\n".join(map(str, TRACE)))
    with running_server("--arg", "workers=1", "--arg", f"traces={traces}") as started:
        yield started


@pytest.fixture(scope="session")
def base_url(server: Server) -> str:
    """Return the address of the server under test."""
    return server.url


@pytest.fixture(scope="session")
def address(server: Server) -> tuple[str, int]:
    """Return host and port of the server under test."""
    return server.address


@pytest.fixture(scope="session")
def other_server(local_only: None) -> Iterator[Server]:  # noqa: ARG001 - skips
    """Yield another server, one that is strict about parameters and shows its reasoning."""
    settings = ["strict_parameters=true", "reasoning_lengths=low=64,high=512"]
    settings += ["reasoning_content=true", "workers=1"]
    with running_server(*(word for setting in settings for word in ("--arg", setting))) as started:
        yield started


def sdk_client(url: str) -> openai.OpenAI:
    """Return the official client, set up as the specification shows."""
    return openai.OpenAI(
        api_key="dummy-key",
        base_url=f"{url}/v1",
        max_retries=0,
        http_client=openai.DefaultHttpxClient(verify=TLS),
    )


@pytest.fixture
def other_client(other_server: Server) -> Iterator[openai.OpenAI]:
    """Yield the official client of the other server."""
    with sdk_client(other_server.url) as sync_client:
        yield sync_client


@pytest.fixture(scope="session")
def http(base_url: str) -> Iterator[httpx.Client]:
    """Yield a plain HTTP client of the server under test."""
    with httpx.Client(base_url=base_url, timeout=30, trust_env=False, verify=TLS) as client:
        yield client


@pytest.fixture
def client(base_url: str) -> Iterator[openai.OpenAI]:
    """Yield the official client, set up as the specification shows."""
    with sdk_client(base_url) as sync_client:
        yield sync_client


@pytest.fixture
async def async_client(base_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """Yield the official asynchronous client."""
    async with openai.AsyncOpenAI(
        api_key="dummy-key",
        base_url=f"{base_url}/v1",
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(verify=TLS),
    ) as client:
        yield client


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the log of every server that a failed test used."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Server) and value.log_file and value.log_file.exists():
                report.sections.append((f"log of {value.url}", value.log_tail()))
    return report
