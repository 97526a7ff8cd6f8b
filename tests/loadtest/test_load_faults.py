"""The load kit sees every kind of fault that the emulator injects, by its name."""

import csv
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest

from tests.support.server import REPOSITORY, Server

pytestmark = pytest.mark.slow  # each test runs locust in processes of its own

SILENCE = ("--silence-s", "0.5")
AT_ONCE = 4
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


Seen = tuple[set[str], str]
Runs = Mapping[tuple[str, bool], "Future[Seen]"]


def failures(folder: Path, host: str, *arguments: str) -> Seen:
    """Return the names of a short run's failures, and what locust wrote."""
    command = [sys.executable, "-m", "locust", "-f", "locustfile.py", "--host", host, "--headless"]
    timing = ("--ttft-ms", "20", "--itl-ms", "5", "--output-length", "10", "--rate", "20")
    files = ("--only-summary", "--csv", str(folder / "run"), "-t", "2s", "SteadyRateUser")
    result = subprocess.run(  # noqa: S603 - our own command line
        [*command, *timing, *arguments, *files],
        cwd=REPOSITORY,
        env={k: v for k, v in os.environ.items() if k != "LOCUST_SKIP_MONKEY_PATCH"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    with (folder / "run_failures.csv").open() as file:
        names = {row["Error"] for row in csv.DictReader(file)}
    return names, result.stderr


@pytest.fixture(scope="module")
def runs(one_worker: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Run locust for each kind of fault, in streams and in whole answers, some runs at once."""
    begun: dict[tuple[str, bool], Future[Seen]] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for kind, streamed in product([kind for kind, *_ in KINDS], [True, False]):
            if not streamed and kind == "no-done":
                continue
            place = ("--fault-after-tokens", "3") if streamed and kind in IN_MIDSTREAM else ()
            ratio = "1" if streamed else "0"
            asked = ("--fault-kind", kind, *place, "--stream-ratio", ratio)
            folder = tmp_path_factory.mktemp("run")
            asked += SILENCE if kind == "stall" else ()
            begun[kind, streamed] = pool.submit(failures, folder, one_worker.url, *asked)
        yield begun


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
    names, output = runs[kind, True].result()
    assert names == as_locust_says(name), output
    answers, failed = injected(output, kind)
    assert answers >= 2
    assert failed == (answers if name else 0)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, _, name in KINDS if kind != "no-done"]
)
def test_a_fault_in_a_whole_answer_has_its_name(runs: Runs, kind: str, name: str) -> None:
    """What a whole answer loses is told apart just so."""
    names, output = runs[kind, False].result()
    assert names == as_locust_says(name), output


def test_a_rate_of_faults_is_the_share_that_fails(tmp_path: Path, one_worker: Server) -> None:
    """The others are answered as ever."""
    asked = ("--fault-kind", "close", "--fault-rate", "0.5", "--stream-ratio", "1")
    names, output = failures(
        tmp_path, one_worker.url, *asked, "--rate", "60", "--max-error-rate", "1"
    )
    assert names == as_locust_says("connection closed after 0 tokens"), output
    found = re.search(r"^E2E +steady-rate .*? (\d+) +(\d+)\(", output, re.MULTILINE)
    assert found, output
    answers, failed = map(int, found.groups())
    sigma = (answers / 4) ** 0.5
    assert abs(failed - answers / 2) < 6.5 * sigma  # by chance once in 10 ** 10 runs
