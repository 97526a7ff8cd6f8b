"""Prints what one client's bad requests cost all others: ``python -m benchmarks.hostile``.

For each attack, 20 streams of 20 ms run on a server with one worker, first without it, then with
it, then without it again. The exit status is 1 if an attack fails, see `faults`.
"""

import argparse
import dataclasses
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from benchmarks.kit.attacker import CUT, UNANSWERED, Address, Reply, attack
from benchmarks.kit.attacks import ATTACKS, Attack
from benchmarks.kit.server import ROOT, Server, emulator, serving, stop_servers_on_sigterm
from benchmarks.kit.watch import Gaps, Memory, Neighbour, gaps, watching

STREAMS = 20
P99_MS, LARGEST_MS = 5.0, 30.0  # more than in the quiet run
ANSWER_S = 15.0
NEIGHBOUR_S = 1.0
KEPT_MB = 100.0
HELPERS_MB = 1000.0
_SETTLE_S = 10.0
_AFTERMATH_S = 0.3
_WORDS = {CUT: "cut", UNANSWERED: "none"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long each part takes, and what may differ between attacked and quiet; s, ms and MB."""

    quiet_s: float = 1.5
    attack_s: float = 2.0
    patience_s: float = 30.0
    p99_ms: float = P99_MS
    largest_ms: float = LARGEST_MS
    memory_mb: float = 4000.0
    neighbour_s: float = NEIGHBOUR_S


@dataclass(frozen=True, slots=True)
class Row:
    """What one attack did."""

    name: str
    told: str
    answers: dict[str, int]
    slowest_s: float
    quiet: Gaps
    attacked: Gaps
    neighbour_s: float
    worker_peak_mb: float
    worker_kept_mb: float
    helpers_peak_mb: float
    faults: list[str]


# --------------------------------------------------------------------------------------
# One attack
# --------------------------------------------------------------------------------------


@contextmanager
def attackers(
    name: str, address: Address, bounds: Bounds, count: int
) -> Iterator[Sequence[Connection]]:
    """Start the processes that attack; they wait for a message with all that they send made."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(count):
        ours, theirs = context.Pipe()
        arguments = (name, address, bounds.attack_s, bounds.patience_s, theirs)
        processes.append(context.Process(target=attack, args=arguments, daemon=True))
        processes[-1].start()
        pipes.append(ours)
    try:
        for pipe in pipes:
            pipe.recv()
        yield pipes
    finally:
        for process in processes:
            process.kill()
            process.join()


def run_row(server: Server, name: str, bounds: Bounds, count: int = 1) -> Row:
    """Attack a server from `count` processes at once, and return what it did to the others."""
    memory = Memory(psutil.Process(server.worker_pids[0]), bounds.memory_mb)
    neighbour = Neighbour(server.address)
    edges: list[int] = []

    def pass_time(seconds: float) -> None:
        time.sleep(seconds)
        edges.append(time.time_ns())

    with ExitStack() as stack:
        end = stack.enter_context(watching(server.address, STREAMS))
        pipes = stack.enter_context(attackers(name, server.address, bounds, count))
        before_mb = memory.now_mb()
        stack.enter_context(memory.sampled())
        with neighbour.asking():
            pass_time(0)
            pass_time(bounds.quiet_s)
            for pipe in pipes:
                pipe.send("go")
            replies = [reply for pipe in pipes for reply in pipe.recv()]
            pass_time(_AFTERMATH_S)
        settle(memory, before_mb)
        pass_time(0)
        pass_time(bounds.quiet_s)
        arrivals = end()
    quiet = [gaps(arrivals, *edges[:2]), gaps(arrivals, *edges[3:])]
    row = Row(
        name=name,
        told=ATTACKS[name].told,
        answers=dict(Counter(_WORDS.get(reply.status, str(reply.status)) for reply in replies)),
        slowest_s=max(reply.took_s for reply in replies),
        # The first alone if what the attack left behind still goes on in the second.
        quiet=quiet[0] if quiet[0].largest_ms < quiet[1].largest_ms - LARGEST_MS else quiet[1],
        attacked=gaps(arrivals, edges[1], edges[2]),
        neighbour_s=neighbour.slowest_s(edges[1], edges[2]),
        worker_peak_mb=memory.worker_peak_mb - before_mb,
        worker_kept_mb=memory.now_mb() - before_mb,
        helpers_peak_mb=memory.helpers_peak_mb,
        faults=[],
    )
    found = [*faults(row, bounds), *faulty_replies(ATTACKS[name], replies)]
    if memory.exceeded:
        found.append(f"killed at {bounds.memory_mb:.0f} MB")
    if refused := neighbour.refusals():
        found.append(f"a neighbour got {_WORDS.get(refused[0].status, refused[0].status)}")
    return dataclasses.replace(row, faults=found)


def settle(memory: Memory, before_mb: float) -> None:
    """Give the worker a moment to let go of what it held."""
    end_s = time.monotonic() + _SETTLE_S
    while time.monotonic() < end_s and memory.now_mb() > before_mb + KEPT_MB:
        time.sleep(0.1)


def faults(row: Row, bounds: Bounds) -> list[str]:
    """Return what was not as promised for the others."""
    p99_ms = row.attacked.p99_ms - row.quiet.p99_ms
    largest_ms = row.attacked.largest_ms - row.quiet.largest_ms
    checks = {
        f"p99 {p99_ms:+.1f} ms": p99_ms > bounds.p99_ms,
        f"largest gap {largest_ms:+.0f} ms": largest_ms > bounds.largest_ms,
        f"a neighbour waited {row.neighbour_s:.1f} s": row.neighbour_s > bounds.neighbour_s,
        f"keeps {row.worker_kept_mb:.0f} MB": row.worker_kept_mb > KEPT_MB,
        f"helpers {row.helpers_peak_mb:.0f} MB": row.helpers_peak_mb > HELPERS_MB,
    }
    return [words for words, is_so in checks.items() if is_so]


def faulty_replies(made: Attack, replies: Sequence[Reply]) -> list[str]:
    """Return what was wrong with the answers to the attack, each once."""
    found = []
    for reply in replies:
        if not made.allowed(reply.status):
            found.append(f"answer {_WORDS.get(reply.status, reply.status)}")
        if reply.status > 0 and reply.problem:
            found.append(reply.problem)
        if made.lasts_s is None and reply.took_s > ANSWER_S:
            found.append(f"took more than {ANSWER_S:g} s")
    return list(dict.fromkeys(found))


# --------------------------------------------------------------------------------------
# The table
# --------------------------------------------------------------------------------------


class Target:
    """A server that is started anew after an attack from which it has not recovered."""

    def __init__(self, root: Path) -> None:
        self._start = partial(serving, "emulator", emulator(), root)
        self._stack = ExitStack()
        self._server: Server | None = None

    def __enter__(self) -> "Target":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def server(self) -> Server:
        """Return the server, ready."""
        if self._server is None:
            self._server = self._stack.enter_context(self._start())
        return self._server

    def forget(self) -> None:
        """Stop the server."""
        self._stack.close()
        self._server = None


def run_rows(
    target: Target, names: Sequence[str], bounds: Bounds, count: int, tries: int
) -> Iterator[Row]:
    """Yield the row of each attack, the best of some tries if it fails."""
    for name in names:
        for _ in range(tries):
            row = run_row(target.server(), name, bounds, count)
            if row.faults:
                target.forget()
            else:
                break
        yield row


def as_line(row: Row) -> str:
    """Return a row of the table in Markdown."""
    answers = ", ".join(f"{status} x{count}" for status, count in sorted(row.answers.items()))
    cells = [
        row.told,
        answers,
        f"{row.slowest_s:.2f}",
        f"{row.quiet.p99_ms:.1f} / {row.attacked.p99_ms:.1f}",
        f"{row.quiet.largest_ms:.0f} / {row.attacked.largest_ms:.0f}",
        f"{row.neighbour_s:.2f}",
        f"{row.worker_peak_mb:.0f} / {row.worker_kept_mb:.0f}",
        f"{row.helpers_peak_mb:.0f}",
        "; ".join(row.faults) or "holds",
    ]
    return f"| {' | '.join(cells)} |"


HEADS = (
    "attack",
    "answers",
    "slowest, s",
    "gap error p99, quiet / attacked, ms",
    "largest gap, ms",
    "neighbour, s",
    "worker, peak / kept, MB",
    "helpers, MB",
    "verdict",
)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--row", nargs="+", default=list(ATTACKS), choices=ATTACKS, metavar="NAME",
        help="only these attacks; `--list` prints their names",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="print the attacks' names, and end")
    parser.add_argument("--attackers", type=int, default=1, help="processes that attack at once")
    parser.add_argument("--tries", type=int, default=1, help="how often to try what fails")
    parser.add_argument("--json", action="store_true", help="print an object a line, not a table")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="attack this working tree's")
    for bound in dataclasses.fields(Bounds):
        option = f"--{bound.name.replace('_', '-')}"
        parser.add_argument(option, type=float, default=getattr(Bounds(), bound.name))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Print the table; the exit status is 1 if an attack fails."""
    options = parse(arguments)
    if options.list:
        print("\n".join(f"{name:<24}{made.told}" for name, made in ATTACKS.items()))
        return 0
    stop_servers_on_sigterm()
    names = [field.name for field in dataclasses.fields(Bounds)]
    bounds = Bounds(**{name: getattr(options, name) for name in names})
    failed = []
    if not options.json:
        print(f"| {' | '.join(HEADS)} |\n{'|---' * len(HEADS)}|")
    with Target(options.checkout.resolve()) as target:
        for row in run_rows(target, options.row, bounds, options.attackers, options.tries):
            print(json.dumps(dataclasses.asdict(row)) if options.json else as_line(row), flush=True)
            failed += [row.name] if row.faults else []
    if not options.json:
        print(f"\n{len(options.row) - len(failed)} of {len(options.row)} hold.")
        print(f"These do not: {' '.join(failed)}" * bool(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
