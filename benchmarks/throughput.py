"""Measures tokens/s and requests/s beside the ceiling: python benchmarks/throughput.py.

The ceiling is a bare uvicorn app that writes the same bytes (ceiling.py). Both are driven by the
same client, one Python process on raw sockets; figures are medians of `--runs`, taken in turn.

* short, long: tokens/s of streams of 100 and of 1,000 tokens at ITL 0.
* paced: tokens/s of streams that ask for more than a worker can write, each when it is due.
* whole: answers/s of requests without delay that are not streamed.
"""

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from _client import Address, Chat, closed_loop
from _server import ceiling, emulator, serving


def short(address: Address, duration_s: float) -> float:
    """Return the tokens/s of 16 connections that stream 100 tokens at ITL 0."""
    return closed_loop(address, Chat(True, 0, 0, 100), 16, duration_s).tokens_per_s


def long(address: Address, duration_s: float) -> float:
    """Return the tokens/s of 16 connections that stream 1,000 tokens at ITL 0."""
    return closed_loop(address, Chat(True, 0, 0, 1000), 16, duration_s).tokens_per_s


def paced(address: Address, duration_s: float) -> float:
    """Return the tokens/s of 1,000 streams at ITL 2 ms, who ask for 500,000 together.

    That is more than the ceiling writes; at 300 streams both write all that is asked for.
    """
    return closed_loop(address, Chat(True, 0, 2, 1000), 1000, duration_s).tokens_per_s


def whole(address: Address, duration_s: float) -> float:
    """Return the answers/s of 32 connections, 20 tokens each."""
    return closed_loop(address, Chat(False, 0, 0, 20), 32, duration_s).answers_per_s


MEASURES: dict[str, tuple[str, Callable[[Address, float], float]]] = {
    "short": ("tokens/s", short),
    "long": ("tokens/s", long),
    "paced": ("tokens/s", paced),
    "whole": ("answers/s", whole),
}


def measure(workers: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the medians of both servers in each measure, both up all the time."""
    figures: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        servers = [
            stack.enter_context(serving("emulator", emulator(workers))),
            stack.enter_context(serving("ceiling", ceiling(workers))),
        ]
        for name in options.measure:
            unit, rate = MEASURES[name]
            runs: dict[str, list[float]] = {server.name: [] for server in servers}
            for _ in range(options.runs):
                for server in servers:
                    runs[server.name].append(rate(server.address, options.duration_s))
            medians = {server: statistics.median(rates) for server, rates in runs.items()}
            ratio = medians["emulator"] / medians["ceiling"]
            print(
                f"{workers:>7}  {name:<9} {medians['emulator']:>12,.0f} "
                f"{medians['ceiling']:>12,.0f} {ratio:>7.0%}  {unit}",
                flush=True,
            )
            figures[name] = {**medians, "ratio": ratio}
    return figures


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--measure", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--duration-s", type=float, default=3.0, help="of each run")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def main() -> None:
    """Measure, print and write."""
    options = parse_options()
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    print(f"{'workers':>7}  {'':<9} {'emulator':>12} {'ceiling':>12} {'ratio':>7}")
    figures = {workers: measure(workers, options) for workers in options.workers}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
