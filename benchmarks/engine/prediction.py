"""An engine's latency under load, alone or with replicas, in simulated time."""

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.engine.simulation import Fleet, Simulation
from benchmarks.engine.workload import Workload
from emulator.engine.config import EngineConfig
from emulator.engine.runner import TimedSequence
from emulator.engine.scheduler import Scheduler

# As many requests as fill the largest batch this many times are all there at once, to find out
# how many the engine can do in a second.
SATURATION_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Row:
    """What one load does to an engine or all of its replicas; the times are in ms."""

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


COLUMNS = (
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
    """Return how many requests one engine can do in a second.

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
    fleet: Fleet,
    workload: Workload,
    rate: float,
    load: float,
    duration_s: float,
    *,
    ended: bool = False,
) -> Row:
    """Let requests come until `duration_s`, and run what is in the engines then to its end.

    Args:
        fleet: The engine and its replicas.
        workload: What each request is like.
        rate: Requests for each second.
        load: That rate's share of what all of them can do.
        duration_s: In simulated time.
        ended: Whether TTFT and ITL are those of the requests alone that ended by then.
    """
    requests = workload.requests(rate, duration_s, random.Random(1))
    replicas = fleet.replicas()
    running_s = 0.0
    tokens = preemptions = 0
    for step in replicas.run([request] for request in requests):
        for sequence in step.advanced:
            sequence.due_s.append(step.end_s)
        preemptions += len(step.preempted)
        if step.end_s <= duration_s:
            running_s += step.sequences * (step.end_s - step.start_s)
            tokens += len(step.advanced)
    # By Little's law: all that was waited until the end, a step's beginning included.
    waiting_s = sum(
        min(request.admitted_s, duration_s) - request.arrival_s
        for request in requests
        if request.admitted_s is not None
    )
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
        refused_percent=100 * len(replicas.refused) / max(len(requests), 1),
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
