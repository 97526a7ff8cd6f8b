"""`locust` as a user runs it, against the emulator and against a server that breaks its answers."""

import os
import re
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

# Importing locust would replace the sockets and threads of the other tests in this process.
os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"

from loadtest.options import Options, flag
from loadtest.report import ITL, TOKENS, TTFT
from tests.loadtest.running import Run, running_locust, two_processes
from tests.support.chat_stub import Stub, running_stub
from tests.support.process import free_port
from tests.support.server import TLS, Server

pytestmark = pytest.mark.slow  # each test looks at a run of locust, in processes of its own

AT_ONCE = 3


# --------------------------------------------------------------------------------------
# Runs: most of their time is waiting, so that some go on at once
# --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What a run left behind, and what the stub saw of it, if it was against one."""

    run: Run
    stub: Stub | None = None


# Given a folder and the address of an emulator.
RUNS: dict[str, Callable[[Path, str], Seen]] = {}
Runs = Mapping[str, "Future[Seen]"]


@pytest.fixture(scope="module")
def runs(one_worker: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Begin all runs; yield what is to come of each."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            name: pool.submit(act, tmp_path_factory.mktemp("run"), one_worker.url)
            for name, act in RUNS.items()
        }


Until = Callable[[Run], bool]


def against_emulator(name: str, *arguments: str, until: Until) -> None:
    """Note a run against the emulator."""
    RUNS[name] = lambda folder, url: Seen(Run(folder, url, *arguments, until=until))


def against_stub(
    name: str,
    *arguments: str,
    until: Until | None = None,
    faults: tuple[str, ...] = (),
    path: str = "",
    **timing: float,
) -> None:
    """Note a run against a stub that goes through faults."""

    def act(folder: Path, _: str) -> Seen:
        with running_stub(*faults, **timing) as stub:
            return Seen(Run(folder, stub.url + path, *arguments, until=until), stub)

    RUNS[name] = act


def has(count: int, *names: str, kind: str = "E2E") -> Until:
    """Return what tells whether there are so many answers of each of these names."""
    return lambda run: all(run.count(kind, name) >= count for name in names)


REAL = ("--no-emulation-headers",)
STREAMED, WHOLE = ("--stream-ratio", "1"), ("--stream-ratio", "0")
TWO = ("-u", "2", "-r", "2")


# --------------------------------------------------------------------------------------
# Against the emulator
# --------------------------------------------------------------------------------------

SCENARIOS = ("chat", "chat-short", "chat-long", "retrieval", "agent", "steady-rate")
VISION = ("vision-base64", "vision-url")
against_emulator(
    "mixture",
    *("-u", "20", "-r", "20", *STREAMED),
    until=lambda run: (
        all(run.count(TTFT, f"{name} ") for name in SCENARIOS)
        and any(run.count("E2E", name) for name in VISION)
        and run.count("E2E", "agent ") >= 3
    ),
)


def test_the_default_mixture_runs_without_failures(runs: Runs, one_worker: Server) -> None:
    """Every scenario of the mixture reports its rows, and nothing fails."""
    result = runs["mixture"].result().run
    assert (result.exit_code, result.failures) == (0, []), result.output
    kinds = {(row["Type"], row["Name"].split(" ")[0]) for row in result.rows}
    assert kinds >= {(kind, name) for kind in (TTFT, ITL, TOKENS) for name in SCENARIOS}
    assert {("E2E", name) for name in VISION} & kinds
    assert not any("burst" in name or "high-throughput" in name for _, name in kinds)
    answered = one_worker.metrics()
    calls = answered.total("openai_emulator_completions_total", finish_reason="tool_calls")
    assert calls >= 1  # of the agent


LIMITS = ("--max-ttft-p99-ms", "10000", "--max-itl-p99-ms", "2000", "--max-error-rate", "0")
TIMING = ("--ttft-ms", "150", "--itl-ms", "25", "--output-length", "20", "--min-tokens-per-s", "5")
TIMED = (*LIMITS, *TIMING, *STREAMED, "-u", "10", "-r", "10", "ShortChatUser", "AgentUser")
against_emulator("timed", *TIMED, until=has(8, "chat-short", "agent"))
against_emulator("timed by two", *two_processes(), *TIMED, until=has(8, "chat-short", "agent"))


