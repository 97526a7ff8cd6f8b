"""The load test kit: its parts alone, and `locust` as a user runs it against real servers."""

import csv
import os
import re
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

# Importing locust would replace the sockets and threads of the other tests in this process.
os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"

import locust.stats
from locust import User, tag, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import Runner
from locust.stats import RequestStats

from loadtest.failures import StreamError
from loadtest.hooks import conclude, prepare, register
from loadtest.limits import MIN_GAPS, broken_limits, exit_code, unjudged
from loadtest.options import Options, add_options, flag
from loadtest.report import (
    ITL,
    THE_STOP,
    TOKENS,
    TTFT,
    Stop,
    StreamLog,
    bucket,
    extend_run,
    log_stream,
    log_times,
    log_tokens,
    rows,
    tokens_per_s,
)
from loadtest.stream import ChatStream
from tests.support.chat_stub import content, ending, ending_with, event, running_stub, stream_of
from tests.support.process import free_port
from tests.support.server import REPOSITORY, TLS, Server

pytestmark = pytest.mark.slow  # each test runs locust in processes of its own

Row = dict[str, str]


# --------------------------------------------------------------------------------------
# Streams
# --------------------------------------------------------------------------------------


def read(*reads: bytes) -> ChatStream:
    """Return a stream that was read to its end, a read each second from 0."""
    stream = ChatStream()
    for second, data in enumerate(reads):
        stream.feed(data, float(second))
    stream.finish(99.0)
    return stream


@pytest.mark.parametrize("size", [1, 2, 7, 50, 10_000])
def test_a_stream_is_the_same_however_it_is_cut(size: int) -> None:
    """Reads may end anywhere, within a line end too."""
    body = content("a") + content('say "hi"') + content("c") + ending(3)
    stream = read(*(body[i : i + size] for i in range(0, len(body), size)))
    assert len(stream.arrivals_s) == 3
    assert (stream.completion_tokens, stream.finish_reason, stream.size) == (3, "stop", len(body))


def test_an_event_arrives_with_the_read_that_completes_it() -> None:
    """Events of one read share its instant; empty text and comments are no tokens."""
    first, last = content("d")[:9], content("d")[9:]
    stream = read(content(""), content("a"), content("b") + content("c") + first, last, ending(4))
    assert stream.arrivals_s == [1.0, 2.0, 2.0, 3.0]


def test_tokens_are_counted_by_usage_where_there_is_one() -> None:
    """Servers may put several tokens in an event, or send no usage at all."""
    assert read(stream_of("none")).completion_tokens == 4
    without = content("a") + content("b") + b"data: [DONE]\n\n"
    assert read(without).completion_tokens == 2


@pytest.mark.parametrize("usage", [None, {}, {"completion_tokens": None}, {"prompt_tokens": 3}, 5])
def test_events_are_counted_where_usage_has_no_number(usage: object) -> None:
    """An answer is measured all the same."""
    stream = read(content("a") + content("b"), ending_with(usage))
    assert (stream.completion_tokens, stream.finish_reason) == (2, "stop")


def test_a_running_usage_is_read_to_its_end() -> None:
    """Some servers count along in every event with text, and say no total."""
    events = [content(text, usage={"completion_tokens": i + 1}) for i, text in enumerate("abc")]
    finish = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    stream = read(*events, finish + b"data: [DONE]\n\n")
    assert (stream.completion_tokens, stream.arrivals_s) == (3, [0.0, 1.0, 2.0])


def test_an_error_that_is_null_is_none() -> None:
    """Some servers name every field of a chunk."""
    assert read(content("a", error=None), content("b", error=None), ending(2)).arrivals_s == [0, 1]


def test_usage_and_finish_reason_are_found_in_an_event_with_text() -> None:
    """Some servers say both in the last event that carries text."""
    head = b'data: {"choices":[{"delta":{"content":"'
    last = b'b"},"finish_reason":"length"}],"usage":{"completion_tokens":5}}\n\n'
    stream = read(head + b'a"}}]}\n\n', head + last, b"data: [DONE]\n\n")
    assert (stream.finish_reason, stream.completion_tokens) == ("length", 5)


