"""The prediction of an engine's latency under load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.engine.knee import FIGURES
from tests.support.server import REPOSITORY, clean_environment


@pytest.mark.slow
def test_the_load_kit_sees_what_is_predicted() -> None:
    """``python -m benchmarks.engine.knee`` prints what it saw below and above saturation.

    A slow machine is late with all, and begins late: beside each row stands what was predicted.
    """
    options = ["paper", "--shares", "0.5", "1.3", "--duration-s", "10"]
    ended = subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, "-m", "benchmarks.engine.knee", *options],
        cwd=REPOSITORY,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()[1:]
    rows = [dict(zip(FIGURES, map(float, line.split()[1:]), strict=True)) for line in lines]
    assert len(rows) == 4
    assert all(figure > 0 for row in rows for figure in row.values())
    assert rows[3]["TTFT p50"] > 10 * rows[1]["TTFT p50"]


def test_the_knee(tmp_path: Path) -> None:
    """``python -m benchmarks.engine`` shows it: beyond saturation the queue grows, not tokens/s."""
    figures = tmp_path / "figures.json"
    command = ["-m", "benchmarks.engine", "paper", "--duration-s", "200", "--loads", "0.5", "1.3"]
    command += ["--prompt-tokens", "200", "--output-tokens", "50", "--json", str(figures)]
    ended = subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=clean_environment({"BENTOML_HOME": str(tmp_path)}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(ended.stdout.splitlines()) == 3 + 2
    below, above = json.loads(figures.read_text())
    most = above["requests_per_s"] / 1.3
    assert below["waiting"] < 0.1
    assert below["tokens_per_s"] == pytest.approx(0.5 * most * 50, rel=0.1)
    assert above["waiting"] > 10
    assert above["ttft_p50_ms"] > 10 * below["ttft_p50_ms"]
    assert above["tokens_per_s"] == pytest.approx(most * 50, rel=0.1)
