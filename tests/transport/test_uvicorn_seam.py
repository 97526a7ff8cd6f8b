"""The seam to uvicorn: idle connections, and versions that lack what is used."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from emulator.transport import uvicorn_seam
from emulator.transport.uvicorn_seam import MAX_FRAME_BYTES, configure, lacking
from tests.support.raw import ended
from tests.support.raw import request as to_send
from tests.support.server import REPOSITORY, Server, args, running_server
from tests.support.servers.ahead import shared
from tests.support.wire import DONE, chat, headers, post, stream

FAST_PATH = "openai_emulator_fast_path"


@pytest.fixture
def own_uvicorn(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return what stands in uvicorn's place: other servers may run in this process."""
    stand_in = SimpleNamespace(Config=uvicorn.Config)
    monkeypatch.setattr(uvicorn_seam, "uvicorn", stand_in)
    return stand_in


# --------------------------------------------------------------------------------------
# Idle connections
# --------------------------------------------------------------------------------------


def test_connections_are_kept_for_the_set_time(own_uvicorn: SimpleNamespace) -> None:
    """Uvicorn is configured with our time, whatever time BentoML gives it."""
    assert configure(120) == []
    assert own_uvicorn.Config("app", timeout_keep_alive=5).timeout_keep_alive == 120


def test_frames_of_websockets_are_bounded(own_uvicorn: SimpleNamespace) -> None:
    """Frames have our bound and come as they are, whatever BentoML says."""
    assert configure(120) == []
    config = own_uvicorn.Config("app")
    assert (config.ws_max_size, config.ws_per_message_deflate) == (MAX_FRAME_BYTES, False)


def test_option_of_bentoml_wins(
    own_uvicorn: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The idle time is BentoML's where its own option is in the worker's command line."""
    monkeypatch.setattr(sys, "argv", ["service.py", "--timeout-keep-alive", "9"])
    assert configure(120) == []
    assert own_uvicorn.Config("app", timeout_keep_alive=9).timeout_keep_alive == 9


def test_uvicorn_without_idle_time_is_left_alone(own_uvicorn: SimpleNamespace) -> None:
    """Where uvicorn has no such option, what it lacks is named and its configuration stays."""
    own_uvicorn.Config = object
    assert "Config(timeout_keep_alive=...)" in configure(120)
    assert own_uvicorn.Config is object


@pytest.mark.slow
@pytest.mark.usefixtures("local_only")
def test_option_of_bentoml_counts() -> None:
    """`bentoml serve --timeout-keep-alive` still says how long a connection may be idle."""
    with running_server("--timeout-keep-alive", "1", "--arg", "workers=1") as server:
        idle = ended(server.address, to_send("GET", "/health", close=False))
        assert 1 <= idle.after_s < 60  # 120 s by default


# --------------------------------------------------------------------------------------
# The fast path
# --------------------------------------------------------------------------------------


def test_fast_path_is_on(one_worker: Server) -> None:
    """With the pinned versions answers go past uvicorn and BentoML, which log and metrics tell."""
    log, metrics = one_worker.log(), one_worker.metrics()
    for package in ("uvicorn", "bentoml"):
        assert f"fast path {package}=on" in log
        assert metrics.total(FAST_PATH, package=package) == 1


@pytest.mark.parametrize(
    ("cls", "name"),
    [(HttpToolsProtocol, "on_body"), (RequestResponseCycle, "send")],
)
def test_what_a_version_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, cls: type, name: str
) -> None:
    """A method that is gone is told by its name; nothing is missing here."""
    assert lacking() == []
    monkeypatch.delattr(cls, name)
    assert f"{cls.__name__}.{name}" in lacking()


LACKING = """
import sys
sys.path.insert(0, {root!r})
{change}
from service import OpenAIEmulator
"""
CHANGES = {
    "uvicorn": (
        "from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol\n"
        "del HttpToolsProtocol._should_upgrade",
        "lacks HttpToolsProtocol._should_upgrade",
    ),
    "bentoml": (
        "from bentoml._internal.server.http import instruments\n"
        "class Other(instruments.RunnerTrafficMetricsMiddleware): pass\n"
        "instruments.RunnerTrafficMetricsMiddleware = Other",
        "lacks the middleware Other has to see every request",
    ),
}


def without(folder: Path, package: str) -> AbstractContextManager[Server]:
    """Run a server where a part of a package is gone."""
    change, _ = CHANGES[package]
    (folder / "lacking.py").write_text(LACKING.format(root=str(REPOSITORY), change=change))
    return running_server(*args(workers=1), target="lacking.py:OpenAIEmulator", cwd=folder)


@shared("module")
def without_uvicorns(folder: Path) -> AbstractContextManager[Server]:
    """Yield a server where a part of uvicorn is gone."""
    return without(folder, "uvicorn")


@shared("module")
def without_bentomls(folder: Path) -> AbstractContextManager[Server]:
    """Yield a server where a part of BentoML is gone."""
    return without(folder, "bentoml")


def test_the_server_does_without_uvicorns(without_uvicorns: Server) -> None:
    """Where a part is gone the server starts and answers, and says what it lacks and the cost."""
    check_without(without_uvicorns, "uvicorn")


def test_the_server_does_without_bentomls(without_bentomls: Server) -> None:
    """So it does where the part was BentoML's."""
    check_without(without_bentomls, "bentoml")


def check_without(server: Server, package: str) -> None:
    """Look at answers, metrics and the log of a server that lacks a part of a package."""
    _, told = CHANGES[package]
    streamed = stream(server.address, headers(20, 5, 10))
    whole = post(server.address, chat(), headers(20, 5, 10))
    refused = post(server.address, chat(n=0), {})
    metrics, log = server.metrics(), server.log()
    assert (len(streamed.content), streamed.events[-1].data) == (10, DONE)
    assert all(e.arrival_s >= 0.020 + 0.005 * i for i, e in enumerate(streamed.content))
    assert (whole.status, refused.status) == (200, 400)
    assert told in log
    assert log.count("fast path ") == 2
    assert {name: metrics.total(FAST_PATH, package=name) for name in CHANGES} == {
        name: float(name != package) for name in CHANGES
    }
