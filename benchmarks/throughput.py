"""Measures what answers cost beside a bare uvicorn app: ``python -m benchmarks.throughput``.

The bare app (bare_app.py) writes the same bytes, paced by `asyncio.sleep`. All servers are up all
the time and are measured in turn, `--runs` times, by one client: one Python process on raw sockets.

* short, long: tokens/s of streams of 100 and of 1,000 tokens at ITL 0; medians.
* whole: answers/s without delay that are not streamed, medians; CPU time for each answer, minima.
  The ratio is the median of the rounds', in each of which all servers had the same machine. What a
  setting costs is told by `--runs 30 --duration-s 0.5`, started a few times: two processes of the
  same code differ by up to 5 %.
* cost: the workers' CPU time for each token of 100 and of 200 streams of 50 tokens/s, each token in
  a write of its own, in a window in which streams neither start nor end. The sum is the minimum of
  the runs, divided into user and system as all runs together were. "together": the tokens of all
  streams are due at the same instants, so that every server wakes once for many, and the figures
  are those of its own work. "apart": at random instants; the bare app, whose timers have a grain of
  1 ms, then still wakes once for several tokens (waits/token) and is late (gap p99), where the
  emulator and the C program wake a sleeping core for each; `--arg timer_slack_us=2000` adds the
  emulator that does not.
* responses: the cost of a token, the TTFT's error and the gap's of streams of the Responses API,
  beside those of chats on the same server in the same run, 200 streams apart. The ratio is to chat.
* streams: how many streams of 50 tokens/s a server holds with a p99 of the gap error under 5 ms;
  one of `--runs` tries must do so. It takes minutes, and says little on a busy machine.

cost and streams run beside a C program too (timerfd_server.c), if there is a compiler. `--checkout`
adds the emulator of another working tree, `--arg` this one's with settings of an operator,
`--watched` this one's while somebody reads /emulator/events.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TypeVar

from benchmarks.kit.client import Chat, Rate, closed_loop
from benchmarks.kit.server import (
    COMPILED,
    Cpu,
    Server,
    add_emulator_options,
    bare,
    c_program,
    emulator,
    emulators,
    serving,
    stop_servers_on_sigterm,
)
from benchmarks.kit.steady import GAP_LIMIT_MS, Search, Steady, run_steady

BARE = "bare app"
WATCHED = "watched"
EVENTS_PATH = "/emulator/events"
COST_STREAMS = (100, 200)
FIRST_STREAMS = 200
MOST_STREAMS = 2000

T = TypeVar("T")
Row = dict[str, float]
"""A server's figures by their names; `ratio` is to the bare app's."""


@dataclass(frozen=True, slots=True)
class Servers:
    """All that are up: those that give whole answers, and those that at least stream."""

    whole: Sequence[Server]
    streaming: Sequence[Server]


def in_turn(
    servers: Sequence[Server], runs: int, measure: Callable[[Server], T]
) -> dict[str, list[T]]:
    """Return each server's results of `runs` rounds, in each of which all have their turn."""
    found: dict[str, list[T]] = {server.name: [] for server in servers}
    for _ in range(runs):
        for server in servers:
            found[server.name].append(measure(server))
    return found


def show(measure: str, server: str, figures: str, ratio: float) -> None:
    """Print one line of the table."""
    print(f"{measure:<9} {server:<14} {figures:<82} {ratio:5.2f} x", flush=True)


# --------------------------------------------------------------------------------------
# Closed loops
# --------------------------------------------------------------------------------------


def rates(
    servers: Servers, options: argparse.Namespace, chat: Chat, connections: int
) -> dict[str, list[Rate]]:
    """Return the rates of all servers that are asked for `chat` over and over."""
    loop = partial(closed_loop, chat=chat, connections=connections, duration_s=options.duration_s)
    return in_turn(servers.whole, options.runs, loop)


