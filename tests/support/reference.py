"""What the machine itself did meanwhile: how late a sleeper wakes, and how long Python takes."""

import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_SLEEPER = """
import json, select, sys, time
late_s, due_s, ends = [], time.monotonic(), False
print("ready", flush=True)
while not ends:
    due_s = max(due_s, time.monotonic()) + 0.004
    time.sleep(max(due_s - time.monotonic(), 0))
    late_s.append(time.monotonic() - due_s)
    ends = select.select([sys.stdin], [], [], 0)[0]
print(json.dumps(late_s))
"""


@dataclass
class Machine:
    """How late a sleeper was in the same seconds, each 4 ms: empty until they are over."""

    late_s: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        """The median lateness, in seconds."""
        return statistics.median(self.late_s)

    @property
    def worst_s(self) -> float:
        """The largest lateness, in seconds."""
        return max(self.late_s)


@contextmanager
def watched_machine() -> Iterator[Machine]:
    """Watch what the machine does while the body runs; the figures are there after it."""
    machine = Machine()
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-S", "-c", _SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as sleeper:
        try:
            assert sleeper.stdout is not None
            assert sleeper.stdout.readline() == b"ready\n"
            yield machine
        finally:
            late_s, _ = sleeper.communicate(b"end", timeout=60)
            machine.late_s += json.loads(late_s)


def least(measure: Callable[[], float], below: float) -> float:
    """Measure until a figure is below a bound, or 20 times; return the least.

    It is for figures to which everything else that the machine does can only add.
    """
    figures: list[float] = []
    while not figures or (min(figures) >= below and len(figures) < 20):
        figures.append(measure())
    return min(figures)


def cpu_s(work: Callable[[], object]) -> float:
    """Return the CPU time that this thread takes for some work, in seconds.

    What else this process holds is not collected as garbage meanwhile.
    """
    gc.disable()
    try:
        started_s = time.thread_time()
        work()
        return time.thread_time() - started_s
    finally:
        gc.enable()


# The CPU seconds that a fast machine takes for as many additions in a loop.
_ADDITIONS, _FAST_S = 100_000, 0.004


def here_s(fast_s: float) -> float:
    """Return the CPU seconds that work takes here which takes a fast machine `fast_s`.

    They are as many times more as additions in a loop take here, by the least of a few tries.
    """
    tries_s = []
    for _ in range(5):
        start_s, total = time.thread_time(), 0
        for number in range(_ADDITIONS):
            total += number
        tries_s.append(time.thread_time() - start_s)
    return fast_s * max(1, min(tries_s) / _FAST_S)
