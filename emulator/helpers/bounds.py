"""What a job may take in a helper process: processor time and memory, both held by the kernel."""

import os
import resource
import time

# What a job may take, beside what the process has when it begins.
MAX_CPU_S = 8
MAX_MEMORY = 350_000_000
# A helper that keeps more than this after a job ends, and a fresh one takes its place.
MAX_KEPT = 64_000_000

_PAGE = resource.getpagesize()


class Bounds:
    """The bounds of this process, from now on."""

    def __init__(self) -> None:
        size, self._resident = _memory()
        resource.setrlimit(resource.RLIMIT_AS, (size + MAX_MEMORY, size + MAX_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def begin(self) -> None:
        """Let the kernel end this process when a job takes too long, even within one call."""
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + MAX_CPU_S, hard))

    def are_outgrown(self) -> bool:
        """Return whether this process has kept more memory than the next job should find."""
        return _memory()[1] > self._resident + MAX_KEPT


def _memory() -> tuple[int, int]:
    """Return how many bytes of addresses this process has, and how many of memory."""
    fd = os.open("/proc/self/statm", os.O_RDONLY)
    try:
        pages = os.read(fd, 128).split()
    finally:
        os.close(fd)
    return int(pages[0]) * _PAGE, int(pages[1]) * _PAGE