def streamed(
    servers: Servers, options: argparse.Namespace, name: str, tokens: int
) -> dict[str, Row]:
    """Print and return the tokens/s of 16 connections that stream at ITL 0."""
    found = rates(servers, options, Chat(True, 0, 0, tokens), 16)
    medians = {
        server: statistics.median(rate.tokens_per_s for rate in runs)
        for server, runs in found.items()
    }
    rows: dict[str, Row] = {}
    for server, tokens_per_s in medians.items():
        rows[server] = {"tokens_per_s": tokens_per_s, "ratio": tokens_per_s / medians[BARE]}
        show(name, server, f"{tokens_per_s:,.0f} tokens/s", rows[server]["ratio"])
    return rows


def short(servers: Servers, options: argparse.Namespace) -> dict[str, Row]:
    """Measure streams of 100 tokens."""
    return streamed(servers, options, "short", 100)


def long(servers: Servers, options: argparse.Namespace) -> dict[str, Row]:
    """Measure streams of 1,000 tokens."""
    return streamed(servers, options, "long", 1000)


def whole(servers: Servers, options: argparse.Namespace) -> dict[str, Row]:
    """Print and return answers/s of 32 connections, 20 tokens each, and their CPU time."""
    found = rates(servers, options, Chat(False, 0, 0, 20), 32)
    rows: dict[str, Row] = {}
    for server, runs in found.items():
        answers_per_s = statistics.median(rate.answers_per_s for rate in runs)
        cost_us = min(rate.cpu_us_per_answer for rate in runs)
        rounds = zip(runs, found[BARE], strict=True)
        ratio = statistics.median(
            own.cpu_us_per_answer / bare.cpu_us_per_answer for own, bare in rounds
        )
        rows[server] = {"answers_per_s": answers_per_s, "cpu_us": cost_us, "ratio": ratio}
        figures = f"{answers_per_s:,.0f} answers/s, {cost_us:.0f} us CPU each"
        show("whole", server, figures, ratio)
    return rows


# --------------------------------------------------------------------------------------
# Paced streams
# --------------------------------------------------------------------------------------


def cost(servers: Servers, options: argparse.Namespace) -> dict[str, Row]:
    """Print and return the CPU time of a paced token, at each number of streams."""
    rows: dict[str, Row] = {}
    for streams, together in product(options.cost_streams, (True, False)):
        steady = partial(
            run_steady, streams=streams, duration_s=options.duration_s, together=together
        )
        found = in_turn(servers.streaming, options.runs, steady)
        bare_us = min(run.us_per_token for run in found[BARE])
        name = f"{streams} {'together' if together else 'apart'}"
        for server, runs in found.items():
            row = cost_row(runs, bare_us)
            rows[f"{server}, {name}"] = row
            figures = (
                "user {user_us:4.1f} system {system_us:4.1f} sum {sum_us:4.1f} us/token, "
                "waits {waits:4.2f}/token, gap p99 {gap_error_p99_ms:5.2f} ms"
            )
            behind = "" if all(run.kept for run in runs) else " behind!"
            show(f"cost {name}", server, figures.format(**row) + behind, row["ratio"])
    return rows


def cost_row(runs: Sequence[Steady], bare_us: float) -> Row:
    """Return the cheapest run's sum, divided into user and system as all runs together were."""
    sum_us = min(run.us_per_token for run in runs)
    total = sum((run.cpu for run in runs), Cpu())
    user_us = sum_us * total.user_s / ((total.user_s + total.system_s) or 1)
    return {
        "user_us": user_us,
        "system_us": max(sum_us - user_us, 0.0),  # not -0.0
        "sum_us": sum_us,
        "waits": total.waits / sum(run.tokens for run in runs),
        "gap_error_p99_ms": min(run.gap_error_p99_ms for run in runs),
        "ratio": sum_us / bare_us,
    }


