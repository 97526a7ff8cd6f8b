"""Measures how true the emulator's clock is: ``python -m benchmarks.fidelity [--quick]``.

Every cell of the sweep runs some streams at one ITL, and compares each token's arrival with what
was asked:

* TTFT error: arrival of the first token - departure of the request - TTFT.
* Gap error: |gap between two adjacent tokens of a stream - ITL|, for every pair.
* Mean ITL error: |mean gap of a stream - ITL| / ITL, of the worst stream.

Streams start at random instants, so that they do not tick together (`--lockstep`: all at once),
and their TTFT is such that the last has started before the first token of any is due. Cells of more
than `--limit` tokens/s are left out: one worker is overloaded there, and tokens leave together.

In each cell all servers have their turn, `--runs` times: the emulator, that of each `--checkout`,
the one with the settings of `--arg`, the server at `--compare`, and a minimal program on a timerfd,
in C or, without a compiler, in Python. What that program is late, the machine is: of the emulator's
gap error, the difference ("over ref") says something. Figures are medians of the runs, lost tokens
their most.
"""

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks.kit.client import KERNEL_STAMPS, Chat, StreamResult, open_streams, run_streams
from benchmarks.kit.server import (
    Server,
    add_emulator_options,
    emulators,
    reference,
    running_server,
    stop_servers_on_sigterm,
)
from benchmarks.kit.steady import percentile

STREAMS = (1, 10, 50, 200, 500, 1000)
ITLS_MS = (0.5, 2.0, 10.0, 20.0, 50.0)
SETTLE_S = 1.0
FIRST_TOKEN_MS = 200.0
START_EACH_MS = 1.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of the table."""

    server: str
    streams: int
    itl_ms: float
    tokens_per_s: float
    ttft_error_p50_ms: float
    ttft_error_p99_ms: float
    gap_error_p50_ms: float
    gap_error_p99_ms: float
    gap_error_max_ms: float
    worst_mean_itl_error_percent: float
    tokens_lost: int
    cpu_percent: float | None
    rss_mb: float | None
    client_behind_p99_ms: float
    p50_over_reference_ms: float | None = None
    p99_over_reference_ms: float | None = None


_COLUMNS = (
    ("server", "server", "s"),
    ("streams", "streams", "d"),
    ("ITL ms", "itl_ms", "g"),
    ("tokens/s", "tokens_per_s", ".0f"),
    ("TTFT p50", "ttft_error_p50_ms", ".3f"),
    ("p99", "ttft_error_p99_ms", ".3f"),
    ("gap p50", "gap_error_p50_ms", ".3f"),
    ("p99", "gap_error_p99_ms", ".3f"),
    ("max", "gap_error_max_ms", ".2f"),
    ("p50 over ref", "p50_over_reference_ms", ".3f"),
    ("p99 over ref", "p99_over_reference_ms", ".3f"),
    ("mean ITL %", "worst_mean_itl_error_percent", ".3f"),
    ("lost", "tokens_lost", "d"),
    ("CPU %", "cpu_percent", ".0f"),
    ("RSS MB", "rss_mb", ".0f"),
)


def plan(streams: int, itl_ms: float, duration_s: float, lockstep: bool) -> tuple[Chat, float]:
    """Return what each stream of a cell asks for, and within how many ms the streams start.

    That time is a whole number of ITLs, so that every phase is equally likely.
    """
    within_ms = 0.0
    if not lockstep:
        within_ms = math.ceil(max(streams * START_EACH_MS / itl_ms, 1)) * itl_ms
    tokens = max(int(duration_s * 1000 / itl_ms), 10) + 1
    return Chat(True, FIRST_TOKEN_MS + within_ms, itl_ms, tokens), within_ms


def measure(server: Server, chat: Chat, streams: int, within_ms: float) -> Cell:
    """Run one cell."""
    total_s = (chat.ttft_ms + within_ms + chat.tokens * chat.itl_ms) / 1000
    before = server.usage()
    results = run_streams(server.address, chat, streams, within_ms / 1000, total_s * 2 + 5)
    after = server.usage()
    cpu_percent = rss_mb = None
    if before and after:
        cpu_percent = (after.cpu_s - before.cpu_s) / total_s * 100
        rss_mb = after.rss_kb / 1024
    return summarize(server.name, chat, results, cpu_percent, rss_mb)


def summarize(
    server: str,
    chat: Chat,
    results: Sequence[StreamResult],
    cpu_percent: float | None,
    rss_mb: float | None,
) -> Cell:
    """Return a cell's figures."""
    itl_ns = chat.itl_ms * 1e6
    begun = [result for result in results if result.arrived_ns]
    ttft_ms = [(r.arrived_ns[0] - r.sent_ns) / 1e6 - chat.ttft_ms for r in begun]
    gaps_ms = [
        abs(later - earlier - itl_ns) / 1e6
        for r in begun
        for earlier, later in pairwise(r.arrived_ns)
    ]
    means = [
        abs((r.arrived_ns[-1] - r.arrived_ns[0]) / (len(r.arrived_ns) - 1) / itl_ns - 1) * 100
        for r in begun
        if len(r.arrived_ns) > 1
    ]
    behind_ms = [behind / 1e6 for r in begun for behind in r.behind_ns]
    return Cell(
        server=server,
        streams=len(results),
        itl_ms=chat.itl_ms,
        tokens_per_s=len(results) * 1000 / chat.itl_ms,
        ttft_error_p50_ms=percentile(ttft_ms, 50),
        ttft_error_p99_ms=percentile(ttft_ms, 99),
        gap_error_p50_ms=percentile(gaps_ms, 50),
        gap_error_p99_ms=percentile(gaps_ms, 99),
        gap_error_max_ms=max(gaps_ms, default=math.nan),
        worst_mean_itl_error_percent=max(means, default=math.nan),
        tokens_lost=chat.tokens * len(results) - sum(len(r.arrived_ns) for r in results),
        cpu_percent=cpu_percent,
        rss_mb=rss_mb,
        client_behind_p99_ms=percentile(behind_ms, 99),
    )


