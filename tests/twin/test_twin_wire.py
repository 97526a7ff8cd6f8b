"""A twin of the emulator itself, measured, fitted and checked on the wire."""

import subprocess
import sys
from pathlib import Path

import pytest

from emulator.engine.config import load_engine
from loadtest.twin.fitting import BASE
from tests.support.server import REPOSITORY, args, running_server

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("local_only")]

MINUTES = "2"


def twin(*arguments: str) -> str:
    """Run a command of the twin; return what it printed."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "twin", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def medians(printed: str) -> dict[str, float]:
    """Return the median error of each figure of a printed table."""
    lines = [line.strip("| ").split(" | ") for line in printed.splitlines() if line[:1] == "|"]
    [middle] = [line for line in lines if line[0] == "**median error**"]
    return {
        name: float(cell.rstrip("%")) / 100
        for name, cell in zip(lines[0][1:], middle[1:], strict=True)
    }


@pytest.mark.parametrize("name", ["paper", "blis-llama-3.1-8b-h100-tp2"])
def test_a_twin_of_the_emulator(name: str, tmp_path: Path) -> None:
    """Two minutes recover each term, within 3 % or as sure as the fit says; a check agrees."""
    sweep, mine = str(tmp_path / "sweep.jsonl"), str(tmp_path / "mine.yaml")
    with running_server(*args(engine=name, workers=1)) as server:
        twin("measure", "--url", server.url, "--to", sweep, "--minutes", MINUTES)
        told = twin("fit", sweep, "--to", mine)
        checked = twin("check", "--url", server.url, "--engine", mine)
    true, found = load_engine(name), load_engine(mine)
    for term in BASE:
        [line] = [line for line in told.splitlines() if line.startswith(f"{term} ")]
        if "not determined" not in line:
            truth = getattr(true, term)
            sure = float(line.partition("+- ")[2].partition(",")[0])
            assert getattr(found, term) == pytest.approx(truth, abs=max(0.03 * truth, sure)), told
    errors = medians(checked)
    assert all(error < 0.03 for figure, error in errors.items() if figure.endswith("p50")), checked
    assert all(error < 0.05 for figure, error in errors.items() if figure.endswith("p90")), checked