@pytest.mark.parametrize("name", ["timed", "timed by two"])
def test_medians_are_not_below_what_was_asked_for(runs: Runs, name: str) -> None:
    """TTFT and ITL are those that were asked for or what the machine adds; generous limits pass."""
    result = runs[name].result().run
    assert (result.exit_code, result.failures) == (0, []), result.output
    for row in ("chat-short ttft=150 itl=25 n=20", "agent ttft=150 itl=25 n=20"):
        assert result.median(TTFT, row) >= 150
        assert result.median(ITL, row) > 10  # a token that was late makes the next gap shorter
    done = int(result.named("E2E", "chat-short")["Request Count"])
    assert done * 19 <= int(result.named(ITL, "chat-short")["Request Count"])
    assert done * 20 <= int(result.named(TOKENS, "chat-short")["Request Count"])


BREAKING = ("--max-ttft-p99-ms", "20", "--max-itl-p99-ms", "2", "--min-tokens-per-s", "1e6")
BROKEN = (*two_processes(), *BREAKING, "-u", "4", "-r", "4", *STREAMED, "ShortChatUser")
against_emulator("broken limits", *BROKEN, until=has(200, "chat-short", kind=ITL))


def test_a_broken_limit_fails_a_run_with_workers(runs: Runs) -> None:
    """The master sets the exit code by the figures of all its workers."""
    result = runs["broken limits"].result().run
    assert result.exit_code == 1
    for name in ("--max-ttft-p99-ms 20", "--max-itl-p99-ms 2", "--min-tokens-per-s 1e+06"):
        assert result.output.count(f"Limit broken: {name}") == 1, result.output


# --------------------------------------------------------------------------------------
# Against a stub
# --------------------------------------------------------------------------------------


