"""The seam to BentoML: the command line's arguments, also where BentoML is another than we know."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from bentoml.exceptions import BentoMLConfigException

from emulator.transport import bentoml_seam
from emulator.transport.bentoml_seam import ARGUMENTS_VARIABLE, read_settings


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what a test hands on to workers."""
    monkeypatch.setenv(ARGUMENTS_VARIABLE, "{}")


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process pass for BentoML's first worker."""
    bentoml_ = SimpleNamespace(
        server_context=SimpleNamespace(worker_index=1), use_arguments=SimpleNamespace
    )
    monkeypatch.setattr(bentoml_seam, "bentoml", bentoml_)


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
# Another BentoML
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