def test_reasoning_and_tool_calls_are_output() -> None:
    """Whatever a delta carries is a token for the reader."""
    reasoning = b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n' * 3
    tool = b'data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}\n\n' * 2
    stream = read(reasoning, tool, ending(5))
    assert len(stream.arrivals_s) == 5
    assert stream.called_tools


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (stream_of("eof"), r"^no finish_reason, no \[DONE\]: ended after 2 tokens$"),
        (stream_of("no-done"), r"^no \[DONE\]$"),
        (stream_of("error"), "^error event: out of memory$"),
        (event({"error": {"message": "wait 5 s", "code": "busy"}}), "^error event: busy$"),
        (event({"error": {"message": "oh", "type": "server_error"}}), "^error event: server_error"),
        (b"data: nonsense\n\n", "^broken JSON after 0 tokens$"),
        (content("a") + content("b")[:-6] + b"\n\n" + ending(2), "^broken JSON after 1 token$"),
        (content("a") + content('b"c').replace(b"\\", b"") + ending(2), "^broken JSON after 1"),
        (b"data: [5]\n\n", r"not a chunk: b'\[5\]'"),
        (event({"choices": ["x"]}), "not a chunk: b'.*x"),
        (event({"choices": 5}), "not a chunk"),
        (event({"choices": [{"delta": "x"}]}), "not a chunk"),
        (event({"object": "error", "error": None, "message": "too long"}), "too long"),
        (b"", "^empty body$"),
        (b": hello\n\n", r"^no finish_reason, no \[DONE\]: ended after 0 tokens$"),
    ],
)
def test_a_broken_stream_says_what_came(body: bytes, message: str) -> None:
    """Nothing that is broken passes for a short answer."""
    with pytest.raises(StreamError, match=message):
        read(body)


# --------------------------------------------------------------------------------------
# Rows, options and limits
# --------------------------------------------------------------------------------------

TIMES_MS = [20.04, 20.06, 19.9, 104.3, 2344.0, 20.04]


def test_logging_at_once_is_logging_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row filled in bulk is the row that locust itself would have filled."""
    monkeypatch.setattr(locust.stats, "bucket_response_time", bucket)
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    ours, theirs = RequestStats(), RequestStats()
    for part in (TIMES_MS[:4], TIMES_MS[4:]):
        log_times(ours, ITL, "chat", part)
    for time_ms in TIMES_MS:
        theirs.entries["chat", ITL].log(time_ms, 0)  # type: ignore[arg-type]
    row = ours.entries["chat", ITL]
    expected = theirs.entries["chat", ITL]
    assert row.total_response_time == pytest.approx(expected.total_response_time)
    row.total_response_time = expected.total_response_time
    assert row.serialize() == expected.serialize()
    assert ours.num_requests == 0


def test_a_stream_is_one_ttft_and_its_gaps() -> None:
    """Times count from when the request should have been sent."""
    stats = RequestStats()
    log_stream(stats, "chat", 10.0, [10.1, 10.12, 10.14])
    log_stream(stats, "chat", 10.0, [])
    (ttft,), (itl,) = rows(stats, TTFT), rows(stats, ITL)
    assert (ttft.num_requests, itl.num_requests) == (1, 2)
    assert ttft.median_response_time == pytest.approx(100)
    assert itl.median_response_time == pytest.approx(20)


def test_tokens_count_in_the_second_of_their_arrival() -> None:
    """Locust's requests/s of the row is tokens/s, whenever the stream ended."""
    stats, clock_s, now_s = RequestStats(), time.perf_counter(), time.time()
    arrivals_s = [clock_s - ago for ago in (5, 5, 3, 0)]
    log_tokens(stats, "chat", 6, arrivals_s)
    (row,) = rows(stats, TOKENS)
    assert row.num_requests == 6
    assert sum(row.num_reqs_per_sec.values()) == 6
    assert row.num_reqs_per_sec[int(now_s - 5)] == 2


def test_an_open_stream_is_logged_once() -> None:
    """However often that is, each token and each gap counts once; usage has the last word."""
    stats, stream = RequestStats(), ChatStream()
    log = StreamLog(stats, "chat", -0.5, stream).log
    for second, data in enumerate([b"", content("a"), content("b") * 3, b"", content("c")]):
        stream.feed(data, float(second))
        log()
    (ttft,), (itl,), (tokens,) = (rows(stats, kind) for kind in (TTFT, ITL, TOKENS))
    assert (ttft.num_requests, ttft.response_times) == (1, {1500: 1})
    assert (itl.num_requests, itl.response_times) == (4, {1000: 1, 0: 2, 2000: 1})
    assert tokens.num_requests == 5
    for total in (9, 4):
        stream.feed(ending(total), 5.0)
        log()
        assert (tokens.num_requests, itl.num_requests) == (total, 4)
    assert sum(tokens.num_reqs_per_sec.values()) == 4


def test_tokens_per_s_are_of_the_whole_run() -> None:
    """No answer need have been complete, and time goes on when no tokens come."""
    stats = RequestStats()
    stats.total.start_time -= 2
    log_tokens(stats, "chat", 100)
    assert tokens_per_s(stats) == pytest.approx(50, rel=0.1)
    stats.total.start_time -= 2
    extend_run(stats)
    assert tokens_per_s(stats) == pytest.approx(25, rel=0.1)
    assert (stats.num_requests, stats.total.num_none_requests) == (0, 0)