def waiting_kb(server: Server, streams: int) -> float | None:
    """Return the KB that each of `streams` takes that waits for its first token.

    The first round fills what the server keeps for later; the second is counted.
    """
    chat = Chat(True, 60_000, 0, 20)
    with open_streams(server.address, chat, 10):
        before = server.usage()
    with open_streams(server.address, chat, streams):
        during = server.usage()
    if not before or not during:
        return None
    return (during.rss_kb - before.rss_kb) / streams


def middle(cells: Sequence[Cell]) -> Cell:
    """Return the medians of a cell's runs, of the lost tokens the most."""
    figures = {}
    for field in fields(Cell):
        values = [getattr(cell, field.name) for cell in cells]
        if isinstance(values[0], float):
            figures[field.name] = median(values)
    return replace(cells[0], **figures, tokens_lost=max(cell.tokens_lost for cell in cells))


def over(cell: Cell, other: Cell) -> Cell:
    """Return the cell with how much more its gap error is than another's."""
    return replace(
        cell,
        p50_over_reference_ms=cell.gap_error_p50_ms - other.gap_error_p50_ms,
        p99_over_reference_ms=cell.gap_error_p99_ms - other.gap_error_p99_ms,
    )


def print_row(cells: Sequence[str]) -> None:
    """Print one line of the table."""
    server, *figures = cells
    widths = [max(len(title), 7) for title, _, _ in _COLUMNS[1:]]
    aligned = [f"{figure:>{width}}" for figure, width in zip(figures, widths, strict=True)]
    print("  ".join([f"{server:<14}", *aligned]), flush=True)


def formatted(cell: Cell) -> list[str]:
    """Return a cell's figures as text; '-' is what could not be measured."""
    values = asdict(cell)
    return ["-" if values[name] is None else format(values[name], f) for _, name, f in _COLUMNS]


def warm_up(server: Server, waiting: int) -> None:
    """Run a few streams, and print what each of some waiting ones takes."""
    run_streams(server.address, Chat(True, 0, 1, 50), 10, 0.1, 10)
    kb = waiting_kb(server, waiting)
    print(f"{server.name}: {'-' if kb is None else f'{kb:.1f}'} KB for each waiting stream")


def sweep(
    servers: Sequence[Server], beside: Server | None, options: argparse.Namespace
) -> Iterator[Cell]:
    """Measure all servers in all cells, print the table, and yield its rows."""
    for server in servers:
        warm_up(server, options.waiting)
    time.sleep(SETTLE_S)
    print_row([title for title, _, _ in _COLUMNS])
    for itl_ms in options.itl_ms:
        for streams in options.streams:
            if streams * 1000 / itl_ms > options.limit:
                continue
            for cell in measure_in_turn(servers, beside, streams, itl_ms, options):
                print_row(formatted(cell))
                yield cell


