"""Distributions: the mean that was asked for, nothing below 0, the same for the same seed."""

import math
import subprocess
import sys
from array import array
from pathlib import Path

import numpy as np
import pytest

from emulator.timing.jitter import (
    Jitter,
    due_offsets,
    load_trace,
    load_traces,
    random_state,
    truncated_normal,
)

TRACES = {"burst": np.array([0.0, 0.0, 0.0, 40.0, 10.0])}
# Each with the cv that it must have.
SCATTERED = {
    "normal:0": 0,
    "normal:0.05": 0.05,
    "normal:0.1": 0.1,
    "normal:0.3": 0.3,
    "normal:0.5": 0.5,
    "normal:0.75": 0.75,
    "lognormal:0": 0,
    "lognormal:0.5": 0.5,
    "lognormal:2": 2,
    "uniform:0": 0,
    "uniform:0.5": 0.5 / math.sqrt(3),
    "uniform:1": 1 / math.sqrt(3),
    "exponential": 1,
    "trace:burst": float(TRACES["burst"].std() / TRACES["burst"].mean()),
}
DRAWN = 400_000


def draw(tokens: int, jitter: Jitter, seed: int) -> "array[float]":
    """Return when the tokens of an answer are due whose TTFT and ITL both scatter."""
    return due_offsets(tokens, 0.1, 0.02, ttft_jitter=jitter, itl_jitter=jitter, seed=seed)


@pytest.mark.parametrize(("text", "cv"), SCATTERED.items())
def test_mean_and_scatter(text: str, cv: float) -> None:
    """The mean and the cv of many gaps are what was asked for, and no gap is below 0."""
    gaps_s = Jitter.parse(text, TRACES).gaps(0.02, DRAWN, random_state(7))

    assert gaps_s.min() >= 0
    assert gaps_s.mean() == pytest.approx(0.02, rel=4 * cv / math.sqrt(DRAWN) + 1e-9)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(cv, rel=0.05, abs=1e-9)


@pytest.mark.parametrize("cv", [0.1, 0.2, 0.4, 0.6, 0.75])
def test_truncated_normal(cv: float) -> None:
    """The part of the normal above 0 has the mean 1 and the asked cv, by numerical integration."""
    mu, sigma = truncated_normal(cv)
    x = np.linspace(0, mu + 12 * sigma, 200_001)
    weights = np.exp(-0.5 * ((x - mu) / sigma) ** 2)
    weights /= weights.sum()

    mean = (weights * x).sum()
    assert mean == pytest.approx(1, abs=1e-4)
    assert math.sqrt((weights * (x - mean) ** 2).sum()) == pytest.approx(cv, abs=1e-4)


@pytest.mark.parametrize("text", SCATTERED)
def test_same_seed_same_times(text: str) -> None:
    """A seed decides all the times of an answer; another seed gives others."""
    jitter = Jitter.parse(text, TRACES)
    first, same, other = (draw(50, jitter, seed) for seed in (-5, -5, 6))

    assert first == same
    assert first != other or SCATTERED[text] == 0 or text.startswith("trace")
    assert list(first) == sorted(first)


def test_same_in_another_process() -> None:
    """A seed gives the same numbers in any worker and after a restart: they are known here."""
    code = (
        "from emulator.timing.jitter import *\n"
        "draw = lambda text: due_offsets(\n"
        "    3, 1, 1, ttft_jitter=Jitter.parse(text), itl_jitter=Jitter.parse(text), seed=2**40)\n"
        "for text in ('normal:0.5', 'lognormal:1', 'uniform:1', 'exponential'):\n"
        "    print(*(f'{x:.9f}' for x in draw(text)))"
    )
    run = subprocess.run(  # noqa: S603 - this interpreter, that text
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines() == KNOWN


KNOWN = [
    "1.681895625 1.834661195 2.628540692",
    "2.150021447 2.361510753 2.920695233",
    "0.721619147 1.978099642 3.968558358",
    "0.447552862 1.437060323 6.782334674",
]


def test_constant_without_jitter() -> None:
    """Without jitter the times are those of the formula: ttft + i * itl."""
    offsets_s = due_offsets(5, 0.2, 0.05)

    assert list(offsets_s) == pytest.approx([0.2, 0.25, 0.3, 0.35, 0.4])


def test_only_the_first_token_scatters() -> None:
    """TTFT and ITL have a distribution each."""
    offsets_s = due_offsets(3, 1, 0.5, ttft_jitter=Jitter.parse("uniform:1"), seed=3)

    assert np.diff(offsets_s) == pytest.approx([0.5, 0.5])
    assert offsets_s[0] != 1


@pytest.mark.parametrize("tokens", [1, 131_072])
def test_any_length(tokens: int) -> None:
    """There is one time for each token."""
    jitter = Jitter.parse("exponential")

    assert len(draw(tokens, jitter, 1)) == tokens


def test_trace_is_cycled_and_scaled() -> None:
    """A trace goes on from its own start after its end, and its mean becomes the asked one."""
    gaps_s = Jitter.parse("trace:burst", TRACES).gaps(0.02, 10, random_state(1))

    assert list(gaps_s[:5]) == list(gaps_s[5:])
    assert sorted(gaps_s[:5]) == pytest.approx([0, 0, 0, 0.02, 0.08])


@pytest.mark.parametrize(
    "text",
    [
        *("", "normal", "normal:", "normal:x", "normal:nan", "normal:-0.1", "normal:0.76"),
        *("lognormal:11", "lognormal:inf", "uniform:1.1", "uniform", "gamma:1", "0.5"),
        *("exponential:1", "trace", "trace:", "trace:absent"),
    ],
)
def test_not_a_distribution(text: str) -> None:
    """The message says what was expected and what came."""
    with pytest.raises(ValueError, match=r"^expected .* but got ") as caught:
        Jitter.parse(text, TRACES)

    assert repr(text) in str(caught.value)


def test_load_trace(tmp_path: Path) -> None:
    """A trace holds gaps, in lines or separated by commas, and comments."""
    (tmp_path / "chat.csv").write_text("# measured on Monday\n10\n20,30\n\n0.5\n")
    (tmp_path / "notes.txt").write_text("not a trace")

    traces = load_traces(tmp_path)

    assert list(traces) == ["chat"]
    assert list(traces["chat"]) == [10, 20, 30, 0.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10\ngap\n", r"chat\.csv:2: expected a gap in ms, 0 or more, but got 'gap'"),
        ("10\n-1\n", r"chat\.csv:2: .* got '-1'"),
        ("nan", r"chat\.csv:1: .* got 'nan'"),
        ("1,,2", r"chat\.csv:1: .* got ''"),
        ("", r"chat\.csv: expected gaps in ms, at least one of them above 0"),
        ("0\n0\n", r"chat\.csv: expected gaps in ms, at least one of them above 0"),
    ],
)
def test_damaged_trace(tmp_path: Path, text: str, message: str) -> None:
    """The message names the file and the line."""
    path = tmp_path / "chat.csv"
    path.write_text(text)

    with pytest.raises(ValueError, match=message):
        load_trace(path)