def test_the_web_form_hands_over_text() -> None:
    """Text becomes a number, and empty text no value."""
    options = Options.of(Namespace(ttft_ms="150.5", itl_ms="", output_length="7", headless=True))
    assert (options.ttft_ms, options.itl_ms, options.output_length) == (150.5, None, 7)


BAD_OPTIONS = [
    ("ttft_ms", "fast", "must be a number of at least 0"),
    ("itl_ms", "-1", "must be a number of at least 0"),
    ("output_length", "0", "must be a whole number of at least 1"),
    ("output_length", "1.5", "must be a whole number of at least 1"),
    ("stream_ratio", "nan", "must be a number from 0 to 1"),
    ("stream_ratio", "1.1", "must be a number from 0 to 1"),
    ("prompt_words", "-1", "must be a whole number of at least 1"),
    ("image_kb", "-5", "must be a number over 0"),
    ("image_kb", "inf", "must be a number over 0"),
    ("rate", "0", "must be a number over 0"),
    ("rate", "nan", "must be a number over 0"),
    ("burst_size", "-3", "must be a whole number of at least 1"),
    ("silence_s", "0", "must be a number over 0"),
    ("fault_kind", "Close!", "must be the name of a fault, such as close or no-done"),
    ("fault_rate", "2", "must be a number from 0 to 1"),
    ("fault_after_tokens", "-1", "must be a whole number of at least 0"),
    ("trace_speed", "0", "must be a number over 0"),
    ("trace_limit", "0", "must be a whole number of at least 1"),
    ("max_ttft_p99_ms", "nan", "must be a number of at least 0"),
    ("max_itl_p99_ms", "nan", "must be a number of at least 0"),
    ("max_error_rate", "nan", "must be a number from 0 to 1"),
    ("min_tokens_per_s", "nan", "must be a number of at least 0"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD_OPTIONS)
def test_a_bad_option_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], name: str, text: str, message: str
) -> None:
    """On the command line and in the web UI's form, with what was expected and what came."""
    parser = LocustArgumentParser()
    add_options(parser)
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args([flag(name), text], config_file_contents="")
    assert stopped.value.code == 2
    assert f"argument {flag(name)}: {message}, not '{text}'" in capsys.readouterr().err
    with pytest.raises(ValueError, match=f"^{flag(name)} {message}, not '{text}'$"):
        Options.of(Namespace(**{name: text}))


def test_the_form_offers_no_other_way_to_say_the_length() -> None:
    """The command line's choices are those of the form."""
    message = "--length-parameter must be max_completion_tokens or max_tokens, not 'm'"
    with pytest.raises(ValueError, match=message):
        Options.of(Namespace(length_parameter="m"))


NO_LIMITS = Options()
GENEROUS = Options(
    max_ttft_p99_ms=1000, max_itl_p99_ms=100, max_error_rate=0.6, min_tokens_per_s=0.1
)
BREAKING: list[tuple[dict[str, Any], str]] = [
    ({"max_ttft_p99_ms": 50}, "--max-ttft-p99-ms 50: the p99 of TTFT was 100 ms in 'chat'"),
    ({"max_itl_p99_ms": 5}, "--max-itl-p99-ms 5: the p99 of ITL was 20 ms in 'chat'"),
    ({"max_error_rate": 0.1}, "--max-error-rate 0.1: the error rate was 0.5000 (1 of 2 requests)"),
    ({"min_tokens_per_s": 1e9}, "--min-tokens-per-s 1e+09: there were "),
]


def measured() -> RequestStats:
    """Return figures of one good and one failed request, and gaps enough for a p99."""
    stats = RequestStats()
    stats.log_request("E2E", "chat", 140, 0)
    stats.log_request("E2E", "chat", 140, 0)
    stats.log_error("E2E", "chat", "failed")
    log_stream(stats, "chat", 10.0, [10.1 + 0.02 * i for i in range(MIN_GAPS + 1)])
    log_tokens(stats, "chat", 3)
    stats.total.start_time -= 1
    return stats


@pytest.mark.parametrize(("change", "line"), BREAKING)
def test_a_broken_limit_is_named_with_its_figure(change: dict[str, Any], line: str) -> None:
    """One line says which limit broke, what was measured and what was allowed."""
    (broken,) = broken_limits(measured(), replace(GENEROUS, **change))
    assert broken.startswith(line)
    assert exit_code(measured(), replace(GENEROUS, **change)) == 1


