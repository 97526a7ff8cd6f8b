"""Finds how much load a server keeps up with: ``python -m benchmarks.knee --url http://...``.

It climbs: runs the load kit at ever more requests/s until the server falls behind, and then closes
in on the highest rate that it keeps, the knee. Each step replays a trace made for it: arrivals at
random, prompts and answers of 0.5 to 1.5 times the mean length, the same in every run. A step
should last for four answers' time or more, as tokens/s are those of its second half. Figures have
the names that ``python -m benchmarks.engine`` gives to what it predicts.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import accumulate, takewhile
from math import ceil, nan
from pathlib import Path
from typing import Any

from benchmarks.kit.server import ROOT, emulator, serving

MOST_BEFORE_S = 4.0  # what locust takes before a replay's first request, at the most
KEPT = 0.95  # of the tokens that were due when the last request came; fewer is falling behind


@dataclass(frozen=True, slots=True)
class Workload:
    """What each request is like: its tokens are drawn evenly from 0.5 to 1.5 times the mean."""

    prompt_tokens: int
    output_tokens: int
    duration_s: float
    seed: int = 1

    def trace(self, rate: float) -> list[dict[str, Any]]:
        """Return requests at random instants, as lines of Mooncake's format."""
        rng = random.Random(self.seed)
        gaps_s = iter(lambda: rng.expovariate(rate), None)
        arrivals_s = takewhile(lambda at_s: at_s < self.duration_s, accumulate(gaps_s))
        return [
            {
                "timestamp": at_s * 1000,
                "input_length": max(1, round(self.prompt_tokens * rng.uniform(0.5, 1.5))),
                "output_length": max(1, round(self.output_tokens * rng.uniform(0.5, 1.5))),
            }
            for at_s in arrivals_s
        ]


@dataclass(frozen=True, slots=True)
class Step:
    """What one rate did to the server.

    Times are in ms and tokens/s those of the second half. What is offered are the tokens of each
    request, spread over the time that an answer took at the first rate. `received_share` is what
    came of that in the whole step, from the first request to the last.
    """

    requests_per_s: float
    offered_tokens_per_s: float
    tokens_per_s: float
    received_share: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    itl_p50_ms: float
    itl_p99_ms: float
    e2e_p50_ms: float
    failures: int
    unanswered: int

    @property
    def is_kept(self) -> bool:
        """Return whether the server kept up."""
        return self.received_share >= KEPT and not self.failures


COLUMNS = (
    ("requests/s", "requests_per_s", ".2f"),
    ("offered", "offered_tokens_per_s", ".0f"),
    ("tokens/s", "tokens_per_s", ".0f"),
    ("received", "received_share", ".3f"),
    ("TTFT p50", "ttft_p50_ms", ".1f"),
    ("p99", "ttft_p99_ms", ".1f"),
    ("ITL p50", "itl_p50_ms", ".1f"),
    ("p99", "itl_p99_ms", ".1f"),
    ("E2E p50", "e2e_p50_ms", ".0f"),
    ("failures", "failures", "d"),
    ("unanswered", "unanswered", "d"),
)


