"""Predicts an engine's latency under load, in simulated time: python -m benchmarks.engine NAME.

The loads are shares of what the engine and its replicas can do, from a tenth to more than all. With
--find-replicas it tells how many replicas a load needs.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from benchmarks.engine.prediction import COLUMNS, Row, capacity, draw, measure, print_row
from benchmarks.engine.simulation import Fleet
from benchmarks.engine.sizing import MOST_REPLICAS, Target, fewest, meets
from benchmarks.engine.workload import Prefixes, Workload
from emulator.engine.config import EngineConfig, load_engine, presets
from emulator.engine.routing import DEFAULT_POLICY, check_policy
from emulator.engine.scheduler import TooLongError
from emulator.settings import Policy

LOADS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.1, 1.2)


def _number(text: str) -> int:
    """Return a number from 1 to the most replicas."""
    value = int(text)
    if not 1 <= value <= MOST_REPLICAS:
        raise argparse.ArgumentTypeError(f"expected 1 to {MOST_REPLICAS}, but got {value}")
    return value


def _above_0(text: str) -> float:
    """Return a number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, but got {text}")
    return value


def _percent(text: str) -> float:
    """Return a number above 0, up to 100."""
    value = _above_0(text)
    if value > 100:
        raise argparse.ArgumentTypeError(f"expected at most 100, but got {text}")
    return value


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine",
        description="Predicts an engine's TTFT, ITL and tokens/s under load, in simulated time.",
    )
    add = parser.add_argument
    add("engine", help=f"one of {', '.join(presets())}, or a .yaml file")
    add("--prompt-tokens", type=int, default=512, help="mean, default 512")
    add("--output-tokens", type=int, default=128, help="mean, default 128")
    add("--prefixes", type=_number, help="each prompt has one of so many prefixes on top")
    add("--prefix-tokens", type=_number, default=512, help="of each prefix, default 512")
    add("--loads", type=_above_0, nargs="+", default=LOADS, help="1 is saturation")
    add("--rates", type=_above_0, nargs="+", help="requests/s in place of --loads")
    add("--duration-s", type=_above_0, default=600.0, help="of each load, simulated")
    add("--replicas", type=_number, default=1, help="engines behind a router, default 1")
    add("--routing", choices=get_args(Policy), default=DEFAULT_POLICY, help="of the router")
    add(
        "--find-replicas",
        action="store_true",
        help="tell how few replicas meet the target at each of --rates",
    )
    add("--ttft-ms", type=_above_0, default=500.0, help="the target, default 500")
    add("--percent", type=_percent, default=99.0, help="of the requests in time, default 99")
    add("--json", type=Path, help="write the figures here")
    add("--png", type=Path, help="draw them here")
    options = parser.parse_args()
    if options.find_replicas and not options.rates:
        parser.error("--find-replicas needs --rates, in requests/s")
    return options


def checked_engine(options: argparse.Namespace) -> EngineConfig:
    """Return the engine.

    Raises:
        ConfigError: It is not valid.
        ValueError: It cannot be routed to in this way.
    """
    config = load_engine(options.engine)
    try:
        check_policy(options.routing, config)
    except ValueError as error:
        raise ValueError(f"--routing: {error}") from None
    return config


def workload_of(options: argparse.Namespace, block_size: int) -> Workload:
    """Return what the requests are like."""
    prefixes = options.prefixes and Prefixes(options.prefixes, options.prefix_tokens, block_size)
    return Workload(options.prompt_tokens, options.output_tokens, prefixes=prefixes)


def predict(options: argparse.Namespace, fleet: Fleet, workload: Workload) -> list[Row]:
    """Print a row for each load, and return them.

    Raises:
        TooLongError: A request does not fit into the engine's cache.
    """
    most = capacity(fleet.config, workload) * fleet.number
    print(
        f"about {workload.prompt_tokens} prompt tokens and {workload.output_tokens} of the answer; "
        f"{most:.2f} requests/s at saturation; times in ms, {options.duration_s:g} s for each load"
    )
    print_row([title for title, _, _ in COLUMNS])
    rows = []
    for rate in options.rates or [load * most for load in options.loads]:
        row = measure(fleet, workload, rate, rate / most, options.duration_s)
        rows.append(row)
        print_row([format(getattr(row, name), form) for _, name, form in COLUMNS])
    return rows


def find(options: argparse.Namespace, fleet: Fleet, workload: Workload) -> list[int | None]:
    """Print how many replicas each rate needs, and return the numbers.

    Raises:
        TooLongError: A request does not fit into the engine's cache.
        ValueError: A load is of no request at all.
    """
    target, found = Target(options.ttft_ms, options.percent), []
    print(f"{target.percent:g} % of first tokens within {target.ttft_ms:g} ms, {fleet.routing}")
    for rate in options.rates:

        def suffices(number: int, rate: float = rate) -> bool:
            tried = Fleet(fleet.config, number, fleet.routing)
            return meets(tried, workload, rate, options.duration_s, target)

        number = fewest(suffices)
        needs = f"more than {MOST_REPLICAS}, or no number" if number is None else f"{number}"
        print(f"{rate:g} requests/s: replicas needed: {needs}", flush=True)
        found.append(number)
    return found


def main() -> None:
    """Predict or find, print, write and draw.

    Raises:
        SystemExit: The engine is not valid, or a request does not fit into it.
    """
    options = parse_options()
    try:
        config = checked_engine(options)
        workload = workload_of(options, config.block_size)
        fleet = Fleet(config, options.replicas, options.routing)
        print(f"{options.engine}: {config.source}")
        if options.find_replicas:
            numbers = dict(zip(options.rates, find(options, fleet, workload), strict=True))
            data: object = [{"requests_per_s": r, "replicas": n} for r, n in numbers.items()]
            rows = []
        else:
            rows = predict(options, fleet, workload)
            data = [asdict(row) for row in rows]
    except (TooLongError, ValueError) as error:
        sys.exit(str(error))
    if options.json:
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    if options.png and rows:
        draw(options.engine, rows, options.png)


if __name__ == "__main__":
    main()
