"""The prediction of an engine's latency under load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.engine_load import Workload, capacity, measure
from engine.config import load_engine
from tests.server import REPOSITORY, clean_environment


def test_the_knee() -> None:
    """Below saturation all is served in time; beyond, the queue grows and tokens/s do not."""
    config, workload = load_engine("paper"), Workload(200, 50)
    most = capacity(config, workload)
    below, above = (measure(config, workload, load, load * most, 300) for load in (0.5, 1.3))
    assert below.waiting < 0.1
    assert below.tokens_per_s == pytest.approx(0.5 * most * 50, rel=0.1)
    assert above.waiting > 10
    assert above.ttft_p50_ms > 10 * below.ttft_p50_ms
    assert above.tokens_per_s == pytest.approx(most * 50, rel=0.1)


def test_the_command(tmp_path: Path) -> None:
    """``python -m benchmarks.engine paper`` prints a row for each load and writes the figures."""
    figures = tmp_path / "figures.json"
    command = ["-m", "benchmarks.engine", "paper", "--duration-s", "20", "--loads", "0.5", "1"]
    ended = subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, *command, "--json", figures],
        cwd=REPOSITORY,
        env=clean_environment({"BENTOML_HOME": str(tmp_path)}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [row["load"] for row in json.loads(figures.read_text())] == pytest.approx([0.5, 1])
    assert len(ended.stdout.splitlines()) == 3 + 2
