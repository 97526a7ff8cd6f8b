"""Who uses a server: a folder with a locked file for each user, which the system lets go of.

A lock of flock(2) goes with the process that holds it, however that ends, so that a server is
ended after its last user even where that was killed.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

if sys.platform == "win32":
    raise ImportError(
        "a server is started for tests on Linux and macOS alone; start one by hand, and give its "
        "address (pytest: --openai-emulator-url)"
    )
import fcntl


class SharedFolder:
    """The folder of one server and its users.

    Args:
        path: Where it is; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._users = path / "users"
        self._users.mkdir(parents=True, exist_ok=True)
        self._state = path / "server.json"
        self._own: tuple[Path, int] | None = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let nobody else join, leave, start or end while the body runs."""
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def is_busy(self) -> bool:
        """Tell whether somebody is `alone` at the moment."""
        return _is_locked(self.path / "lock")

    # ------------------------------------------------------------------------------
    # Users; to be called while alone
    # ------------------------------------------------------------------------------

    def join(self) -> None:
        """Be a user from now on, to the end of this process at the latest."""
        path = self._users / f"{os.getpid()}-{uuid4().hex}"
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        fcntl.flock(file, fcntl.LOCK_EX)
        self._own = path, file

    def leave(self) -> None:
        """Be a user no more."""
        if self._own is not None:
            path, file = self._own
            self._own = None
            path.unlink(missing_ok=True)
            os.close(file)

    def has_users(self) -> bool:
        """Tell whether anybody uses the server; forget those who have ended."""
        found = False
        for path in self._users.iterdir():
            if _is_locked(path):
                found = True
            else:
                path.unlink(missing_ok=True)
        return found

    # ------------------------------------------------------------------------------
    # The server; to be called while alone
    # ------------------------------------------------------------------------------

    def keeper_lock(self) -> int:
        """Return a file that is locked as long as somebody has it: the keeper of the server."""
        lock = os.open(self.path / "keeper", os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return lock

    def is_kept(self) -> bool:
        """Tell whether the server has a keeper."""
        return _is_locked(self.path / "keeper")

    def publish(self, **state: object) -> None:
        """Tell everybody of the server."""
        self._state.write_text(json.dumps(state))

    def published(self) -> dict[str, Any] | None:
        """Return what was told of the server, None if there is none."""
        if not self.is_kept():
            self.retract()
        with suppress(FileNotFoundError):
            return dict(json.loads(self._state.read_text()))
        return None

    def retract(self) -> None:
        """Tell nobody of the server any more."""
        self._state.unlink(missing_ok=True)


def _is_locked(path: Path) -> bool:
    """Tell whether somebody has locked a file."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
