"""podman with a store of its own, which goes away with all that runs from it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy.check_image.asking import is_ready

REPOSITORY = Path(__file__).parents[2]
TAG = "openai_emulator:latest"
NAME = "emulator"
LEFTOVERS = "emulator-image-"
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_once() -> None:
    """Let a signal that ends this process leave by way of every `finally`, and no second one."""

    def leave(number: int, _: object) -> None:
        ignore_endings()
        sys.exit(128 + number)

    for ending in ENDINGS:
        signal.signal(ending, leave)


def ignore_endings() -> None:
    """Go on to the end, whatever signal comes."""
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)


class CommandError(RuntimeError):
    """A command failed; the message has the end of what it wrote."""


def run(*command: str, env: Mapping[str, str] | None = None) -> str:
    """Return what a command writes to its output, without the last line end.

    Raises:
        CommandError: Its exit code is not 0.
    """
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
            raise
    if process.returncode:
        tail = "\n".join(output.splitlines()[-30:])
        raise CommandError(f"{' '.join(command)} ended with {process.returncode}:\n{tail}")
    return output.rstrip("\n")


class Podman:
    """podman with a store of its own.

    Args:
        folder: Where all is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        descriptors = run("bash", "-c", "ulimit -Hn")  # more cannot be had in some sandboxes
        storage = f'driver = "overlay"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/storage"\n'
        (folder / "storage.conf").write_text(f"[storage]\n{storage}")
        # crun refuses machines that have control groups of both versions.
        (folder / "containers.conf").write_text(
            f'[containers]\ndefault_ulimits = ["nofile={descriptors}:{descriptors}", '
            '"nproc=16384:16384"]\n[engine]\nruntime = "runc"\n'
        )
        self.env = {
            **{name: value for name, value in os.environ.items() if "EMULATOR_" not in name},
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "BENTOML_HOME": str(folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
        }

    def __call__(self, *arguments: str) -> str:
        """Return what a command of podman's says."""
        return run("podman", *arguments, env=self.env)

    def execute(self, *command: str) -> str:
        """Return what a command says that runs in the container."""
        return self("exec", NAME, *command)

    def fails(self, *arguments: str) -> str:
        """Return what a command says that fails; nothing if it succeeds."""
        try:
            self(*arguments)
        except CommandError as error:
            return str(error)
        return ""

    @contextmanager
    def running(self, port: int, *options: str, command: Sequence[str]) -> Iterator[None]:
        """Run the image while the body runs, which begins when it is ready."""
        listening = ("--network=host", f"--env=BENTOML_PORT={port}")
        self("run", "--detach", f"--name={NAME}", *listening, *options, TAG, *command)
        try:
            deadline_s = time.monotonic() + 60
            while not is_ready(port):
                state = self("inspect", NAME, "--format={{.State.Status}}")
                if state != "running" or time.monotonic() > deadline_s:
                    raise CommandError(f"The container is not ready: {self('logs', NAME)}")
                time.sleep(0.1)
            yield
        finally:
            self("rm", "--force", "--time=1", NAME)


def remove(folder: Path) -> None:
    """Remove a folder of ours, with containers and mounts."""
    podman = Podman(folder)
    for command in (("rm", "--all", "--force", "--time=1"), ("rmi", "--all", "--force")):
        with suppress(CommandError):
            podman(*command)
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in reversed([mount for mount in mounts if mount.startswith(f"{folder}/")]):
        run("umount", "--lazy", mount)
    shutil.rmtree(folder)


@contextmanager
def work_folder() -> Iterator[Path]:
    """Yield a folder, which is removed in the end, as is what a killed check has left behind."""
    for left in Path(tempfile.gettempdir()).glob(f"{LEFTOVERS}*"):
        if not Path("/proc", left.name.removeprefix(LEFTOVERS)).exists():
            remove(left)
    folder = Path(tempfile.gettempdir(), f"{LEFTOVERS}{os.getpid()}")
    folder.mkdir()
    try:
        yield folder
    finally:
        ignore_endings()
        remove(folder)