def test_without_a_broken_limit_locust_or_the_error_rate_decides() -> None:
    """A tolerated error rate makes a run with failures a success."""
    assert exit_code(measured(), NO_LIMITS) is None
    assert exit_code(measured(), GENEROUS) == 0


def test_a_limit_on_what_was_not_measured_is_broken() -> None:
    """A run without a single stream must not pass."""
    lines = list(broken_limits(RequestStats(), GENEROUS))
    assert [line.partition(":")[2] for line in lines[:3]] == [
        " no TTFT was measured",
        " no ITL was measured",
        " no request was made",
    ]
    assert len(lines) == 4


def test_the_p99_of_too_few_gaps_is_not_judged() -> None:
    """It is their maximum; the row is named, and a run without any row to judge does not pass."""
    stats, options = measured(), Options(max_itl_p99_ms=50)
    log_stream(stats, "rare", 10.0, [10.1, 10.2, 10.9])
    assert list(broken_limits(stats, options)) == []
    line = "--max-itl-p99-ms 50 in 'rare': 2 gaps, and a p99 is judged by 100 or more"
    assert list(unjudged(stats, options)) == [line]
    assert list(unjudged(stats, NO_LIMITS)) == []
    alone = RequestStats()
    log_stream(alone, "rare", 10.0, [10.1, 10.2, 10.9])
    (broken,) = broken_limits(alone, options)
    assert broken == "--max-itl-p99-ms 50: no row has the 100 gaps that a p99 is judged by"


def test_what_the_stop_delays_is_left_out() -> None:
    """A gap that ends within the second after the stop is none, and all others count."""
    stats, stop = RequestStats(), Stop(at_s=10.5)
    log_stream(stats, "chat", 9.9, [10.0, 10.4, 10.6, 10.6, 12.0, 12.1], stop=stop)
    log_stream(stats, "late", 9.9, [10.7], stop=stop)
    (itl,), (ttft,) = rows(stats, ITL), rows(stats, TTFT)
    assert (itl.name, itl.response_times) == ("chat", {400: 1, 1400: 1, 100: 1})
    assert (ttft.name, ttft.num_requests) == ("chat", 1)


def start(runner: Runner) -> None:
    """Start a run without users, and wait until it is under way."""
    runner.start(0, spawn_rate=1)
    assert runner.spawning_greenlet is not None
    runner.spawning_greenlet.join()


def test_every_process_notes_its_stop_and_forgets_it() -> None:
    """The hooks are locust's own: before it stops its users, and at the next start."""
    environment = Environment()
    register(environment.events)
    runner = environment.create_local_runner()
    start(runner)
    assert not THE_STOP.delays(time.perf_counter())
    runner.stop()
    assert THE_STOP.delays(time.perf_counter())
    start(runner)
    assert not THE_STOP.delays(time.perf_counter())
    runner.quit()


@pytest.mark.parametrize(("limit", "code"), [(0.1, 1), (0.9, None)])
def test_a_broken_limit_counts_even_after_exceptions(limit: float, code: int | None) -> None:
    """``--exit-code-on-error`` says what exceptions mean, but hides no broken limit."""
    environment = Environment(parsed_options=Namespace(max_error_rate=limit))
    environment.stats = measured()
    environment.create_local_runner().log_exception("local", "boom", "")
    conclude(environment)
    assert environment.process_exit_code == code


class FirstUser(User):
    """Has tasks with two tags."""

    @tag("a")
    @task
    def ask(self) -> None:
        """Do nothing."""

    @tag("b")
    @task
    def wait_a_little(self) -> None:
        """Do nothing."""


class SecondUser(User):
    """Has a task with one tag, and runs only when it is picked."""

    only_when_picked = True

    @tag("b")
    @task
    def ask(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, [FirstUser]),
        ({"tags": ["b"]}, [FirstUser, SecondUser]),
        ({"user_classes": ["SecondUser"]}, [FirstUser, SecondUser]),
        ({"user_classes": ["SecondUser"], "exclude_tags": ["b"]}, [FirstUser]),
        ({"tags": ["b"], "exclude_tags": ["a"]}, [FirstUser, SecondUser]),
        ({"exclude_tags": ["a", "b"]}, []),
    ],
)
def test_classes_without_a_task_do_not_run(options: dict[str, Any], left: list[type[User]]) -> None:
    """Tags may leave a class nothing to do."""
    environment = Environment(
        user_classes=[FirstUser, SecondUser], parsed_options=Namespace(**options)
    )
    prepare(environment)
    assert environment.user_classes == left


# --------------------------------------------------------------------------------------
# Locust against real servers
# --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def emulator(one_worker: Server) -> str:
    """Return the address of an emulator."""
    return one_worker.url


