"""A helper: does one job after the other, each within its processor time and its memory."""

import os
import resource
import socket
import time
import traceback
from collections.abc import Iterator
from typing import Any, Protocol

from emulator.helpers.wire import Kind, receive, send

# What a job may take, beside what the process has when it begins.
MAX_CPU_S = 8
MAX_MEMORY = 350_000_000
# A helper that keeps more than this after a job ends, and a fresh one takes its place.
MAX_KEPT = 64_000_000

_PAGE = resource.getpagesize()


class Work(Protocol):
    """What does the jobs."""

    def __call__(self, content: Any, body: bytearray, /) -> Iterator[tuple[object, bytes]]:  # noqa: ANN401
        """Do a job: take an object and bytes, and yield results of the same form."""

    def adopt(self, state: Any) -> None:  # noqa: ANN401 - the pool carries anything
        """Do jobs by another state from now on."""


def serve(connection: socket.socket, work: Work) -> None:
    """Do the jobs that come, until the worker closes the connection or a job took much memory."""
    size, resident = _memory()
    resource.setrlimit(resource.RLIMIT_AS, (size + MAX_MEMORY, size + MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while (job := receive(connection)) is not None:
        _limit_cpu()
        kind, content = Kind.DONE, ""
        try:
            (content_of_job, state), body = job
            if state is not None:
                work.adopt(state)
            for result, blob in work(content_of_job, body):
                send(connection, Kind.RESULT, result, blob)
        except MemoryError:
            kind = Kind.TOO_LARGE
        except Exception:  # noqa: BLE001 - the worker tells of it
            kind, content = Kind.FAILED, traceback.format_exc()
        job = body = result = blob = None  # type: ignore[assignment]  # the memory is looked at without them
        if kind is Kind.DONE and _memory()[1] > resident + MAX_KEPT:
            kind = Kind.LEAVING
        send(connection, kind, content)
        if kind is not Kind.DONE:
            return


def _limit_cpu() -> None:
    """Let the kernel end this process when the job takes too long, even within one call."""
    spent_s = time.process_time()
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(spent_s) + 1 + MAX_CPU_S, hard))


def _memory() -> tuple[int, int]:
    """Return how many bytes of addresses this process has, and how many of memory."""
    fd = os.open("/proc/self/statm", os.O_RDONLY)
    try:
        pages = os.read(fd, 128).split()
    finally:
        os.close(fd)
    return int(pages[0]) * _PAGE, int(pages[1]) * _PAGE
