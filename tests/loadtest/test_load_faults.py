"""The load kit sees every kind of fault that the emulator injects, by its name."""

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.loadtest.running import Run
from tests.support.server import Server

pytestmark = pytest.mark.slow  # each test runs locust in processes of its own

SILENCE = ("--silence-s", "0.5")
AT_ONCE = 3
# A kind of fault, and what the kit calls it in a stream (after 3 tokens) and in a whole answer.
KINDS = [
    ("status", "HTTP 500: server_error", "HTTP 500: server_error"),
    ("error", "error event: server_error", "HTTP 500: server_error"),
    ("eof", "no finish_reason, no [DONE]: ended after 3 tokens", "cut JSON"),
    ("no-done", "no [DONE]", ""),
    ("close", "connection closed after 3 tokens", "connection closed within the answer"),
    ("reset", "connection reset after 3 tokens", "connection reset within the answer"),
    ("stall", "nothing for 0.5 s", "nothing for 0.5 s"),
    ("malformed", "broken JSON after 3 tokens", "broken JSON"),
    ("empty", "empty body", "empty body"),
    ("slice", "", ""),
]
IN_MIDSTREAM = ("error", "eof", "close", "reset", "stall", "malformed")


Runs = Mapping[tuple[str, bool], "Future[Run]"]
TIMING = ("--ttft-ms", "20", "--itl-ms", "5", "--output-length", "10", "--rate", "20")


@pytest.fixture(scope="module")
def runs(one_worker: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Run locust for each kind of fault, in streams and in whole answers, some runs at once."""

    def act(kind: str, *, streamed: bool) -> Run:
        place = ("--fault-after-tokens", "3") if streamed and kind in IN_MIDSTREAM else ()
        asked = ("--fault-kind", kind, *place, "--stream-ratio", "1" if streamed else "0")
        asked += SILENCE if kind == "stall" else ()
        folder = tmp_path_factory.mktemp("run")
        arguments = (*TIMING, *asked, "SteadyRateUser")
        return Run(folder, one_worker.url, *arguments, until=lambda run: run.count("E2E", "s") >= 5)

    asked = [(kind, streamed) for kind, *_ in KINDS for streamed in (True, False)]
    asked.remove(("no-done", False))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {(kind, by): pool.submit(act, kind, streamed=by) for kind, by in asked}


def as_locust_says(name: str) -> set[str]:
    """Return what locust's table of failures holds, nothing for no name."""
    return {f"CatchResponseError({name!r})"} if name else set()


def injected(output: str, kind: str) -> tuple[int, int]:
    """Return how many answers said that they had the fault, and how many of them failed."""
    found = re.search(rf"(\d+) answers had the fault {kind} injected; (\d+) of them", output)
    assert found, output
    return int(found[1]), int(found[2])


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, name, _ in KINDS])
def test_a_fault_in_a_stream_has_its_name(runs: Runs, kind: str, name: str) -> None:
    """Every stream with the fault is a failure, and a torn one that lost nothing is none."""
    run = runs[kind, True].result()
    assert set(run.errors) == as_locust_says(name), run.output
    answers, failed = injected(run.output, kind)
    assert answers >= 5
    assert failed == (answers if name else 0)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, _, name in KINDS if kind != "no-done"]
)
def test_a_fault_in_a_whole_answer_has_its_name(runs: Runs, kind: str, name: str) -> None:
    """What a whole answer loses is told apart just so."""
    run = runs[kind, False].result()
    assert set(run.errors) == as_locust_says(name), run.output


def test_a_rate_of_faults_is_the_share_that_fails(tmp_path: Path, one_worker: Server) -> None:
    """The others are answered as ever."""
    asked = ("--fault-kind", "close", "--fault-rate", "0.5", "--stream-ratio", "1")
    load = (*TIMING, *asked, "--rate", "60", "--max-error-rate", "1", "SteadyRateUser")
    run = Run(tmp_path, one_worker.url, *load, until=lambda run: run.count("E2E", "s") >= 100)
    assert set(run.errors) == as_locust_says("connection closed after 0 tokens"), run.output
    row = run.named("E2E", "steady-rate")
    answers, failed = int(row["Request Count"]), int(row["Failure Count"])
    sigma = (answers / 4) ** 0.5
    assert abs(failed - answers / 2) < 6.5 * sigma  # by chance once in 10 ** 10 runs
