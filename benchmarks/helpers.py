"""What helper processes cost: ``python -m benchmarks.helpers``.

CPU of one worker and of its helpers for each whole answer without delay: a text, which the worker
makes itself, and a JSON object, which a helper makes; minima of `--runs` rounds. Then the memory
of the nursery and of the helpers when they have nothing to do: what is their own, and what they
share with the worker.
"""

import argparse
import socket
import time
from contextlib import suppress

import psutil

from benchmarks.kit.client import Chat, closed_loop
from benchmarks.kit.server import Server, emulator, serving

CONNECTIONS = 8
ANSWERS = {
    "text, by the worker": Chat(False, 0, 0, 20),
    "JSON, by a helper": Chat(False, 0, 0, 20, as_json=True),
}


def helpers_of(server: Server) -> list[psutil.Process]:
    """Return the nursery of a server's one worker, and then its helpers."""
    return list(psutil.Process(server.worker_pids[0]).children(recursive=True))


def cpu_s(server: Server) -> float:
    """Return what the nursery and all its helpers have taken so far, those that ended included."""
    total_s = 0.0
    for process in helpers_of(server):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total_s += times.user + times.system + times.children_user + times.children_system
    return total_s


def cost_us(server: Server, chat: Chat, duration_s: float) -> tuple[float, float, float]:
    """Return the CPU of the worker and of the helpers for each answer, and answers/s."""
    before_s, started_s = cpu_s(server), time.monotonic()
    rate = closed_loop(server, chat, CONNECTIONS, duration_s)
    answers = rate.answers_per_s * (time.monotonic() - started_s)
    return rate.cpu_us_per_answer, (cpu_s(server) - before_s) / answers * 1e6, rate.answers_per_s


def ask_once(server: Server) -> None:
    """Have a helper answer, and read that to its end: a helper whose client goes away is ended."""
    with socket.create_connection(server.address) as connection:
        connection.sendall(ANSWERS["JSON, by a helper"].encode(server.host))
        while not connection.recv(1 << 16).endswith(b"}"):
            pass


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--duration-s", type=float, default=3.0, help="of each run")
    options = parser.parse_args()
    with serving("emulator", emulator()) as server:
        for chat in ANSWERS.values():
            closed_loop(server, chat, CONNECTIONS, 0.5)  # the helpers are there from now on
        for name, chat in ANSWERS.items():
            runs = [cost_us(server, chat, options.duration_s) for _ in range(options.runs)]
            worker_us, helper_us, rate = min(runs)
            print(
                f"{name:<20} worker {worker_us:5.0f} us, helpers {helper_us:5.0f} us an answer, "
                f"{rate:,.0f} answers/s"
            )
        ask_once(server)
        for index, process in enumerate(helpers_of(server)):
            memory = process.memory_full_info()
            name = "helper" if index else "nursery"
            own, shared = memory.uss / 1e6, (memory.rss - memory.uss) / 1e6
            print(f"{name:<8} {own:5.1f} MB of its own, {shared:5.1f} MB shared")


if __name__ == "__main__":
    main()