def locust_command(host: str, *arguments: str) -> list[str]:
    """Return the command line that the README gives."""
    command = [sys.executable, "-m", "locust", "-f", "locustfile.py", "--host", host]
    return [*command, *arguments]


def locust_environment() -> dict[str, str]:
    """Return an environment in which locust may patch what it likes."""
    return {k: v for k, v in os.environ.items() if k != "LOCUST_SKIP_MONKEY_PATCH"}


@contextmanager
def running_locust(host: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run locust while the body runs, and stop it by its process id; it says nothing."""
    process = subprocess.Popen(  # noqa: S603 - our own command line
        locust_command(host, *arguments),
        cwd=REPOSITORY,
        env=locust_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


class Run:
    """What a headless run left behind."""

    def __init__(self, folder: Path, host: str, *arguments: str) -> None:
        prefix = folder / "run"
        self.result = subprocess.run(  # noqa: S603 - our own command line
            locust_command(host, "--headless", "--only-summary", "--csv", str(prefix), *arguments),
            cwd=REPOSITORY,
            env=locust_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.exit_code = self.result.returncode
        self.output = self.result.stderr + self.result.stdout
        self.rows = self.read_csv(folder / "run_stats.csv")
        self.failures = self.read_csv(folder / "run_failures.csv")

    def tokens(self) -> tuple[int, float]:
        """Return the tokens, and the tokens/s."""
        found = re.search(r"(\d+) tokens received, (\S+) tokens/s", self.output)
        assert found, self.output
        return int(found[1]), float(found[2])

    @staticmethod
    def read_csv(path: Path) -> list[Row]:
        """Return a CSV file's rows."""
        with path.open() as file:
            return list(csv.DictReader(file))

    def named(self, kind: str, name: str) -> Row:
        """Return the one row of a kind whose name starts so."""
        (row,) = [r for r in self.rows if r["Type"] == kind and r["Name"].startswith(name)]
        return row

    def median(self, kind: str, name: str) -> float:
        """Return a row's median in ms."""
        return float(self.named(kind, name)["Median Response Time"])


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Run]:
    """Return what runs locust headless and collects its CSV files."""
    return lambda host, *arguments: Run(tmp_path, host, *arguments)


RunLocust = Callable[..., Run]


def test_the_default_mixture_runs_without_failures(run: RunLocust, emulator: str) -> None:
    """Every scenario of the mixture reports its rows, and nothing fails."""
    result = run(emulator, "-u", "20", "-r", "20", "-t", "8s", "--stream-ratio", "1")
    assert (result.exit_code, result.failures) == (0, []), result.output
    kinds = {(row["Type"], row["Name"].split(" ")[0]) for row in result.rows}
    scenarios = ("chat", "chat-short", "chat-long", "retrieval", "agent", "steady-rate")
    assert kinds >= {(kind, name) for kind in (TTFT, ITL, TOKENS) for name in scenarios}
    assert {("E2E", "vision-base64"), ("E2E", "vision-url")} & kinds
    assert not any("burst" in name or "high-throughput" in name for _, name in kinds)
    answered = Server(emulator).metrics()
    calls = answered.total("openai_emulator_completions_total", finish_reason="tool_calls")
    assert calls >= 1  # of the agent


@pytest.mark.parametrize("processes", [(), ("--processes", "2")], ids=["alone", "two workers"])
def test_medians_are_what_was_asked_for(
    run: RunLocust, emulator: str, processes: tuple[str, ...]
) -> None:
    """TTFT and ITL are those that were asked for, and generous limits pass.

    On a quiet machine they agree within 2 ms; what else runs on it makes a TTFT longer.
    """
    limits = ("--max-ttft-p99-ms", "1000", "--max-itl-p99-ms", "200", "--max-error-rate", "0")
    timing = ("--ttft-ms", "150", "--itl-ms", "25", "--output-length", "20")
    ratio = ("--stream-ratio", "1", "--min-tokens-per-s", "20")
    load = ("-u", "20", "-r", "20", "-t", "7s", "ShortChatUser", "AgentUser")
    result = run(emulator, *processes, *limits, *timing, *ratio, *load)
    assert (result.exit_code, result.failures) == (0, []), result.output
    for name in ("chat-short ttft=150 itl=25 n=20", "agent ttft=150 itl=25 n=20"):
        assert 150 <= result.median(TTFT, name) < 156
        assert result.median(ITL, name) == pytest.approx(25, abs=2)
        assert int(result.named("E2E", name)["Request Count"]) >= 20
    done = int(result.named("E2E", "chat-short")["Request Count"])
    assert done * 19 <= int(result.named(ITL, "chat-short")["Request Count"])
    assert done * 20 <= int(result.named(TOKENS, "chat-short")["Request Count"])


