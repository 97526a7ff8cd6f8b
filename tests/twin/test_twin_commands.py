"""The command line of the twin, and its picture."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from loadtest.twin.commands import main
from loadtest.twin.comparison import compare, over_points, table, verdict
from loadtest.twin.picture import picture
from loadtest.twin.simulated import simulate
from loadtest.twin.sweep import Sweep, append
from tests.twin.making import config, measured, usual_loads

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    """Return a sweep of the engine `paper`."""
    return measured(config(), usual_loads()[:6], late_ms=0.3)


@pytest.fixture
def path(sweep: Sweep, tmp_path: Path) -> Path:
    """Return the sweep in a file."""
    path = tmp_path / "sweep.jsonl"
    append(path, sweep.known)
    for point in sweep.points:
        append(path, point)
    return path


def test_check_without_a_server(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sweep beside its own engine has a table, a picture and a sentence of its likeness."""
    main(["check", "--engine", "paper", "--from", str(path), "--svg", str(tmp_path / "a.svg")])
    told = capsys.readouterr().out
    assert "| 50 tokens, 1 client |" in told
    assert "The twin can stand in for the server: over 6 loads" in told
    root = ET.fromstring((tmp_path / "a.svg").read_text())  # noqa: S314 - our own
    assert root.tag == f"{SVG}svg"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["check", "--engine", "paper"], "check: expected either --url or --from"),
        (["check", "--engine", "nobody", "--from", "x"], "expected one of"),
        (["check", "--engine", "paper", "--from", "no.jsonl"], "no.jsonl: No such file"),
        (["fit", "no.jsonl", "--to", "mine.yaml"], "no.jsonl: No such file"),
        (["measure", "--url", "ftp://x"], "--url: expected http://host:port/v1"),
    ],
)
def test_bad_arguments_are_told(arguments: list[str], told: str) -> None:
    """What cannot be done ends the program with a sentence that says why."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert told in str(caught.value)


def test_bad_numbers_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A number out of its range is refused with the range and what came."""
    with pytest.raises(SystemExit):
        main(["measure", "--url", "http://x", "--minutes", "-1"])
    assert "expected minutes, over 0 and up to 1440, not '-1'" in capsys.readouterr().err


def test_errors_are_relative(sweep: Sweep) -> None:
    """A twin with steps twice as long has an ITL that is 100 % too long, and must not stand in."""
    slow = config(step_base_ms=20.0, step_per_sequence_ms=2.0, step_per_prefill_token_ms=0.1)
    compared = compare(sweep.points, [simulate(slow, point) for point in sweep.points])
    assert over_points(compared, 50)["ITL p50"] == pytest.approx(1, abs=0.01)
    assert "must not stand in" in verdict(compared)
    assert len(table(compared)) == 2 + len(sweep.points) + 2


def test_the_picture_has_a_dot_for_each_figure(sweep: Sweep) -> None:
    """Each load has a dot and a ring for p50, p90 and p99 of three times, and one for tokens/s."""
    compared = compare(sweep.points, [simulate(config(), point) for point in sweep.points])
    root = ET.fromstring(picture(compared, "a & b"))  # noqa: S314 - our own
    dots = [circle for circle in root.iter(f"{SVG}circle") if len(circle)]
    assert len(dots) == len(sweep.points) * 2 * (3 * 3 + 1)
