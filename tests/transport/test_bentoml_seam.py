"""The seam to BentoML: the command line's arguments, also where BentoML is another than we know."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn
from bentoml.exceptions import BentoMLConfigException

from emulator.transport import bentoml_seam
from emulator.transport.bentoml_seam import ARGUMENTS_VARIABLE, keep_connections, read_settings
from tests.support.raw import ended
from tests.support.raw import request as to_send
from tests.support.server import running_server


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what a test hands on to workers."""
    monkeypatch.setenv(ARGUMENTS_VARIABLE, "{}")


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Let this process pass for BentoML's first worker; return its uvicorn."""
    bentoml_ = SimpleNamespace(
        server_context=SimpleNamespace(worker_index=1), use_arguments=SimpleNamespace
    )
    monkeypatch.setattr(bentoml_seam, "bentoml", bentoml_)
    uvicorn_ = SimpleNamespace(Config=uvicorn.Config)
    monkeypatch.setattr(bentoml_seam, "uvicorn", uvicorn_)
    return uvicorn_


# --------------------------------------------------------------------------------------
# Arguments
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "ttft_ms"),
    [
        (["--arg", "ttft_ms=7"], 7),
        (["--arg=ttft_ms=7", "--port", "3000"], 7),
        (["bento:latest", "-p", "3000", "--arg", "ttft_ms=1", "--arg", "ttft_ms=7"], 7),
        (["--arg-file", "FILE"], 5),
        (["--arg", "ttft_ms=7", "--arg-file", "FILE"], 7),
        (["--args", '{"ttft_ms": 7}'], 100),
        (["--reload"], 100),
    ],
)
def test_command_line_is_read(
    line: list[str], ttft_ms: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments count in each form that BentoML takes, before those of a file."""
    file = tmp_path / "arguments.yaml"
    file.write_text("ttft_ms: 5\n")
    words = [str(file) if word == "FILE" else word for word in line]
    monkeypatch.setattr(sys, "argv", ["bentoml", "serve", *words])
    assert read_settings().ttft_ms == ttft_ms


def test_missing_file_of_arguments_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that BentoML has found, and that is not in a bento's folder, is refused by name."""
    monkeypatch.setattr(sys, "argv", ["bentoml", "serve", "--arg-file", "absent.yaml"])
    with pytest.raises(BentoMLConfigException, match=r"^--arg-file absent\.yaml: not found in /"):
        read_settings()


def test_worker_has_the_arguments_of_its_parent(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """What one process reads from its command line, a worker that it starts finds."""
    monkeypatch.setattr(sys, "argv", ["bentoml", "serve", "--arg", "models=a,b"])
    read_settings()
    monkeypatch.setattr(sys, "argv", ["service.py", "bento:latest", "--args", "{}"])
    request.getfixturevalue("worker")
    assert read_settings().models == ("a", "b")


# --------------------------------------------------------------------------------------
# Another BentoML, another uvicorn
# --------------------------------------------------------------------------------------


def test_bentoml_without_what_is_used_starts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where BentoML tells neither arguments nor workers, a warning names it and we go on."""
    monkeypatch.setattr(bentoml_seam, "bentoml", SimpleNamespace())
    monkeypatch.setenv("EMULATOR_TTFT_MS", "7")
    assert read_settings().ttft_ms == 7
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert "use_arguments" in caplog.text
    assert "worker_index" in caplog.text


def test_worker_without_its_parents_environment_starts(
    worker: object,  # noqa: ARG001 - replaces BentoML
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where BentoML hands no environment on, a warning names it and we go on."""
    monkeypatch.delenv(ARGUMENTS_VARIABLE)
    assert read_settings().ttft_ms == 100
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("bentoml 1.")


def test_uvicorn_without_idle_time_starts(
    worker: SimpleNamespace,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where uvicorn has no such option, a warning names it and its configuration stays."""
    worker.Config = object
    keep_connections(120)
    assert worker.Config is object
    assert "uvicorn 0." in caplog.text


# --------------------------------------------------------------------------------------
# Idle connections
# --------------------------------------------------------------------------------------


def test_worker_keeps_connections_for_the_set_time(worker: SimpleNamespace) -> None:
    """Uvicorn is configured with our time, whatever time BentoML gives it."""
    keep_connections(120)
    assert worker.Config("app", timeout_keep_alive=5).timeout_keep_alive == 120


def test_option_of_bentoml_wins(worker: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The idle time is BentoML's where its own option is in the worker's command line."""
    monkeypatch.setattr(sys, "argv", ["service.py", "--timeout-keep-alive", "9"])
    keep_connections(120)
    assert worker.Config("app", timeout_keep_alive=9).timeout_keep_alive == 9


def test_process_that_starts_workers_is_left_alone() -> None:
    """Where there is no worker, uvicorn is as it was: other servers may run in this process."""
    before = uvicorn.Config
    keep_connections(120)
    assert uvicorn.Config is before


@pytest.mark.slow
@pytest.mark.usefixtures("local_only")
def test_option_of_bentoml_counts() -> None:
    """`bentoml serve --timeout-keep-alive` still says how long a connection may be idle."""
    with running_server("--timeout-keep-alive", "1", "--arg", "workers=1") as server:
        idle = ended(server.address, to_send("GET", "/health", close=False))
        assert 1 <= idle.after_s < 4
