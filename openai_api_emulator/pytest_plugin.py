"""Fixtures for pytest: one emulator for all tests of a run, and a scope of it for each test."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from openai_api_emulator.client import Emulator, Scope
    from openai_api_emulator.running.server import Server

INI = "openai_emulator_settings"
# Answers at once, unless the settings or a test say otherwise.
DEFAULTS = {"workers": "1", "ttft_ms": "0", "itl_ms": "0"}
LOG_LINES = 40
OF_CONTROL = ",path=/emulator"

_SETTINGS = pytest.StashKey[dict[str, Any]]()
_SERVER: pytest.StashKey["Server"] = pytest.StashKey()
_LOG_START: pytest.StashKey[int] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, and the settings of pytest's configuration."""
    group = parser.getgroup("openai-api-emulator", "OpenAI API emulator")
    group.addoption(
        "--openai-emulator",
        action="append",
        default=[],
        metavar="SETTING=VALUE",
        help="a setting of the server that the tests share: ttft_ms=20; wins over the "
        f"configuration's {INI}",
    )
    group.addoption(
        "--openai-emulator-url",
        metavar="URL",
        help="use the server at this address, and start none",
    )
    parser.addini(
        INI, "settings of the server that the tests share, one SETTING=VALUE a line", "linelist", []
    )


def pytest_configure(config: pytest.Config) -> None:
    """Read the settings before any test.

    Raises:
        UsageError: One has no value.
    """
    settings: dict[str, Any] = dict(DEFAULTS)
    for given in [*config.getini(INI), *config.getoption("openai_emulator")]:
        name, mark, value = given.partition("=")
        if not mark:
            raise pytest.UsageError(f"OpenAI emulator: expected SETTING=VALUE, but got {given!r}")
        settings[name.strip()] = value.strip()
    config.stash[_SETTINGS] = settings


@pytest.fixture(scope="session")
def openai_emulator(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator["Emulator"]:
    """Yield the client of a server that all tests of the run share, those of pytest-xdist too."""
    from openai_api_emulator.client import Emulator  # noqa: PLC0415 - pytest loads all plugins

    url = pytestconfig.getoption("openai_emulator_url")
    if url is not None:
        with Emulator(url) as emulator:
            yield emulator
        return
    from openai_api_emulator.running.server import Server  # noqa: PLC0415 - the same

    folder = _folder_of_run(pytestconfig, tmp_path_factory)
    settings = pytestconfig.stash[_SETTINGS]
    with Server(folder=folder, cwd=pytestconfig.rootpath, **settings) as server:
        pytestconfig.stash[_SERVER] = server
        with Emulator(server.url) as emulator:
            yield emulator
        del pytestconfig.stash[_SERVER]


@pytest.fixture
def emulator(openai_emulator: "Emulator") -> Iterator["Scope"]:
    """Yield a scope for this test alone: its clients, rules, counts and requests."""
    with openai_emulator.scope() as scope:
        yield scope


def _folder_of_run(config: pytest.Config, factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the server, which the workers of pytest-xdist share."""
    base = factory.getbasetemp()
    return (base.parent if hasattr(config, "workerinput") else base) / "openai-emulator"


# --------------------------------------------------------------------------------------
# What is shown of a test that fails
# --------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note where the log is when a test begins."""
    server = item.config.stash.get(_SERVER, None)
    item.stash[_LOG_START] = server.log_size() if server is not None else 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the emulator logged and saw while a test ran that has failed."""
    report = yield
    used = getattr(item, "funcargs", {})
    if report.failed and "openai_emulator" in used:
        if "emulator" in used:
            report.sections.append(("requests of this test", _requests(used["emulator"])))
        server = item.config.stash.get(_SERVER, None)
        if server is not None:
            lines = server.log(item.stash[_LOG_START]).splitlines()
            told = [line for line in lines if OF_CONTROL not in line][-LOG_LINES:]
            report.sections.append(("log of the emulator", "\n".join(told)))
    return report


def _requests(scope: "Scope") -> str:
    """Return the requests of a test, as lines to read."""
    import httpx  # noqa: PLC0415 - pytest loads all plugins

    from openai_api_emulator import EmulatorError, journal  # noqa: PLC0415 - the same

    try:
        return journal.table(scope.requests())
    except (EmulatorError, httpx.HTTPError) as error:
        return f"not known: {error!r}"
