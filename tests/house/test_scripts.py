"""The test files as the specification runs them, and the benchmarks to their end."""

import argparse
import importlib.util
import json
import re
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.fidelity import middle, over, summarize
from benchmarks.kit import bare_app
from benchmarks.kit.client import Chat, StreamResult, run_streams
from benchmarks.kit.server import Cpu, c_program, serving
from benchmarks.kit.steady import Search, Steady
from benchmarks.throughput import Servers, cost, cost_row
from tests.support.server import PLAIN, REPOSITORY, Server, clean_environment


def run(environment: Mapping[str, str], *arguments: str | Path) -> str:
    """Return what a script prints; it must end well."""
    ended = subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def benchmark(home: Path, script: str, *arguments: str | Path) -> str:
    """Return what a benchmark prints; `home` is BentoML's."""
    environment = clean_environment({"BENTOML_HOME": str(home)})
    return run(environment, "-m", f"benchmarks.{script}", *arguments)


@pytest.mark.slow
def test_run_as_scripts(base_url: str) -> None:
    """``python test_api.py`` and ``python test_multimodal.py`` run their tests with pytest."""
    environment = clean_environment({"EMULATOR_URL": base_url})
    tests = {"test_api.py": "test_health", "test_multimodal.py": "test_image_alone"}
    with ThreadPoolExecutor(len(tests)) as pool:
        running = [
            pool.submit(run, environment, script, "-k", test, "-p", "no:cacheprovider")
            for script, test in tests.items()
        ]
    assert all("1 passed" in ended.result() for ended in running)


@pytest.mark.slow
def test_fidelity(one_worker: Server, tmp_path: Path) -> None:
    """The benchmark of the clock prints, writes and draws a server's and a checkout's figures."""
    figures, picture = tmp_path / "fidelity.json", tmp_path / "fidelity.png"
    has_matplotlib = importlib.util.find_spec("matplotlib") is not None
    drawn: list[str | Path] = ["--png", picture] if has_matplotlib else []
    servers: list[str | Path] = ["--url", one_worker.url, "--checkout", REPOSITORY]
    cell = ["--streams", "2", "--itl-ms", "5", "--duration-s", "0.3"]
    cell += ["--waiting", "20"]
    printed = benchmark(tmp_path, "fidelity", *servers, *cell, "--json", figures, *drawn)
    cells = json.loads(figures.read_text())
    lines = printed.split("RSS MB\n")[1].splitlines()
    for measured, line in zip(cells, lines, strict=False):
        row = re.findall(r"[-\d.]+", line.removeprefix(measured["server"]))
        assert row[:3] == ["2", "5", "400"]
        assert float(row[5]) == pytest.approx(measured["gap_error_p50_ms"], abs=0.001)
        assert 0 < measured["gap_error_p50_ms"] < measured["gap_error_max_ms"]
        assert measured["tokens_lost"] == 0
    names = [measured["server"] for measured in cells]
    assert names[:2] == [REPOSITORY.name, urlsplit(one_worker.url).netloc]
    if sys.platform == "linux":
        [*emulators, reference] = cells
        assert len(emulators) == 2
        for measured in emulators:
            difference_ms = measured["gap_error_p99_ms"] - reference["gap_error_p99_ms"]
            assert measured["p99_over_reference_ms"] == pytest.approx(difference_ms)
    assert not drawn or picture.read_bytes().startswith(b"\x89PNG")


def test_runs_of_a_cell() -> None:
    """A cell's figures are the medians of its runs, but its lost tokens are the most."""
    chat = Chat(True, 0, 10, 2)
    runs = [
        summarize("one", chat, [StreamResult(0, array("q", arrived_ns))], None, 1.0)
        for arrived_ns in ([0, 12_000_000], [0, 11_000_000], [0])
    ]
    cell = middle([runs[0], runs[1], runs[1]])
    assert (cell.gap_error_p99_ms, cell.tokens_lost, cell.cpu_percent) == (1, 0, None)
    assert middle(runs).tokens_lost == 1
    difference = over(runs[0], runs[1])
    assert (difference.gap_error_p99_ms, difference.p99_over_reference_ms) == (2, 1)


