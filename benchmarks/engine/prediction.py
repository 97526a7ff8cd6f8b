"""Predicts an engine's latency under load, in simulated time: python -m benchmarks.engine NAME.

The loads are shares of what the engine can do, from a tenth to more than all.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.engine.simulation import Simulation
from emulator.engine.config import EngineConfig, load_engine, presets
from emulator.engine.runner import TimedSequence
from emulator.engine.scheduler import Scheduler, TooLongError
from emulator.settings import ConfigError

LOADS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.1, 1.2)

# As many requests as fill the largest batch this many times are all there at once, to find out
# how many the engine can do in a second.
SATURATION_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Workload:
    """What requests are like, and how they come.

    Tokens are drawn evenly from 1 - `spread` to 1 + `spread` times their mean. Arrivals are random,
    or `even`: all the same time apart.
    """

    prompt_tokens: int
    output_tokens: int
    spread: float = 0.5
    even: bool = False

    def draw(self, rng: random.Random, arrival_s: float) -> TimedSequence:
        """Return one request."""
        least, most = 1 - self.spread, 1 + self.spread
        return TimedSequence(
            max(round(self.prompt_tokens * rng.uniform(least, most)), 1),
            max(round(self.output_tokens * rng.uniform(least, most)), 1),
            arrival_s,
        )

    def arrivals(self, rate: float, duration_s: float, rng: random.Random) -> Iterator[float]:
        """Yield when requests come, in seconds, `rate` of them in each."""
        at_s = 0.0
        while True:
            at_s += 1 / rate if self.even else rng.expovariate(rate)
            if at_s >= duration_s:
                return
            yield at_s


@dataclass(frozen=True, slots=True)
class Row:
    """What one load does to an engine; the times are in ms."""

    load: float
    requests_per_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    itl_p50_ms: float
    itl_p99_ms: float
    tokens_per_s: float
    running: float
    waiting: float
    preemptions: int
    refused_percent: float


_COLUMNS = (
    ("load", "load", ".2f"),
    ("requests/s", "requests_per_s", ".2f"),
    ("TTFT p50", "ttft_p50_ms", ".1f"),
    ("p99", "ttft_p99_ms", ".1f"),
    ("ITL p50", "itl_p50_ms", ".2f"),
    ("p99", "itl_p99_ms", ".2f"),
    ("tokens/s", "tokens_per_s", ".0f"),
    ("running", "running", ".1f"),
    ("waiting", "waiting", ".1f"),
    ("preempted", "preemptions", "d"),
    ("refused %", "refused_percent", ".1f"),
)


def capacity(config: EngineConfig, workload: Workload) -> float:
    """Return how many requests an engine can do in a second.

    Raises:
        TooLongError: The longest request does not fit into the engine's cache.
    """
    rng = random.Random(0)
    requests = [workload.draw(rng, 0.0) for _ in range(config.max_num_seqs * SATURATION_ROUNDS)]
    unbounded = config.model_copy(update={"max_waiting": len(requests)})
    ends_s: list[float] = []
    for step in Simulation(Scheduler[TimedSequence](unbounded)).run([r] for r in requests):
        ends_s += [step.end_s] * len(step.finished)
    # Neither while the batch fills nor while it empties.
    first, last = len(ends_s) // 4, len(ends_s) * 3 // 4
    return (last - first) / (ends_s[last] - ends_s[first])


def measure(
    config: EngineConfig,
    workload: Workload,
    rate: float,
    load: float,
    duration_s: float,
    *,
    ended: bool = False,
) -> Row:
    """Let requests come to an engine until `duration_s`, and run what is in it then to its end.

    Args:
        config: The engine.
        workload: What each request is like.
        rate: Requests for each second.
        load: That rate's share of what the engine can do.
        duration_s: In simulated time.
        ended: Whether TTFT and ITL are those of the requests alone that ended by then.
    """
    rng = random.Random(1)
    scheduler = Scheduler[TimedSequence](config)
    simulation = Simulation(scheduler)
    requests = [workload.draw(rng, at_s) for at_s in workload.arrivals(rate, duration_s, rng)]
    running_s = waiting_s = 0.0
    tokens = preemptions = 0
    for step in simulation.run([request] for request in requests):
        for sequence in step.advanced:
            sequence.due_s.append(step.end_s)
        preemptions += len(step.preempted)
        if step.end_s <= duration_s:
            took_s = step.end_s - step.start_s
            running_s += step.sequences * took_s
            waiting_s += len(scheduler.waiting) * took_s
            tokens += len(step.advanced)
    served = [request for request in requests if request.finished_s is not None]
    if ended:
        served = [request for request in served if request.due_s[-1] <= duration_s]
    ttft_ms = [(request.due_s[0] - request.arrival_s) * 1000 for request in served]
    itl_ms = [(later - at) * 1000 for request in served for at, later in pairwise(request.due_s)]
    return Row(
        load=load,
        requests_per_s=rate,
        ttft_p50_ms=percentile(ttft_ms, 50),
        ttft_p99_ms=percentile(ttft_ms, 99),
        itl_p50_ms=percentile(itl_ms, 50),
        itl_p99_ms=percentile(itl_ms, 99),
        tokens_per_s=tokens / duration_s,
        running=running_s / duration_s,
        waiting=waiting_s / duration_s,
        preemptions=preemptions,
        refused_percent=100 * len(simulation.refused) / max(len(requests), 1),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile; NaN if there is no value."""
    return float(np.percentile(values, percent)) if values else float("nan")


