"""Limits on a job's processor time and memory in a helper process, enforced by the kernel."""

import os
import resource
import time

# Per job, on top of what the process has used before.
MAX_CPU_S = 8
MAX_MEMORY = 350_000_000
# A helper that holds this much more after a job than at its start exits, and is replaced.
MAX_KEPT = 64_000_000

_PAGE = resource.getpagesize()


class Bounds:
    """Limits on this process, relative to its memory at the time of creation."""

    def __init__(self) -> None:
        size, self._resident = _memory()
        resource.setrlimit(resource.RLIMIT_AS, (size + MAX_MEMORY, size + MAX_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def begin(self) -> None:
        """Start a job's processor time: the kernel kills this process when it is used up."""
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + MAX_CPU_S, hard))

    def are_outgrown(self) -> bool:
        """Return whether the process should exit after this job, as it holds too much memory."""
        return _memory()[1] > self._resident + MAX_KEPT


def _memory() -> tuple[int, int]:
    """Return the virtual and the resident size of this process, in bytes."""
    fd = os.open("/proc/self/statm", os.O_RDONLY)
    try:
        pages = os.read(fd, 128).split()
    finally:
        os.close(fd)
    return int(pages[0]) * _PAGE, int(pages[1]) * _PAGE