@pytest.fixture(scope="module")
def throughput(
    local_only: None,  # noqa: ARG001 - skips
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, dict[str, dict[str, dict[str, float]]]]:
    """Return what a short run of the benchmark prints, and what it writes."""
    home = tmp_path_factory.mktemp("throughput")
    run = ["--measure", "whole", "cost", "responses", "streams", "--runs", "1"]
    run += ["--duration-s", "0.3"]
    small = ["--cost-streams", "5", "--most-streams", "10"]
    printed = benchmark(home, "throughput", *run, *small, "--json", home / "figures.json")
    return printed, json.loads((home / "figures.json").read_text())


Throughput = tuple[str, dict[str, dict[str, dict[str, float]]]]


@pytest.mark.slow
def test_throughput_of_whole_answers(throughput: Throughput) -> None:
    """Beside the bare app's, the benchmark prints the rate and the CPU time of whole answers."""
    printed, figures = throughput
    for server in ("emulator", "bare app"):
        row = re.search(rf"whole +{server} +([\d,]+) answers/s, +(\d+) us CPU each", printed)
        assert row
        rate, cpu_us = (int(figure.replace(",", "")) for figure in row.groups())
        measured = figures["whole"][server]
        assert (rate, cpu_us) == (round(measured["answers_per_s"]), round(measured["cpu_us"]))
        assert rate > 100
        assert cpu_us < 1e6 / rate * 2
    assert figures["whole"]["emulator"]["ratio"] > 1


def check_costs(printed: str, costs: Mapping[str, Mapping[str, float]]) -> None:
    """Every figure has its row, every row its figures, together as apart."""
    parts_of_row = r"user +([\d.]+) system +([\d.]+) sum +([\d.]+)"
    row = rf"^cost (5 (?:together|apart)) +(\w+(?: \w+)?) +{parts_of_row}"
    rows = re.findall(row, printed, re.MULTILINE)
    assert sorted(f"{server}, {name}" for name, server, *_ in rows) == sorted(costs)
    for name, server, *parts in rows:
        measured = costs[f"{server}, {name}"]
        expected = [measured[f"{part}_us"] for part in ("user", "system", "sum")]
        assert [float(part) for part in parts] == pytest.approx(expected, abs=0.06)
        assert expected[0] + expected[1] == pytest.approx(expected[2])
        assert 2 < expected[2] < 10_000
    for name in ("5 together", "5 apart"):
        assert {f"emulator, {name}", f"bare app, {name}"} <= set(costs)
        assert costs[f"bare app, {name}"]["ratio"] == 1


@pytest.mark.slow
def test_cost_of_a_paced_token(throughput: Throughput) -> None:
    """The benchmark prints what a token costs each server, in user and in system time."""
    printed, figures = throughput
    check_costs(printed, figures["cost"])


def test_printed_costs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The rows that are printed are the figures that are written, of each server and mode."""

    def measured(servers: object, *_: object) -> dict[str, list[Steady]]:  # noqa: ARG001
        return {
            server: [Steady(100, 100, Cpu(0.002, system_s, 0.002 + system_s, 50), 2.0, 0.1)]
            for server, system_s in (("emulator", 0.0011), ("bare app", 0.0007), ("C program", 0))
        }

    monkeypatch.setattr("benchmarks.throughput.in_turn", measured)
    options = argparse.Namespace(cost_streams=[5], runs=1, duration_s=1)
    costs = cost(Servers([], []), options)
    assert len(costs) == 6
    check_costs(capsys.readouterr().out, costs)


def test_parts_of_the_cost() -> None:
    """The cost is the cheapest run's, divided into user and system as all runs together were."""
    runs = [
        Steady(100, 100, Cpu(user_s=0.3, system_s=0.1, sum_s=0.004, waits=50), 2.0, 0.1),
        Steady(200, 200, Cpu(user_s=0.3, system_s=0.1, sum_s=0.004, waits=10), 1.0, 0.1),
    ]
    assert cost_row(runs, bare_us=10) == pytest.approx(
        {
            "user_us": 15,
            "system_us": 5,
            "sum_us": 20,
            "waits": 0.2,
            "gap_error_p99_ms": 1.0,
            "ratio": 2,
        }
    )