def print_row(cells: Sequence[str]) -> None:
    """Print one line of the table."""
    print("  ".join(f"{cell:>10}" for cell in cells), flush=True)


def draw(name: str, rows: Sequence[Row], path: Path) -> None:
    """Draw TTFT, ITL and tokens/s against the offered load.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot  # noqa: PLC0415 - needed for --png alone
    except ImportError:
        sys.exit("--png needs matplotlib: pip install -r benchmarks/requirements.txt")
    figure, panels = pyplot.subplots(1, 3, figsize=(15, 4.5))
    rates = [row.requests_per_s for row in rows]
    for panel, title, lines in (
        (panels[0], "TTFT, ms", {"p50": "ttft_p50_ms", "p99": "ttft_p99_ms"}),
        (panels[1], "ITL, ms", {"p50": "itl_p50_ms", "p99": "itl_p99_ms"}),
        (panels[2], "tokens/s", {"of the engine": "tokens_per_s"}),
    ):
        for label, column in lines.items():
            panel.plot(rates, [getattr(row, column) for row in rows], "o-", label=label)
        panel.set(xlabel="requests/s offered", title=title)
        panel.grid(alpha=0.3)
        panel.legend()
    panels[0].set_yscale("log")
    figure.suptitle(f"{name}, predicted in simulated time")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine",
        description="Predicts an engine's TTFT, ITL and tokens/s under load, in simulated time.",
    )
    parser.add_argument("engine", help=f"one of {', '.join(presets())}, or a .yaml file")
    parser.add_argument("--prompt-tokens", type=int, default=512, help="mean, default 512")
    parser.add_argument("--output-tokens", type=int, default=128, help="mean, default 128")
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS, help="1 is saturation")
    parser.add_argument("--rates", type=float, nargs="+", help="requests/s in place of --loads")
    parser.add_argument("--duration-s", type=float, default=600.0, help="of each load, simulated")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--png", type=Path, help="draw them here")
    return parser.parse_args()


def main() -> None:
    """Predict, print, write and draw.

    Raises:
        SystemExit: The engine is not valid, or a request does not fit into it.
    """
    options = parse_options()
    workload = Workload(options.prompt_tokens, options.output_tokens)
    try:
        config = load_engine(options.engine)
        most = capacity(config, workload)
    except (ConfigError, TooLongError) as error:
        sys.exit(str(error))
    print(f"{options.engine}: {config.source}")
    print(
        f"about {workload.prompt_tokens} prompt tokens and {workload.output_tokens} of the answer; "
        f"{most:.2f} requests/s at saturation; times in ms, {options.duration_s:g} s for each load"
    )
    print_row([title for title, _, _ in _COLUMNS])
    rows = []
    for rate in options.rates or [load * most for load in options.loads]:
        row = measure(config, workload, rate, rate / most, options.duration_s)
        rows.append(row)
        print_row([format(getattr(row, name), form) for _, name, form in _COLUMNS])
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if options.png:
        draw(options.engine, rows, options.png)
