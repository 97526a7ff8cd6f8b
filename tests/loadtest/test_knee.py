"""The search for the load that a server keeps up with."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import knee
from tests.support.server import REPOSITORY, Server


def step(rate: float, received: float) -> knee.Step:
    """Return a step at a rate whose answers are of 100 tokens."""
    times = (20.0,) * 5
    return knee.Step(rate, 100 * rate, received, received / rate / 100, *times, 0, 0)


def server_of(capacity: float, asked: list[float]) -> Callable[..., knee.Step]:
    """Return a measurement of a server with a capacity in requests/s; it notes what was asked."""

    def measure(_url: str, rate: float, *_: object) -> knee.Step:
        asked.append(rate)
        return step(rate, 100 * min(rate, capacity))

    return measure


def test_it_climbs_until_the_server_falls_behind_and_closes_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each step between a rate that was kept and one that was not halves their ratio."""
    asked: list[float] = []
    monkeypatch.setattr(knee, "measure", server_of(10.0, asked))
    climb = ["knee.py", "--first", "1", "--factor", "2", "--refine", "3"]
    monkeypatch.setattr(sys, "argv", climb)
    steps = knee.find(knee.parse_options(), "", knee.Workload(1, 1, 4))
    found = knee.knee_of(steps)
    assert found is not None
    assert asked[:5] == [1, 2, 4, 8, 16]
    assert len(asked) == 8
    assert 10 <= found.requests_per_s <= 10 / knee.KEPT
    assert [s.requests_per_s for s in steps] == sorted(asked)


def test_a_rate_above_one_that_was_not_kept_is_no_knee() -> None:
    """A rate that seems to be kept after all says nothing."""
    steps = [step(1, 100), step(2, 150), step(3, 300)]
    assert knee.knee_of(steps) == steps[0]
    assert knee.knee_of(steps[1:]) is None


def test_its_requests_are_the_same_in_every_run() -> None:
    """Random arrivals at the rate, and lengths of half to one and a half times the mean."""
    workload = knee.Workload(prompt_tokens=100, output_tokens=40, duration_s=500)
    requests = workload.trace(rate=10)
    assert requests == workload.trace(rate=10)
    assert len(requests) == pytest.approx(5000, rel=0.1)
    times_ms = [request["timestamp"] for request in requests]
    assert times_ms == sorted(times_ms)
    for name, mean in (("input_length", 100), ("output_length", 40)):
        lengths = [request[name] for request in requests]
        assert (min(lengths), max(lengths)) == (mean * 0.5, mean * 1.5)


@pytest.mark.slow
def test_a_server_that_keeps_up_is_seen_to(tmp_path: Path, one_worker: Server) -> None:
    """TTFT and ITL of a real run are not below what was asked for, and no answer is lost."""
    figures = tmp_path / "knee.json"
    load = ("--rates", "10", "--duration-s", "6", "--prompt-tokens", "50", "--output-tokens", "20")
    ended = subprocess.run(  # noqa: S603 - our own command line
        [
            *(sys.executable, "-m", "benchmarks.knee", "--url", one_worker.url, *load),
            *("--json", str(figures), "--", "--ttft-ms", "60", "--itl-ms", "10"),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(figures.read_text())
    (measured,) = found["steps"]
    assert found["knee"] in (measured, None)  # None where the machine did not keep up
    assert measured["tokens_per_s"] > 0
    assert measured["ttft_p50_ms"] >= 60
    assert measured["itl_p50_ms"] > 3  # a token that was late makes the next gap shorter
    assert measured["failures"] == 0
