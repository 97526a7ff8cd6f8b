"""Memory files that all processes of a server can open by path."""

import atexit
import os
import sys
import tempfile
from pathlib import Path


def create(name: str) -> str:
    """Create an empty file; return a path that is valid while this process lives.

    On Linux it is a memfd, named by its descriptor, which leaves nothing behind however the process
    ends. Elsewhere it is a temporary file, which is deleted at exit.
    """
    if sys.platform == "linux":
        return f"/proc/{os.getpid()}/fd/{os.memfd_create(name)}"
    descriptor, path = tempfile.mkstemp(prefix=f"{name}_")
    os.close(descriptor)
    atexit.register(Path(path).unlink, missing_ok=True)
    return path