def responses(servers: Servers, options: argparse.Namespace) -> dict[str, Row]:
    """Print and return what Responses streams cost and how true they are, and chats' beside."""
    count = max(options.cost_streams)
    rows: dict[str, Row] = {}
    for server in (server for server in servers.whole if server.name != BARE):
        runs: dict[str, list[Steady]] = {"chat": [], "responses": []}
        for _, api in product(range(options.runs), runs):
            run = run_steady(server, count, options.duration_s, as_response=api == "responses")
            runs[api].append(run)
        chat_us = min(run.us_per_token for run in runs["chat"])
        for api, found in runs.items():
            row = cost_row(found, chat_us)
            row["ttft_error_p50_ms"] = min(run.ttft_error_p50_ms for run in found)
            row["ttft_error_p99_ms"] = min(run.ttft_error_p99_ms for run in found)
            rows[f"{server.name}, {api}"] = row
            figures = (
                "sum {sum_us:4.1f} us/token, TTFT error p50 {ttft_error_p50_ms:5.2f} "
                "p99 {ttft_error_p99_ms:5.2f} ms, gap p99 {gap_error_p99_ms:5.2f} ms"
            )
            behind = "" if all(run.kept for run in found) else " behind!"
            show(api, server.name, figures.format(**row) + behind, row["ratio"])
    return rows


def streams(servers: Servers, options: argparse.Namespace) -> dict[str, Row]:
    """Print and return how many streams each server holds; the servers climb in turn."""
    searches = {
        server.name: Search(FIRST_STREAMS, options.most_streams) for server in servers.streaming
    }
    late_client: set[str] = set()
    while any(search.next() for search in searches.values()):
        for server in servers.streaming:
            search = searches[server.name]
            if tried := search.next():
                last = climb(server, tried, options)
                search.note(tried, last.held)
                late = not last.held and last.client_behind_p99_ms > GAP_LIMIT_MS
                (late_client.add if late else late_client.discard)(server.name)
    rows: dict[str, Row] = {}
    for name, search in searches.items():
        ratio = search.held / (searches[BARE].held or 1)
        rows[name] = {"streams": search.held, "ratio": ratio}
        at_least = name in late_client or search.held == options.most_streams
        show("streams", name, f"{'at least ' * at_least}{search.held:,} streams", ratio)
    return rows


def climb(server: Server, tried: int, options: argparse.Namespace) -> Steady:
    """Return the first of `--runs` tries that holds, or else the last."""
    for _ in range(options.runs):
        found = run_steady(server, tried, options.duration_s)
        if found.held:
            break
    return found


MEASURES: dict[str, Callable[[Servers, argparse.Namespace], dict[str, Row]]] = {
    "short": short,
    "long": long,
    "whole": whole,
    "cost": cost,
    "responses": responses,
    "streams": streams,
}


@contextmanager
def watched(workers: int) -> Iterator[Server]:
    """Start an emulator whose events a process reads."""
    with serving(WATCHED, emulator(workers)) as server:
        url = f"http://{server.host}:{server.port}{EVENTS_PATH}"
        reading = multiprocessing.Process(target=read_all, args=(url,), daemon=True)
        reading.start()
        try:
            yield server
        finally:
            reading.kill()
            reading.join()


def read_all(url: str) -> None:
    """Read an answer that does not end."""
    with urllib.request.urlopen(url) as answer:
        for _ in answer:
            pass


@contextmanager
def all_servers(options: argparse.Namespace) -> Iterator[Servers]:
    """Start the emulators, the bare app and, if it can be compiled, the C program."""
    workers = options.workers
    with ExitStack() as stack:
        own = stack.enter_context(emulators(options.checkout, options.arg, workers))
        if options.watched:
            own.append(stack.enter_context(watched(workers)))
        api = [*own, stack.enter_context(serving(BARE, bare(workers)))]
        program = stack.enter_context(c_program())
        if program:
            yield Servers(api, [*api, stack.enter_context(serving(COMPILED, program))])
        else:
            print("No C compiler, or not Linux: the C program is left out.")
            yield Servers(api, api)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--measure", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--duration-s", type=float, default=3.0, help="of each run")
    parser.add_argument("--cost-streams", type=int, nargs="+", default=COST_STREAMS)
    parser.add_argument("--most-streams", type=int, default=MOST_STREAMS, help="to try")
    add_emulator_options(parser)
    parser.add_argument("--watched", action="store_true", help="measure one with its events read")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def main() -> None:
    """Measure, print and write."""
    options = parse_options()
    stop_servers_on_sigterm()
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"Python {platform.python_version()}, {machine}; workers: {options.workers}")
    print(f"{'measure':<9} {'server':<14} {'':<81} to the bare app's")
    with all_servers(options) as servers:
        figures = {name: MEASURES[name](servers, options) for name in options.measure}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
