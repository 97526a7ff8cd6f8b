"""The test files as the specification runs them, and the benchmarks to their end."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.server import REPOSITORY, Server, clean_environment


def run(environment: Mapping[str, str], script: str, *arguments: str | Path) -> str:
    """Return what a script prints; it must end well."""
    ended = subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, script, *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def benchmark(home: Path, script: str, *arguments: str | Path) -> str:
    """Return what a benchmark prints; `home` is BentoML's."""
    environment = clean_environment({"BENTOML_HOME": str(home)})
    return run(environment, f"benchmarks/{script}.py", *arguments)


@pytest.mark.parametrize(
    ("script", "test"),
    [("test_api.py", "test_health"), ("test_multimodal.py", "test_image_alone")],
)
def test_runs_as_a_script(script: str, test: str, base_url: str) -> None:
    """``python test_api.py`` and ``python test_multimodal.py`` run their tests with pytest."""
    environment = {**os.environ, "EMULATOR_URL": base_url}
    assert "1 passed" in run(environment, script, "-k", test, "-p", "no:cacheprovider")


def test_fidelity(one_worker: Server, tmp_path: Path) -> None:
    """The benchmark of the clock prints, writes and draws the figures of its cells."""
    figures, picture = tmp_path / "fidelity.json", tmp_path / "fidelity.png"
    has_matplotlib = importlib.util.find_spec("matplotlib") is not None
    drawn: list[str | Path] = ["--png", picture] if has_matplotlib else []
    cell = ["--streams", "2", "--itl-ms", "5", "--duration-s", "0.5"]
    printed = benchmark(
        tmp_path, "fidelity", "--url", one_worker.url, *cell, "--json", figures, *drawn
    )
    [measured] = json.loads(figures.read_text())
    row = [float(value) for value in printed.split("RSS MB")[1].splitlines()[1].split()]
    assert row[:3] == [2, 5, 400]
    assert row[5] == pytest.approx(measured["gap_error_p50_ms"], abs=0.001)
    assert 0 < measured["gap_error_p50_ms"] < measured["gap_error_max_ms"]
    assert measured["tokens_lost"] == 0
    assert not drawn or picture.read_bytes().startswith(b"\x89PNG")


def test_throughput(local_only: None, tmp_path: Path) -> None:  # noqa: ARG001 - skips
    """The benchmark of the throughput prints and writes both servers' figures."""
    figures = tmp_path / "throughput.json"
    run = ["--workers", "1", "--measure", "whole", "--runs", "1", "--duration-s", "0.3"]
    printed = benchmark(tmp_path, "throughput", *run, "--json", figures)
    measured = json.loads(figures.read_text())["1"]["whole"]
    row = re.search(r"1  whole +([\d,]+) +([\d,]+) +\d+%  answers/s", printed)
    assert row
    rates = [int(rate.replace(",", "")) for rate in row.groups()]
    assert rates == [round(measured["emulator"]), round(measured["ceiling"])]
    assert min(rates) > 100