def measure_in_turn(
    servers: Sequence[Server],
    beside: Server | None,
    streams: int,
    itl_ms: float,
    options: argparse.Namespace,
) -> list[Cell]:
    """Run one cell on all servers; `beside` is the one whose error is the machine's."""
    chat, within_ms = plan(streams, itl_ms, options.duration_s, options.lockstep)
    everyone = [*servers, *([beside] if beside else [])]
    runs = [
        [measure(server, chat, streams, within_ms) for server in everyone]
        for _ in range(options.runs)
    ]
    cells = [middle(own) for own in zip(*runs, strict=True)]
    if beside:
        *cells, last = cells
        cells = [*(over(cell, last) for cell in cells), last]
    return cells


def draw(cells: Sequence[Cell], path: Path) -> None:
    """Draw the gap errors against the load, one panel for each server.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot  # noqa: PLC0415 - needed for --png alone
    except ImportError:
        sys.exit("--png needs matplotlib: pip install -r benchmarks/requirements.txt")
    servers = list(dict.fromkeys(cell.server for cell in cells))
    figure, panels = pyplot.subplots(
        1, len(servers), figsize=(7 * len(servers), 5), sharey=True, squeeze=False
    )
    for panel, server in zip(panels[0], servers, strict=True):
        own = [cell for cell in cells if cell.server == server]
        for itl_ms in dict.fromkeys(cell.itl_ms for cell in own):
            line = [cell for cell in own if cell.itl_ms == itl_ms]
            loads = [cell.tokens_per_s for cell in line]
            p99 = [cell.gap_error_p99_ms for cell in line]
            p50 = [cell.gap_error_p50_ms for cell in line]
            (drawn,) = panel.loglog(loads, p99, "o-", label=f"ITL {itl_ms:g} ms")
            panel.loglog(loads, p50, "o:", color=drawn.get_color(), alpha=0.6)
        panel.set(title=server, xlabel="tokens/s asked of the server")
        panel.grid(which="both", alpha=0.2)
        panel.legend(title="p99 solid, p50 dotted")
    panels[0][0].set_ylabel("absolute error of a gap between tokens, ms")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


@contextmanager
def measured_servers(options: argparse.Namespace) -> Iterator[list[Server]]:
    """Start the emulators, this tree's only if there is no --url, and find those that run."""
    others = [running_server(url) for url in (options.url, options.compare) if url]
    with ExitStack() as stack:
        started = stack.enter_context(
            emulators(options.checkout, options.arg, options.workers, own=not options.url)
        )
        yield [*started, *others]


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", help="measure this server instead of starting one")
    parser.add_argument("--compare", metavar="URL", help="measure this server too")
    add_emulator_options(parser)
    parser.add_argument("--workers", type=int, default=1, help="of the servers that are started")
    parser.add_argument("--runs", type=int, default=1, help="of each cell on each server")
    parser.add_argument("--streams", type=int, nargs="+", default=STREAMS)
    parser.add_argument("--itl-ms", type=float, nargs="+", default=ITLS_MS)
    parser.add_argument("--waiting", type=int, default=500, help="streams that measure memory")
    parser.add_argument("--duration-s", type=float, default=3.0, help="of each cell")
    parser.add_argument("--limit", type=float, default=50_000, help="tokens/s, default 50000")
    parser.add_argument("--lockstep", action="store_true", help="start all streams at once")
    parser.add_argument("--quick", action="store_true", help="cells of 1 s, and fewer of them")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--png", type=Path, help="draw the gap errors here")
    options = parser.parse_args()
    if options.quick:
        options.duration_s = 1.0
        options.streams, options.itl_ms = (10, 200), (2.0, 20.0)
    return options


def main() -> None:
    """Measure, print, write and draw."""
    options = parse_options()
    stop_servers_on_sigterm()
    machine = f"{platform.machine()}, {platform.system()} {platform.release()}"
    print(f"Python {platform.python_version()}, {machine}; all errors in ms;", end=" ")
    print("arrivals are", "the kernel's time stamps" if KERNEL_STAMPS else "when they were read")
    with measured_servers(options) as servers, reference() as beside:
        cells = list(sweep(servers, beside, options))
    behind_ms = max(cell.client_behind_p99_ms for cell in cells)
    print(f"\nThe client read tokens at most {behind_ms:.3f} ms (worst p99) after their arrival.")
    if options.json:
        options.json.write_text(json.dumps([asdict(cell) for cell in cells], indent=1) + "\n")
    if options.png:
        draw(cells, options.png)


if __name__ == "__main__":
    main()