def test_a_broken_limit_fails_a_run_with_workers(run: RunLocust, emulator: str) -> None:
    """The master sets the exit code by the figures of all its workers."""
    limits = ("--max-ttft-p99-ms", "20", "--max-itl-p99-ms", "2", "--min-tokens-per-s", "1e6")
    result = run(emulator, "--processes", "2", *limits, "-u", "4", "-r", "4", "-t", "4s")
    assert result.exit_code == 1
    for name in ("--max-ttft-p99-ms 20", "--max-itl-p99-ms 2", "--min-tokens-per-s 1e+06"):
        assert result.output.count(f"Limit broken: {name}") == 1, result.output


def test_workers_run_what_their_master_picks(run: RunLocust) -> None:
    """They are started without options, and the master's rows are those of both."""
    port = str(free_port())
    worker = ("--worker", "--master-host", "127.0.0.1", "--master-port", port)
    master = ("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port)
    limits = ("--max-ttft-p99-ms", "0.001", "--max-error-rate", "0")
    load = ("--expect-workers", "2", "-u", "2", "-r", "2", "-t", "3s", "BurstUser")
    with (
        running_stub() as stub,
        running_locust(stub.url, *worker),
        running_locust(stub.url, *worker),
    ):
        real = ("--no-emulation-headers", "--stream-ratio", "1", "--burst-size", "7")
        result = run(stub.url, *master, *limits, *real, *load)
    assert result.exit_code == 1
    assert result.output.count("Limit broken") == 1, result.output
    assert "Limit broken: --max-ttft-p99-ms 0.001: the p99 of TTFT was" in result.output
    counts = [int(result.named(kind, "burst")["Request Count"]) for kind in ("E2E", TTFT, TOKENS)]
    assert counts == [14, 14, 56]  # a burst of each of the two users, one on each worker
    tokens, per_s = result.tokens()
    assert tokens == 56
    assert 56 / 6 < per_s < 56 / 2.5  # over the run, most of which was spent waiting


def test_a_server_that_hangs_has_no_tokens_per_s(run: RunLocust) -> None:
    """Its tokens are those of the whole run, and the requests it left open are told of."""
    with running_stub("none", "none", *["hang"] * 99) as stub:
        real = ("--no-emulation-headers", "--stream-ratio", "1", "--min-tokens-per-s", "10")
        load = ("-u", "2", "-r", "2", "-t", "4s", "ShortChatUser")
        result = run(stub.url, *real, *load)
    assert result.exit_code == 1, result.output
    tokens, per_s = result.tokens()
    assert tokens == 12  # two answers of four tokens, and two that hung after two events
    assert 12 / 6 < per_s < 12 / 2.5
    assert 1 < float(result.named(TOKENS, "chat-short")["Requests/s"]) < 12 / 2.5
    left_open = re.findall(r"(\d+) requests were still unanswered .* (\S+) s before", result.output)
    ((count, age_s),) = left_open
    assert count == "2"
    assert 2 < float(age_s) < 4


# Each fault of the stub by the name that it has in the failures, in a stream and a whole answer.
NAMES = {
    "http": ("HTTP 503: overloaded",) * 2,
    "error": ("error event: out of memory", None),
    "rate-limited": ("error event: rate_limit_exceeded", None),
    "eof": ("no finish_reason, no [DONE]: ended after 2 tokens", "cut JSON"),
    "no-done": ("no [DONE]", None),
    "no-finish": ("no finish_reason", None),
    "close": ("connection closed after 2 tokens", "connection closed within the answer"),
    "reset": ("connection reset after 2 tokens", "connection reset within the answer"),
    "stall": ("nothing for 0.5 s",) * 2,
    "malformed": ("broken JSON after 2 tokens", "broken JSON"),
    "empty": ("empty body",) * 2,
    "no-answer": ("connection closed before the answer",) * 2,
    "no-answer-reset": ("connection reset before the answer",) * 2,
    "slice": (None, None),
}


@pytest.mark.parametrize("whole", [False, True], ids=["streams", "whole answers"])
def test_every_fault_is_a_failure_with_its_name(run: RunLocust, whole: bool) -> None:
    """Whatever breaks an answer on the wire is told from all else; what is only torn is read."""
    names = {fault: names[whole] for fault, names in NAMES.items() if names[whole] or not whole}
    with running_stub(*names) as stub:
        real = ("--no-emulation-headers", "--stream-ratio", "0" if whole else "1")
        load = ("--silence-s", "0.5", "--rate", "20", "-t", "4s", "SteadyRateUser")
        result = run(stub.url, *real, *load)
    assert result.exit_code == 1
    assert {row["Error"] for row in result.failures} == {
        f"CatchResponseError({name!r})" for name in names.values() if name
    }
    seen = {row["Error"]: int(row["Occurrences"]) for row in result.failures}
    assert min(seen.values()) >= 2  # it did not end what came after it


def test_a_short_answer_is_a_failure(run: RunLocust) -> None:
    """An answer must be as long as was asked for."""
    with running_stub("short") as stub:
        arguments = ("--output-length", "4", "--stream-ratio", "1", "--max-error-rate", "0.5")
        result = run(stub.url, *arguments, "-u", "2", "-r", "2", "-t", "3s", "ShortChatUser")
    assert result.exit_code == 1
    assert "Limit broken: --max-error-rate 0.5: the error rate was 1.0000" in result.output
    errors = {row["Error"] for row in result.failures}
    assert errors == {"CatchResponseError('short answer: 1 tokens, asked for 4')"}


def test_nothing_listens(run: RunLocust) -> None:
    """A server that is not there is named in one row."""
    result = run(f"http://127.0.0.1:{free_port()}", "-t", "2s", "ShortChatUser")
    assert {row["Error"] for row in result.failures} == {"CatchResponseError('connection refused')"}


def test_silence_lasts_as_long_as_it_may(run: RunLocust) -> None:
    """A stalled stream fails after ``--silence-s``, to some 10 ms."""
    with running_stub("stall") as stub:
        real = ("--no-emulation-headers", "--stream-ratio", "1", "--silence-s", "1.2")
        result = run(stub.url, *real, "-t", "4s", "ShortChatUser")
    assert "nothing for 1.2 s" in result.failures[0]["Error"]
    assert 1200 <= result.median("E2E", "chat-short") < 1400


def test_faults_are_asked_for_by_header(run: RunLocust) -> None:
    """The emulator is told kind, rate and place; a whole answer is not asked for a lost [DONE]."""
    kind = ("--fault-kind", "no-done", "--fault-rate", "0.25", "--fault-after-tokens", "3")
    with running_stub() as stub:
        result = run(stub.url, *kind, "--stream-ratio", "0.5", "--rate", "20", "-t", "3s", STEADY)
    assert result.exit_code == 1  # the answers are not as long as was asked for
    asked = {
        (bool(body.get("stream")), *(headers.get(f"x-fault-{name}") for name in FAULT_HEADERS))
        for body, headers in zip(stub.bodies, stub.headers, strict=True)
    }
    assert asked == {(True, "no-done", "0.25", "3"), (False, None, None, None)}


STEADY = "SteadyRateUser"
FAULT_HEADERS = ("kind", "probability", "after-tokens")


@pytest.mark.parametrize("option", ["fault_rate", "fault_after_tokens"])
def test_a_rate_of_no_fault_is_refused(option: str) -> None:
    """An option that would do nothing is not ignored."""
    with pytest.raises(ValueError, match=f"^{flag(option)} needs --fault-kind$"):
        Options.of(Namespace(**{option: "0"}))


def test_an_answer_without_usage_cannot_be_counted(run: RunLocust) -> None:
    """If it is not streamed, there are no events to count either."""
    with running_stub("no-usage") as stub:
        real = ("--no-emulation-headers", "--stream-ratio", "0", "-t", "1s", "ShortChatUser")
        result = run(stub.url, *real)
    assert result.exit_code == 1
    assert "no usage, and so no way to count the tokens" in result.output


def test_idle_connections_are_not_used_again(run: RunLocust) -> None:
    """A server closes them when it likes, and a request on its way would fail."""
    with running_stub(idle_timeout_s=2.1) as stub:
        real = ("--no-emulation-headers", "--rate", "0.45", "--stream-ratio", "1")
        result = run(stub.url, *real, "-t", "5s", "SteadyRateUser")
    assert len(stub.bodies) >= 2
    assert (result.exit_code, result.failures) == (0, []), result.output


def test_an_answer_is_complete_at_done(run: RunLocust) -> None:
    """Users do not wait for the end of a body that stays open."""
    with running_stub("open-end") as stub:
        real = ("--no-emulation-headers", "--stream-ratio", "1", "--rate", "10", "-t", "2s")
        result = run(stub.url, *real, "SteadyRateUser")
    assert (result.exit_code, result.failures) == (0, []), result.output
    assert int(result.named("E2E", "steady-rate")["Request Count"]) >= 5
    assert result.median("E2E", "steady-rate") < 90  # the wait for the body's end is not in it


def test_what_breaks_a_request_is_seen_whoever_started_it(run: RunLocust, tmp_path: Path) -> None:
    """Requests beside the user's own greenlet fail the run as those of its tasks do."""
    locustfile = tmp_path / "locustfile.py"
    locustfile.write_text(BROKEN_USER)
    result = run("http://127.0.0.1:1", "-f", str(locustfile), "-t", "2s")
    assert result.exit_code == 1
    assert "boom" in (tmp_path / "run_exceptions.csv").read_text()


BROKEN_USER = """
from locust import constant, events, task
from loadtest.hooks import register
from loadtest.user import ChatUser, Timing

register(events)

class BrokenUser(ChatUser):
    wait_time = constant(1)

    @task
    def ask(self):
        self.start_chat("broken", Timing(ttft_ms=0, itl_ms=0, output_length=1), [])

    def headers(self, timing=None):
        raise RuntimeError("boom")
"""


def test_a_real_server_sees_a_plain_client(run: RunLocust) -> None:
    """Without emulation headers there is no X-* header, and tokens are counted by usage."""
    with running_stub() as stub:
        real = ("--no-emulation-headers", "--api-key", "secret", "--model", "llama")
        load = ("--stream-ratio", "1", "--output-length", "64", "-u", "2", "-r", "2", "-t", "3s")
        result = run(f"{stub.url}/v1", *real, *load, "ShortChatUser")
    assert (result.exit_code, result.failures) == (0, []), result.output
    assert not any(name.startswith("x-") for headers in stub.headers for name in headers)
    assert all(headers["authorization"] == "Bearer secret" for headers in stub.headers)
    assert all(body["model"] == "llama" for body in stub.bodies)
    assert all(body["max_completion_tokens"] == 64 for body in stub.bodies)
    done = int(result.named("E2E", "chat-short")["Request Count"])
    assert int(result.named(TOKENS, "chat-short")["Request Count"]) == 4 * done
    assert "secret" not in result.output


def test_a_slow_server_does_not_slow_the_steady_rate(run: RunLocust) -> None:
    """Requests start on schedule although none has been answered."""
    with running_stub(delay_s=1.5) as stub:
        arguments = ("--no-emulation-headers", "--rate", "10", "-t", "4s", "--tags", "steady-rate")
        result = run(stub.url, *arguments)
    assert len(stub.bodies) >= 25
    assert result.median("E2E", "steady-rate") == pytest.approx(1500, abs=100)
    assert "requests were still unanswered at the end" in result.output


def test_the_web_ui_has_options_table_and_charts(emulator: str) -> None:
    """Form, table, samples and script are served by locust's own web server."""
    port = free_port()
    web = ("--web-host", "127.0.0.1", "--web-port", str(port), "--autostart")
    load = ("-u", "4", "-r", "4", "--stream-ratio", "1", "ShortChatUser")
    long = ("--itl-ms", "20", "--output-length", "5000")
    with (
        running_locust(emulator, *web, *load, *long),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=TLS) as client,
    ):
        last = wait_for_sample(client)
        page = client.get("/").text
        table = client.get("/stats/requests").json()["extended_stats"][0]["data"]
        script = client.get("/streams/chart.js")
        bad_form = {"user_count": "1", "spawn_rate": "1", "ttft_ms": "fast"}
        refused = client.post("/swarm", data=bad_form).json()
    name = "chat-short ttft=100 itl=20 n=5000"
    (row,) = table
    assert row["name"] == name
    shown = [(row["ttft_p50"], row["itl_p50"]), (last["ttft"][name][0], last["itl"][name][0])]
    assert all(100 <= ttft_ms < 120 and 18 <= itl_ms < 22 for ttft_ms, itl_ms in shown)
    assert 100 < last["tokens"][name][0] < 220  # of four streams, none of which has ended
    assert 100 < row["tokens_per_s"] < 220
    message = "--ttft-ms must be a number of at least 0, not 'fast'"
    assert refused == {"success": False, "message": message}
    assert 'src="./streams/chart.js"' in page
    assert all(f'"{option}"' in page for option in ("ttft_ms", "itl_ms", "max_error_rate"))
    assert script.headers["content-type"].startswith("text/javascript")


def wait_for_sample(client: httpx.Client) -> dict[str, dict[str, list[float]]]:
    """Return the charts' last sample once it has a TTFT and as many tokens/s as there should be."""
    for _ in range(100):
        time.sleep(0.2)
        try:
            samples: list[dict[str, dict[str, list[float]]]] = client.get("/streams/samples").json()
        except httpx.TransportError:
            continue
        last = samples[-1] if samples else {"ttft": {}, "tokens": {}}
        has_ttft = any(p50 for p50, _ in last["ttft"].values())
        if has_ttft and any(per_s > 100 for per_s, _ in last["tokens"].values()):
            return last
    raise TimeoutError("no such sample within 20 s")
