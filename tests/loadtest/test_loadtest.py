"""The parts of the load test kit, each alone."""

import os
import time
from argparse import Namespace
from dataclasses import replace
from typing import Any

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
from tests.support.chat_stub import content, ending, ending_with, event, stream_of

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