def measure(
    url: str, rate: float, workload: Workload, answer_s: float | None, options: argparse.Namespace
) -> Step:
    """Replay one rate against a server and return what came of it.

    Args:
        url: The server.
        rate: Requests/s.
        workload: What each request is like.
        answer_s: How long an answer takes where there is no load, None to take it from this run.
        options: The load generator's.

    Raises:
        SystemExit: locust did not run to its end; its output says why.
    """
    requests = workload.trace(rate)
    if not requests:
        sys.exit(f"no request comes in {workload.duration_s:g} s at {rate:g} requests/s")
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.jsonl"
        trace.write_text("".join(f"{json.dumps(request)}\n" for request in requests))
        processes = str(options.processes)
        workers = ["--processes", processes] if options.processes > 1 else []
        users = ["-u", processes, "-r", processes, *workers]
        lasting = ["-t", f"{ceil(workload.duration_s + MOST_BEFORE_S)}s"]
        result = subprocess.run(
            [
                *(sys.executable, "-m", "locust", "-f", "locustfile.py", "--host", url),
                *("--headless", "--only-summary", "--stream-ratio", "1", "--trace", str(trace)),
                *("--json-file", f"{folder}/figures", "--exit-code-on-error", "0"),
                *(*users, *lasting, *options.locust),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        figures = Path(folder) / "figures.json"
        started = re.search(r"from Unix time (\d+)", result.stderr)
        if result.returncode or not figures.exists() or not started:
            sys.exit(f"locust ended with code {result.returncode}:\n{result.stderr}")
        rows = {row["method"]: row for row in json.loads(figures.read_text())}
        return step_of(rows, float(started[1]), rate, requests, answer_s, workload.duration_s)


def step_of(
    rows: Mapping[str, Any],
    start_s: float,
    rate: float,
    requests: Sequence[Mapping[str, float]],
    answer_s: float | None,
    duration_s: float,
) -> Step:
    """Return a step from locust's rows, by their type, of a replay that started at a Unix time."""
    answered = rows.get("E2E", {"num_requests": 0, "num_failures": 0})
    ttft = rows.get("TTFT", {}).get("response_times", {})
    itl = rows.get("ITL", {}).get("response_times", {})
    tokens = rows.get("TOKENS", {}).get("num_reqs_per_sec", {})
    e2e_p50_ms = percentile(answered.get("response_times", {}), 0.5)
    answer_s = answer_s or e2e_p50_ms / 1000
    half_s = duration_s / 2

    def offered(from_s: float) -> float:
        return offered_tokens(requests, answer_s, from_s, duration_s)

    def received(from_s: float) -> float:
        return received_tokens(tokens, start_s + from_s, start_s + duration_s)

    return Step(
        requests_per_s=rate,
        offered_tokens_per_s=offered(half_s) / half_s,
        tokens_per_s=received(half_s) / half_s,
        received_share=received(0) / offered(0) if received(0) else 0.0,
        ttft_p50_ms=percentile(ttft, 0.5),
        ttft_p99_ms=percentile(ttft, 0.99),
        itl_p50_ms=percentile(itl, 0.5),
        itl_p99_ms=percentile(itl, 0.99),
        e2e_p50_ms=e2e_p50_ms,
        failures=answered["num_failures"],
        unanswered=len(requests) - answered["num_requests"],
    )


def offered_tokens(
    requests: Sequence[Mapping[str, float]], answer_s: float, from_s: float, to_s: float
) -> float:
    """Return the tokens that are due in a part of a run if each answer comes evenly in `answer_s`.

    >>> offered_tokens([{"timestamp": 9000, "output_length": 100}], 2, from_s=10, to_s=20)
    50.0
    """
    tokens = 0.0
    for request in requests:
        start_s = request["timestamp"] / 1000
        within_s = min(start_s + answer_s, to_s) - max(start_s, from_s)
        tokens += request["output_length"] * max(0.0, within_s) / answer_s
    return tokens


def received_tokens(tokens: Mapping[str, int], from_s: float, to_s: float) -> float:
    """Return the tokens between two Unix times, from those of each whole second.

    >>> received_tokens({"11": 4, "12": 8, "13": 100}, 11.5, 13)
    10.0
    """
    return sum(
        count * max(0.0, min(int(second) + 1, to_s) - max(int(second), from_s))
        for second, count in tokens.items()
    )


def percentile(counts: Mapping[str, int], share: float) -> float:
    """Return a percentile of a histogram of times in ms; NaN if it is empty.

    >>> percentile({"20.0": 98, "30.0": 2}, 0.99)
    30.0
    """
    left = share * sum(counts.values())
    for time_ms in sorted(counts, key=float):
        left -= counts[time_ms]
        if left <= 0:
            return float(time_ms)
    return nan


def climb(first: float, factor: float, most: float) -> Iterator[float]:
    """Yield rates from the first on, each `factor` times the one before."""
    rate = first
    while rate <= most:
        yield rate
        rate *= factor


def knee_of(steps: Iterable[Step]) -> Step | None:
    """Return the highest rate that was kept before any that was not, None if there is none."""
    kept = list(takewhile(lambda step: step.is_kept, sorted(steps, key=rate_of)))
    return kept[-1] if kept else None


def rate_of(step: Step) -> float:
    """Return a step's rate, to sort by."""
    return step.requests_per_s


def find(options: argparse.Namespace, url: str, workload: Workload) -> list[Step]:
    """Measure step by step, printing each, and return all, sorted by rate."""
    steps: list[Step] = []

    def add(rate: float) -> Step:
        answer_s = steps[0].e2e_p50_ms / 1000 if steps else None
        steps.append(measure(url, rate, workload, answer_s, options))
        print_row([format(getattr(steps[-1], name), form) for _, name, form in COLUMNS])
        return steps[-1]

    print_row([title for title, _, _ in COLUMNS])
    if options.rates:
        for rate in options.rates:
            add(rate)
        return sorted(steps, key=rate_of)
    for rate in climb(options.first, options.factor, options.most):
        if not add(rate).is_kept:
            break
    for _ in range(options.refine):
        knee = knee_of(steps)
        above = min((s.requests_per_s for s in steps if not s.is_kept), default=None)
        if knee is None or above is None:
            break
        add((knee.requests_per_s * above) ** 0.5)
    return sorted(steps, key=rate_of)


def print_row(cells: Sequence[str]) -> None:
    """Print one line of the table."""
    print("  ".join(f"{cell:>10}" for cell in cells), flush=True)


def draw(
    title: str, steps: Sequence[Step], predicted: Sequence[Mapping[str, float]], path: Path
) -> None:
    """Draw TTFT, ITL and tokens/s against the offered load, and what was predicted.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot  # noqa: PLC0415 - needed for --png alone
    except ImportError:
        sys.exit("--png needs matplotlib: pip install -r benchmarks/requirements.txt")
    figure, panels = pyplot.subplots(1, 3, figsize=(15, 4.5))
    knee = knee_of(steps)
    for panel, name, lines in (
        (panels[0], "TTFT, ms", {"p50": "ttft_p50_ms", "p99": "ttft_p99_ms"}),
        (panels[1], "ITL, ms", {"p50": "itl_p50_ms", "p99": "itl_p99_ms"}),
        (panels[2], "tokens/s", {"received": "tokens_per_s", "offered": "offered_tokens_per_s"}),
    ):
        rates = [step.requests_per_s for step in steps]
        for label, column in lines.items():
            (line,) = panel.plot(rates, [getattr(step, column) for step in steps], "o-")
            line.set_label(label)
            expected = [row for row in predicted if column in row]
            if expected:
                at = [row["requests_per_s"] for row in expected]
                style = {
                    "linestyle": "--",
                    "color": line.get_color(),
                    "label": f"{label} predicted",
                }
                panel.plot(at, [row[column] for row in expected], **style)
        if knee:
            panel.axvline(knee.requests_per_s, color="grey", linestyle=":", label="knee")
        panel.set(xlabel="requests/s offered", title=name)
        panel.grid(alpha=0.3)
        panel.legend()
    panels[0].set_yscale("log")
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def parse_options() -> argparse.Namespace:
    """Read the command line; what follows ``--`` is locust's."""
    parser = argparse.ArgumentParser(
        description="Finds the highest load that a server keeps up with.",
        epilog="What follows -- is given to locust, such as --no-emulation-headers.",
    )
    parser.add_argument("--url", help="the server; without it an emulator is started")
    parser.add_argument("--arg", action="append", default=[], help="a setting of that emulator")
    parser.add_argument("--prompt-tokens", type=int, default=512, help="mean, default 512")
    parser.add_argument("--output-tokens", type=int, default=128, help="mean, default 128")
    parser.add_argument("--duration-s", type=float, default=30.0, help="of each step, default 30")
    parser.add_argument("--seed", type=int, default=1, help="of arrivals and lengths, default 1")
    parser.add_argument("--first", type=float, default=1.0, help="requests/s of the first step")
    parser.add_argument("--factor", type=float, default=1.5, help="from step to step, default 1.5")
    parser.add_argument("--most", type=float, default=1000.0, help="requests/s to climb to at most")
    parser.add_argument(
        "--refine", type=int, default=2, help="steps between kept and not, default 2"
    )
    parser.add_argument("--rates", type=float, nargs="+", help="these requests/s and no others")
    parser.add_argument("--processes", type=int, default=1, help="load generators, default 1")
    parser.add_argument("--predicted", type=Path, help="JSON of benchmarks.engine, to draw beside")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--png", type=Path, help="draw them here")
    parser.add_argument("locust", nargs="*", metavar="-- LOCUST", help="further options of locust")
    options = parser.parse_args()
    if not (options.first > 0 and options.factor > 1 and options.duration_s >= 4):
        parser.error("expected --first over 0, --factor over 1 and --duration-s of at least 4")
    if options.rates and min(options.rates) <= 0:
        parser.error("expected --rates over 0")
    return options


@contextmanager
def started_emulator(settings: Sequence[str]) -> Iterator[str]:
    """Start an emulator with one worker and yield its address."""
    *serve, port = emulator()
    words = [word for setting in settings for word in ("--arg", setting)]
    with serving("emulator", [*serve, *words, port]) as server:
        yield f"http://{server.host}:{server.port}"


def main() -> None:
    """Find the knee, print, write and draw."""
    options = parse_options()
    workload = Workload(
        options.prompt_tokens, options.output_tokens, options.duration_s, options.seed
    )
    with nullcontext(options.url) if options.url else started_emulator(options.arg) as url:
        steps = find(options, url, workload)
    knee = knee_of(steps)
    at = (
        f"{knee.requests_per_s:.2f} requests/s, {knee.tokens_per_s:.0f} tokens/s"
        if knee
        else "none"
    )
    print(f"knee: {at}")
    if options.json:
        figures = {
            "knee": asdict(knee) if knee else None,
            "workload": asdict(workload),
            "steps": [asdict(step) for step in steps],
        }
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.png:
        predicted = json.loads(options.predicted.read_text()) if options.predicted else []
        draw(f"{url}, measured by the load kit", steps, predicted, options.png)


if __name__ == "__main__":
    main()
