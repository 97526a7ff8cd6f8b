"""Prints how exact good streams are beside others: ``python -m benchmarks.beside``.

200 streams of 20 ms run alone, beside 100 connections with good answers, and beside 100 that fail
in every kind, in turn; of each the p99 of the gap error is printed, run by run and the least.
"""

import argparse
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import Pool

from benchmarks.fidelity import summarize
from benchmarks.kit.client import Chat, run_streams
from benchmarks.kit.server import emulator, serving, stop_servers_on_sigterm
from emulator.faults.kinds import KINDS
from tests.support.cut_wire import CHAT, exchange
from tests.support.process import step_back
from tests.support.wire import headers

Address = tuple[str, int]

GOOD, BESIDE, EVERY_S = 200, 100, 0.6
MODES: Mapping[str, bool | None] = {"alone": None, "beside good": False, "beside failures": True}


def gap_error_p99_ms(address: Address, lasts_s: int) -> float:
    """Return the p99 of how far gaps of `GOOD` streams are from 20 ms, as the kernel receives."""
    asked = Chat(stream=True, ttft_ms=500, itl_ms=20, tokens=lasts_s * 50)
    results = run_streams(address, asked, GOOD, 0.4, lasts_s + 30)
    return summarize("watched", asked, results, None, None).gap_error_p99_ms


def ask_again_and_again(address: Address, lasts_s: float, *, fails: bool) -> int:
    """Ask on `BESIDE` connections, for failures in every kind or none; return how often.

    Each asks every `EVERY_S`, as a server that is full would be late with or without failures.
    """
    start_s, kinds = time.monotonic(), [*KINDS]

    def ask_on(first: int) -> int:
        count = 0
        while (now_s := time.monotonic()) < start_s + lasts_s:
            due_s = start_s + (first / BESIDE + count) * EVERY_S
            time.sleep(max(0.0, due_s - now_s))
            kind = kinds[(first + count) % len(kinds)]
            body = CHAT.body(kind == "no-done" or (first + count) // len(kinds) % 2 == 0)
            failing = {"X-FAULT-KIND": kind} if fails else {"Connection": "close"}
            asked = headers(100, 20, 10) | failing
            exchange(address, CHAT.path, body, asked, stalls=fails and kind == "stall")
            count += 1
        return count

    with ThreadPoolExecutor(BESIDE) as pool:
        return sum(pool.map(ask_on, range(BESIDE)))


def measured(address: Address, pool: Pool, lasts_s: int, fails: bool | None) -> float:
    """Return the good streams' p99 in ms while `pool` asks for failures, good answers or nothing.

    Whoever asks beside them gives way to whoever reads them.
    """
    if fails is None:
        return gap_error_p99_ms(address, lasts_s)
    asked = pool.apply_async(ask_again_and_again, (address, lasts_s + 1), {"fails": fails})
    p99_ms = gap_error_p99_ms(address, lasts_s)
    asked.get()
    return p99_ms


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of each kind, in turn")
    parser.add_argument("--duration-s", type=int, default=6, help="of each run")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure all in turn, and print them."""
    options = parse_options()
    stop_servers_on_sigterm()
    seen: dict[str, list[float]] = {mode: [] for mode in MODES}
    context = multiprocessing.get_context("spawn")
    with serving("emulator", emulator()) as server, context.Pool(1, step_back) as pool:
        for _ in range(options.runs):
            for mode, fails in MODES.items():
                seen[mode].append(measured(server.address, pool, options.duration_s, fails))
    for mode, p99s_ms in seen.items():
        runs = ", ".join(f"{p99_ms:.2f}" for p99_ms in p99s_ms)
        print(f"{mode:<16} gap error p99 {min(p99s_ms):.2f} ms (runs: {runs})")


if __name__ == "__main__":
    main()