@pytest.mark.slow
def test_streams_that_are_held(throughput: Throughput) -> None:
    """The benchmark prints how many streams each server holds, and tries no more than it may."""
    printed, figures = throughput
    assert set(figures["streams"]) >= {"emulator", "bare app"}
    for server, measured in figures["streams"].items():
        assert re.search(rf"streams +{server} +(at least )?{measured['streams']} streams", printed)
        assert 0 <= measured["streams"] <= 10


@pytest.mark.slow
def test_cost_of_a_token_of_a_response(throughput: Throughput) -> None:
    """Beside a chat's, the benchmark prints what a token of a response costs, and its errors."""
    printed, figures = throughput
    for api in ("chat", "responses"):
        measured = figures["responses"][f"emulator, {api}"]
        pattern = rf"{api} +emulator +sum +([\d.]+) us/token, TTFT error p50 +([\d.]+)"
        row = re.search(pattern, printed)
        assert row
        expected = [measured["sum_us"], measured["ttft_error_p50_ms"]]
        assert [float(figure) for figure in row.groups()] == pytest.approx(expected, abs=0.06)
        assert 2 < measured["sum_us"] < 10_000
    assert figures["responses"]["emulator, chat"]["ratio"] == 1


@pytest.mark.parametrize("capacity", [0, 1, 60, 100, 730, 3999, 4000, 9000])
def test_search(capacity: int) -> None:
    """The search for the most streams ends within 10 % below what is held, in a few tries."""
    search = Search(first=100, most=4000)
    tries = 0
    while streams := search.next():
        search.note(streams, held=streams <= capacity)
        tries += 1
    most = min(capacity, 4000)
    assert most * 0.88 - 1 <= search.held <= most
    assert tries <= 10


@contextmanager
def interpreted() -> Iterator[list[str] | None]:
    """Yield the command of the Python program."""
    yield [sys.executable, "-m", "benchmarks.kit.timerfd_server"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="timerfd is Linux's")
@pytest.mark.parametrize("program", [c_program, interpreted])
def test_timerfd_programs(
    program: Callable[[], AbstractContextManager[list[str] | None]],
) -> None:
    """The programs on a timerfd stream the bare app's bytes, and no token before it is due."""
    with program() as command:
        if command is None:
            pytest.skip("there is no C compiler")
        with serving("program", command) as server:
            url = f"http://{server.host}:{server.port}/v1/chat/completions"
            head = {"X-TTFT-MS": "30", "X-ITL-MS": "10", "X-OUTPUT-LENGTH": "3"}
            answer = PLAIN.post(url, json={"stream": True}, headers=head)
            [result] = run_streams(server.address, Chat(True, 30, 10, 3), 1, 0, 5)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content == bare_app.ROLE + bare_app.TOKEN * 3 + bare_app.END
    late_ms = [
        (ns - result.sent_ns) / 1e6 - due
        for ns, due in zip(result.arrived_ns, (30, 40, 50), strict=True)
    ]
    assert min(late_ms) > -0.1  # the wall clock may be slewed


def test_bare_app_writes_the_emulator_s_bytes(one_worker: Server) -> None:
    """But for its text and ids, an event of the bare app is one of the emulator's."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    answer = PLAIN.post(
        f"{one_worker.url}/v1/chat/completions",
        json=body,
        headers={"X-TTFT-MS": "0", "X-ITL-MS": "0", "X-OUTPUT-LENGTH": "3"},
    )
    first, *_, last, _, _ = answer.content.split(b"\n\n")
    tokens = answer.content.split(b"\n\n")[1:4]
    bare = [bare_app.ROLE, *[bare_app.TOKEN] * 3, bare_app.END.partition(b"\n\n")[0]]
    for event, expected in zip([first, *tokens, last], bare, strict=True):
        assert same_shape(event) == same_shape(expected)


def same_shape(event: bytes) -> bytes:
    """Return an event without its text, and with its ids and times replaced."""
    text = re.sub(rb'"content":"[^"]+"', b'"content":"text"', event.strip())
    text = re.sub(rb"chatcmpl-\w{29}", b"chatcmpl-ID", text)
    text = re.sub(rb"fp_\w{10}", b"fp_ID", text)
    return re.sub(rb'"created":\d{10}', b'"created":0', text)