def master_and_workers(folder: Path, _: str) -> Seen:
    """Run a master and two workers, which are started without options."""
    port = str(free_port())
    worker = ("--worker", "--master-host", "127.0.0.1", "--master-port", port)
    master = ("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port)
    limits = ("--max-ttft-p99-ms", "0.001", "--max-error-rate", "0")
    load = ("--expect-workers", "2", *TWO, "BurstUser")
    with (
        running_stub() as stub,
        running_locust(stub.url, *worker),
        running_locust(stub.url, *worker),
    ):
        real = (*REAL, *STREAMED, "--burst-size", "7")
        arguments = (*master, *limits, *real, *load)
        return Seen(Run(folder, stub.url, *arguments, until=has(14, "burst")), stub)


RUNS["master"] = master_and_workers


def test_workers_run_what_their_master_picks(runs: Runs) -> None:
    """The master's rows are those of both workers."""
    result = runs["master"].result().run
    assert result.exit_code == 1
    assert result.output.count("Limit broken") == 1, result.output
    assert "Limit broken: --max-ttft-p99-ms 0.001: the p99 of TTFT was" in result.output
    counts = [int(result.named(kind, "burst")["Request Count"]) for kind in ("E2E", TTFT, TOKENS)]
    assert counts == [14, 14, 56]  # a burst of each of the two users, one on each worker
    tokens, per_s = result.tokens()
    assert tokens == 56
    assert per_s < 56


MANY_HANG = ("none", "none", *["hang"] * 99)
HANGING = (*REAL, *STREAMED, "--min-tokens-per-s", "100", *TWO, "ShortChatUser")
against_stub("hanging", *HANGING, faults=MANY_HANG, until=has(12, "chat-short", kind=TOKENS))


def test_a_server_that_hangs_has_no_tokens_per_s(runs: Runs) -> None:
    """Its tokens are those of the whole run, and the requests it left open are told of."""
    result = runs["hanging"].result().run
    assert result.exit_code == 1, result.output
    tokens, per_s = result.tokens()
    assert tokens == 12  # two answers of four tokens, and two that hung after two events
    assert per_s < 100
    left_open = re.findall(r"(\d+) requests were still unanswered .* (\S+) s before", result.output)
    ((count, age_s),) = left_open
    assert count == "2"
    assert float(age_s) > 0


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


def named(whole: bool) -> dict[str, str | None]:
    """Return the name of each fault that answers of a kind can have."""
    return {fault: names[whole] for fault, names in NAMES.items() if names[whole] or not whole}


STEADY = ("--silence-s", "0.5", "--rate", "20", "SteadyRateUser")


def all_twice(whole: bool) -> Until:
    """Return what tells whether each error has occurred twice."""
    expected = {f"CatchResponseError({name!r})" for name in named(whole).values() if name}
    return lambda run: all(run.errors.get(error, 0) >= 2 for error in expected)


for streamed, name in ((True, "faults of streams"), (False, "faults of whole answers")):
    against_stub(
        name,
        *(*REAL, *(STREAMED if streamed else WHOLE), *STEADY),
        faults=tuple(named(not streamed)),
        until=all_twice(not streamed),
    )


@pytest.mark.parametrize("whole", [False, True], ids=["streams", "whole answers"])
def test_every_fault_is_a_failure_with_its_name(runs: Runs, whole: bool) -> None:
    """Whatever breaks an answer on the wire is told from all else; what is only torn is read."""
    result = runs["faults of whole answers" if whole else "faults of streams"].result().run
    assert result.exit_code == 1
    assert {row["Error"] for row in result.failures} == {
        f"CatchResponseError({name!r})" for name in named(whole).values() if name
    }
    assert min(result.errors.values()) >= 2  # it did not end what came after it


SHORT = ("--output-length", "4", *STREAMED, "--max-error-rate", "0.5", *TWO)
against_stub("short", *SHORT, "ShortChatUser", faults=("short",), until=has(2, "chat-short"))


def test_a_short_answer_is_a_failure(runs: Runs) -> None:
    """An answer must be as long as was asked for."""
    result = runs["short"].result().run
    assert result.exit_code == 1
    assert "Limit broken: --max-error-rate 0.5: the error rate was 1.0000" in result.output
    errors = {row["Error"] for row in result.failures}
    assert errors == {"CatchResponseError('short answer: 1 tokens, asked for 4')"}


def nothing_there(folder: Path, _: str) -> Seen:
    """Run against a port where nobody listens."""
    nobody = f"http://127.0.0.1:{free_port()}"
    return Seen(Run(folder, nobody, "ShortChatUser", until=lambda run: bool(run.failures)))


RUNS["nothing"] = nothing_there


def test_nothing_listens(runs: Runs) -> None:
    """A server that is not there is named in one row."""
    result = runs["nothing"].result().run
    assert {row["Error"] for row in result.failures} == {"CatchResponseError('connection refused')"}


SILENT = (*REAL, *STREAMED, "--silence-s", "1.2", "ShortChatUser")
against_stub("silence", *SILENT, faults=("stall",), until=lambda run: bool(run.failures))


def test_silence_lasts_as_long_as_it_may(runs: Runs) -> None:
    """A stalled stream fails after ``--silence-s``, and not before."""
    result = runs["silence"].result().run
    assert "nothing for 1.2 s" in result.failures[0]["Error"]
    assert result.median("E2E", "chat-short") >= 1200


FAULT_HEADERS = ("kind", "probability", "after-tokens")
KIND = ("--fault-kind", "no-done", "--fault-rate", "0.25", "--fault-after-tokens", "3")
MIXED = ("--stream-ratio", "0.5", "--rate", "20", "SteadyRateUser")
against_stub("asked faults", *KIND, *MIXED, until=has(40, "steady-rate"))


def test_faults_are_asked_for_by_header(runs: Runs) -> None:
    """The emulator is told kind, rate and place; a whole answer is not asked for a lost [DONE]."""
    seen = runs["asked faults"].result()
    assert seen.run.exit_code == 1  # the answers are not as long as was asked for
    assert seen.stub is not None
    asked = {
        (bool(body.get("stream")), *(headers.get(f"x-fault-{name}") for name in FAULT_HEADERS))
        for body, headers in zip(seen.stub.bodies, seen.stub.headers, strict=True)
    }
    assert asked == {(True, "no-done", "0.25", "3"), (False, None, None, None)}


@pytest.mark.parametrize("option", ["fault_rate", "fault_after_tokens"])
def test_a_rate_of_no_fault_is_refused(option: str) -> None:
    """An option that would do nothing is not ignored."""
    with pytest.raises(ValueError, match=f"^{flag(option)} needs --fault-kind$"):
        Options.of(Namespace(**{option: "0"}))


UNCOUNTED = (*REAL, *WHOLE, "ShortChatUser")
against_stub("no usage", *UNCOUNTED, faults=("no-usage",), until=lambda run: bool(run.failures))


def test_an_answer_without_usage_cannot_be_counted(runs: Runs) -> None:
    """If it is not streamed, there are no events to count either."""
    result = runs["no usage"].result().run
    assert result.exit_code == 1
    assert "no usage, and so no way to count the tokens" in result.output


IDLE = (*REAL, "--rate", "0.45", *STREAMED, "SteadyRateUser")
against_stub("idle", *IDLE, idle_timeout_s=2.1, until=has(2, "steady-rate"))


def test_idle_connections_are_not_used_again(runs: Runs) -> None:
    """A server closes them when it likes, and a request on its way would fail."""
    seen = runs["idle"].result()
    assert seen.stub is not None
    assert len(seen.stub.bodies) >= 2
    assert (seen.run.exit_code, seen.run.failures) == (0, []), seen.run.output


OPEN = (*REAL, *STREAMED, "--rate", "10", "SteadyRateUser")
against_stub("open end", *OPEN, faults=("open-end",), until=has(5, "steady-rate"))


def test_an_answer_is_complete_at_done(runs: Runs) -> None:
    """Users do not wait for the end of a body that stays open until the server ends."""
    result = runs["open end"].result().run
    assert (result.exit_code, result.failures) == (0, []), result.output
    assert result.count("E2E", "steady-rate") >= 5


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


def broken_user(folder: Path, _: str) -> Seen:
    """Run a user whose request raises beside its own greenlet."""
    locustfile = folder / "locustfile.py"
    locustfile.write_text(BROKEN_USER)
    arguments = ("http://127.0.0.1:1", "-f", str(locustfile))
    return Seen(Run(folder, *arguments, until=lambda run: "boom" in run.exceptions))


RUNS["broken user"] = broken_user


def test_what_breaks_a_request_is_seen_whoever_started_it(runs: Runs) -> None:
    """Requests beside the user's own greenlet fail the run as those of its tasks do."""
    result = runs["broken user"].result().run
    assert result.exit_code == 1
    assert "boom" in result.exceptions


PLAIN = (*REAL, "--api-key", "secret", "--model", "llama", *STREAMED, "--output-length", "64")
against_stub("plain", *PLAIN, *TWO, "ShortChatUser", path="/v1", until=has(2, "chat-short"))


def test_a_real_server_sees_a_plain_client(runs: Runs) -> None:
    """Without emulation headers there is no X-* header, and tokens are counted by usage."""
    seen = runs["plain"].result()
    result, stub = seen.run, seen.stub
    assert stub is not None
    assert (result.exit_code, result.failures) == (0, []), result.output
    assert not any(name.startswith("x-") for headers in stub.headers for name in headers)
    assert all(headers["authorization"] == "Bearer secret" for headers in stub.headers)
    assert all(body["model"] == "llama" for body in stub.bodies)
    assert all(body["max_completion_tokens"] == 64 for body in stub.bodies)
    done = int(result.named("E2E", "chat-short")["Request Count"])
    assert int(result.named(TOKENS, "chat-short")["Request Count"]) == 4 * done
    assert "secret" not in result.output


SLOW = (*REAL, "--rate", "10", "--tags", "steady-rate")
against_stub("slow", *SLOW, delay_s=1.5, until=has(1, "steady-rate"))


def test_a_slow_server_does_not_slow_the_steady_rate(runs: Runs) -> None:
    """Requests start on schedule although none has been answered."""
    seen = runs["slow"].result()
    assert seen.stub is not None
    assert len(seen.stub.bodies) >= 5  # one after the other, one or two would have been sent
    assert seen.run.median("E2E", "steady-rate") >= 1500
    assert "requests were still unanswered at the end" in seen.run.output


# --------------------------------------------------------------------------------------
# The web UI
# --------------------------------------------------------------------------------------


def test_the_web_ui_has_options_table_and_charts(one_worker: Server) -> None:
    """Form, table, samples and script are served by locust's own web server."""
    port = free_port()
    web = ("--web-host", "127.0.0.1", "--web-port", str(port), "--autostart")
    load = ("-u", "4", "-r", "4", "--stream-ratio", "1", "ShortChatUser")
    long = ("--itl-ms", "20", "--output-length", "5000")
    with (
        running_locust(one_worker.url, *web, *load, *long),
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
    assert all(ttft_ms >= 100 and itl_ms > 10 for ttft_ms, itl_ms in shown)
    assert last["tokens"][name][0] > 50  # of four streams, none of which has ended
    assert row["tokens_per_s"] > 50
    message = "--ttft-ms must be a number of at least 0, not 'fast'"
    assert refused == {"success": False, "message": message}
    assert 'src="./streams/chart.js"' in page
    assert all(f'"{option}"' in page for option in ("ttft_ms", "itl_ms", "max_error_rate"))
    assert script.headers["content-type"].startswith("text/javascript")


def wait_for_sample(client: httpx.Client) -> dict[str, dict[str, list[float]]]:
    """Return the charts' last sample once it has a TTFT and as many tokens/s as there should be."""
    for _ in range(300):
        time.sleep(0.2)
        try:
            samples: list[dict[str, dict[str, list[float]]]] = client.get("/streams/samples").json()
        except httpx.TransportError:
            continue
        last = samples[-1] if samples else {"ttft": {}, "tokens": {}}
        has_ttft = any(p50 for p50, _ in last["ttft"].values())
        if has_ttft and any(per_s > 50 for per_s, _ in last["tokens"].values()):
            return last
    raise TimeoutError("no such sample within 60 s")
