"""A real server for the tests, and the clients that talk to it.

With EMULATOR_URL set, the tests talk to the server at that address; those that read the server's
log or start servers with settings of their own are then skipped.
"""

import gc
import os
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import hypothesis
import openai
import pytest

from tests.support.raw import Ended, ended, request
from tests.support.server import REPOSITORY, TLS, Server, args, configured, running_server
from tests.support.servers.ahead import AHEAD, shared
from tests.support.simulated.client import Simulated, running_simulation

# Taken out of the environment, where it would be a setting that does not exist.
EMULATOR_URL = os.environ.pop("EMULATOR_URL", "").rstrip("/")

# The clients of others have environments of their own, see tests/clients/run.
collect_ignore = ["tests/clients"]

# How long an example takes says more of the machine than of the code. The slow tests alone draw
# other examples each time: what these find is a fault, but none that the last change has made.
hypothesis.settings.register_profile("the same examples", deadline=None, derandomize=True)
hypothesis.settings.register_profile("new examples", deadline=None, print_blob=True)


def pytest_configure(config: pytest.Config) -> None:
    """Choose the examples."""
    slow = config.option.markexpr == "slow"
    hypothesis.settings.load_profile("new examples" if slow else "the same examples")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Run what draws examples with the slow tests too, with new ones."""
    draws = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
    if draws and item.config.option.markexpr == "slow":
        item.add_marker("slow")


def pytest_runtestloop(session: pytest.Session) -> None:
    """Begin to start what the tests share, in the order of the tests."""
    gc.freeze()  # thousands of tests are no garbage: collections need not look at them
    if not EMULATOR_URL and not session.config.option.collectonly:
        AHEAD.expect(name for item in session.items for name in getattr(item, "fixturenames", ()))


def pytest_sessionfinish() -> None:
    """End what no test has asked for."""
    AHEAD.close()


# The tests count tokens with tiktoken too; it must not try to download a vocabulary.
os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(REPOSITORY / "tiktoken_cache"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run tests that are coroutines on asyncio."""
    return "asyncio"


AHEAD.know("server", lambda _: running_server())


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Yield the server under test, with default settings."""
    if EMULATOR_URL:
        yield Server(EMULATOR_URL)
        return
    with AHEAD.running("server") as started:
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


def write_trace(folder: Path) -> None:
    """Write the trace named burst."""
    (folder / "burst.csv").write_text("# ms\n" + "\n".join(map(str, TRACE)))


Unended = Mapping[str, "Future[Ended]"]


@shared()
@contextmanager
def one_worker_and_unended(folder: Path) -> Iterator[tuple[Server, Unended]]:
    """Run a server with one worker, and begin requests that never end, each in its own way."""
    write_trace(folder)
    begun = {
        "request line": b"GET /hea",
        "headers": b"GET /health HTTP/1.1\r\nHost: a\r\n",
        "line ends": b"\r\n\r\n",
        "the second request": request("GET", "/health", close=False) + b"GET ",
    }
    arguments = args(workers=1, traces=folder)
    with ThreadPoolExecutor(len(begun)) as pool, running_server(*arguments) as server:
        yield server, {n: pool.submit(ended, server.address, data) for n, data in begun.items()}


@pytest.fixture(scope="session")
def one_worker(one_worker_and_unended: tuple[Server, Unended]) -> Server:
    """Return a server with one worker, whose figures are those of one process."""
    return one_worker_and_unended[0]


@pytest.fixture(scope="session")
def unended_headers(one_worker_and_unended: tuple[Server, Unended]) -> Unended:
    """Return what is to come of requests that never end, which began with the server."""
    return one_worker_and_unended[1]


@shared()
def simulated(folder: Path) -> AbstractContextManager[Simulated]:
    """Yield the service on simulated time, with the settings of `one_worker`."""
    write_trace(folder)
    return running_simulation(traces=folder)


@pytest.fixture(scope="session")
def base_url(server: Server) -> str:
    """Return the address of the server under test."""
    return server.url


@pytest.fixture(scope="session")
def address(server: Server) -> tuple[str, int]:
    """Return host and port of the server under test."""
    return server.address


# Servers with settings that do not touch each other are shared.

PAGE = "https://page.example"
BUSY_MODEL = "- match: {model: gpt-4-busy}\n  status: 429\n  retry_after_ms: 1500\n"


@shared()
def other_server(folder: Path) -> AbstractContextManager[Server]:
    """Yield another server, one that is strict about parameters and shows its reasoning.

    It lets the pages of two origins in, and takes failures from a file and from no header.
    """
    (folder / "faults.yaml").write_text(BUSY_MODEL)
    arguments = args(
        strict_parameters=True,
        reasoning_lengths="low=64,high=512",
        reasoning_content=True,
        cors_origins=f"{PAGE}, http://localhost:5173",
        fault_headers=False,
        faults=folder / "faults.yaml",
        workers=1,
    )
    return running_server(*arguments)


PROFILES = """\
- model: slow-*
  ttft_ms: 300
  itl_ms: 20
  output_length: 3
- model: "*-talker"  # never for slow-talker
  output_length: 9
  itl_ms: 1
  reasoning_length: 2
  emulation_report: true
- model: fast
  ttft_ms: 0
  itl_ms: 0
  itl_jitter: normal:0.2
  output_length: 300
"""


@shared()
def lenient_server(folder: Path) -> AbstractContextManager[Server]:
    """Yield a lenient server, which plays several models and answers as long as a limit allows.

    It lets no page of another origin in.
    """
    (folder / "profiles.yaml").write_text(PROFILES)
    arguments = args(
        lenient=True,
        profiles=folder / "profiles.yaml",
        ignore_eos=True,
        max_output_length=302,
        cors_origins="",
        workers=1,
    )
    return running_server(*arguments)


FAULTS = """\
- match: {model: '*-flaky', stream: true}
  kind: error
  after_tokens: {min: 1, max: 3}
- match: {model: 'twice'}
  status: 503
  attempts: 2
"""
# Models that no test but those of limits asks for.
LIMITS = """\
limits:
- {model: gpt-4-32k, rpm: 600}
- {model: gpt-3.5-turbo*, rpm: 100}
"""


@shared()
def two_workers(folder: Path) -> AbstractContextManager[Server]:
    """Yield a server with two workers, rules for failures and limits of some models."""
    (folder / "faults.yaml").write_text(FAULTS)
    (folder / "limits.yaml").write_text(LIMITS)
    files = {"faults": folder / "faults.yaml", "limits": folder / "limits.yaml"}
    return running_server(*args(**files, workers=2))


CORS = """
    http:
      cors:
        enabled: true
        access_control_allow_origins: ["https://chat.example"]
        access_control_allow_methods: ["POST"]
"""


@shared()
def behind_middleware(folder: Path) -> AbstractContextManager[Server]:
    """Yield a server that lets one web page in, by middleware that the operator has configured."""
    return configured(folder, CORS)


@shared()
def paper(_: Path) -> AbstractContextManager[Server]:
    """Yield a server with the engine of round numbers."""
    return running_server(*args(engine="paper", workers=1))


@shared()
def simulated_paper(_: Path) -> AbstractContextManager[Simulated]:
    """Yield the same engine on simulated time."""
    return running_simulation(engine="paper")


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
