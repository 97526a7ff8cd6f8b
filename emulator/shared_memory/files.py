"""Files in memory that all processes of a server can open by one path."""

import atexit
import os
import sys
import tempfile
from pathlib import Path


def create(name: str) -> str:
    """Create an empty file; return the path at which this process and its children open it.

    On Linux it is gone with this process, however that ends: it has no other name than that of the
    descriptor. Elsewhere it is a temporary file, which is deleted at the exit.
    """
    if sys.platform == "linux":
        return f"/proc/{os.getpid()}/fd/{os.memfd_create(name)}"
    descriptor, path = tempfile.mkstemp(prefix=f"{name}_")
    os.close(descriptor)
    atexit.register(Path(path).unlink, missing_ok=True)
    return path
