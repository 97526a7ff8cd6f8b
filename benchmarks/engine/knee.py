"""Climbs to an engine's saturation with the load kit: python -m benchmarks.engine.knee NAME.

At each rate one SteadyRateUser asks a real server with one worker, and the same load is predicted
in simulated time: of both, the requests that ended within the run. Both are printed, and drawn with
--png.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.engine.prediction import Row, capacity, measure, print_row
from benchmarks.engine.simulation import Fleet
from benchmarks.engine.workload import Workload
from benchmarks.kit.server import Server, emulator, serving, stop_servers_on_sigterm
from emulator.engine.config import EngineConfig, load_engine
from emulator.settings import ConfigError

SHARES = (0.2, 0.5, 0.8, 0.95, 1.05, 1.2, 1.4)

# What the questions of SteadyRateUser have.
PROMPT_TOKENS = 20

# The figures of a row, and where locust's CSV file has them: the row's type, and the column.
FIGURES = {
    "TTFT p50": ("ttft_p50_ms", "TTFT", "50%"),
    "TTFT p99": ("ttft_p99_ms", "TTFT", "99%"),
    "ITL p50": ("itl_p50_ms", "ITL", "50%"),
    "ITL p99": ("itl_p99_ms", "ITL", "99%"),
    "tokens/s": ("tokens_per_s", "TOKENS", "Requests/s"),
}


def ask(server: Server, rate: float, tokens: int, duration_s: float) -> dict[str, float]:
    """Return the figures of the load kit at one rate; nothing is told while a request runs."""
    with tempfile.TemporaryDirectory() as folder:
        users = ["SteadyRateUser", "-u", "1", "-r", "1", "--rate", str(rate)]
        answers = ["--no-emulation-headers", "--output-length", str(tokens), "--stream-ratio", "1"]
        run = ["--headless", "--only-summary", "-t", f"{duration_s:g}s", "--csv", f"{folder}/run"]
        host = ["--host", f"http://{server.host}:{server.port}"]
        command = [sys.executable, "-m", "locust", "-f", "locustfile.py"]
        ended = subprocess.run(
            [*command, *users, *answers, *run, *host], capture_output=True, text=True, check=False
        )
        if ended.returncode:
            sys.exit(ended.stderr)
        with Path(folder, "run_stats.csv").open() as file:
            rows = {row["Type"]: row for row in csv.DictReader(file)}
    return {name: float(rows[kind][column]) for name, (_, kind, column) in FIGURES.items()}


def predicted(row: Row) -> dict[str, float]:
    """Return a prediction's figures."""
    return {name: getattr(row, field) for name, (field, _, _) in FIGURES.items()}


def climb(
    config: EngineConfig, server: Server, options: argparse.Namespace
) -> tuple[list[float], list[dict[str, float]], list[dict[str, float]]]:
    """Return the rates, the figures of the load kit, and those that were predicted."""
    workload = Workload(PROMPT_TOKENS, options.output_tokens, spread=0, even=True)
    most = capacity(config, workload)
    rates = [share * most for share in options.shares]
    seen, expected = [], []
    print_row(["requests/s", *FIGURES])
    for rate in rates:
        seen.append(ask(server, rate, options.output_tokens, options.duration_s))
        row = measure(Fleet(config), workload, rate, rate / most, options.duration_s, ended=True)
        expected.append(predicted(row))
        for title, figures in ((f"{rate:.2f}", seen[-1]), ("predicted", expected[-1])):
            print_row([title, *(f"{figure:.1f}" for figure in figures.values())])
    return rates, seen, expected


def draw(
    name: str,
    rates: Sequence[float],
    seen: Sequence[dict[str, float]],
    expected: Sequence[dict[str, float]],
    path: Path,
) -> None:
    """Draw what was seen beside what was predicted.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot  # noqa: PLC0415 - needed for --png alone
    except ImportError:
        sys.exit("--png needs matplotlib: pip install -r benchmarks/requirements.txt")
    figure, panels = pyplot.subplots(1, 3, figsize=(15, 4.5))
    lines = (("TTFT p50", "TTFT p99"), ("ITL p50", "ITL p99"), ("tokens/s",))
    for panel, figures in zip(panels, lines, strict=True):
        for title in figures:
            (drawn,) = panel.plot(rates, [f[title] for f in seen], "o", label=f"{title}, load kit")
            foretold = [f[title] for f in expected]
            panel.plot(rates, foretold, "-", color=drawn.get_color(), label=f"{title}, predicted")
        unit = "" if "tokens/s" in figures else ", ms"
        panel.set(xlabel="requests/s offered", title=figures[0].split()[0] + unit)
        panel.grid(alpha=0.3)
        panel.legend()
    panels[0].set_yscale("log")
    figure.suptitle(f"{name}: the load kit's figures, and the prediction in simulated time")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine.knee",
        description="Climbs to an engine's saturation with the load kit, beside the prediction.",
    )
    parser.add_argument("engine", help="a name in engines/, or a .yaml file")
    parser.add_argument("--output-tokens", type=int, default=50, help="of each answer, default 50")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="1 is saturation")
    parser.add_argument("--duration-s", type=float, default=12.0, help="of each rate")
    parser.add_argument("--png", type=Path, help="draw the figures here")
    return parser.parse_args()


def main() -> None:
    """Climb, print and draw.

    Raises:
        SystemExit: The engine is not valid, or locust failed.
    """
    options = parse_options()
    stop_servers_on_sigterm()
    try:
        config = load_engine(options.engine)
    except ConfigError as error:
        sys.exit(str(error))
    settings = [f"engine={options.engine}", f"output_length={options.output_tokens}"]
    words = [word for setting in settings for word in ("--arg", setting)]
    command = emulator()
    with serving("emulator", [*command[:-1], *words, command[-1]]) as server:
        rates, seen, expected = climb(config, server, options)
    if options.png:
        draw(options.engine, rates, seen, expected, options.png)


if __name__ == "__main__":
    main()
