"""Tries clients of other people, unmodified, against the emulator at an address.

    tests/clients/run [http://localhost:3000] [part ...]
    tests/clients/run --prepare [part ...]

The parts are those of parts.py; without a name all are tried, or are only installed and built, two
at a time. The server needs the rules of rules.yaml. Each environment is installed once for
each list of versions, into CLIENTS_HOME or ~/.cache/openai-emulator-clients. Ends with 1 if a check
fails, else with 77 if a part could not be installed, or was asked for by name and lacks its
toolchain.
"""

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from tests.clients.parts import PARTS, Command, Part
from tests.clients.results import Results
from tests.clients.strays import strays

FAILED, SKIPPED = 1, 77
INSTALLERS = 2  # at a time; more would only share the processors
CHECK_TIMEOUT_S = 600
LOG_TAIL = 4000

# What would send something to elsewhere, and what would lead a client to another server.
QUIET = {"DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_UPDATE_NOTIFIER": "1"}
LEADING_ELSEWHERE = ("OPENAI_", "CODEX_", "OPENCODE_", "LANGSMITH_", "LANGCHAIN_", "ANTHROPIC_")


class CannotInstallError(Exception):
    """An environment could not be installed; holds the end of what the installer said."""


class CannotBuildError(Exception):
    """The checks do not compile; holds what the compiler said."""


def _caches() -> Path:
    """Return the folder of all environments."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("CLIENTS_HOME") or cache / "openai-emulator-clients")


def home_of(part: Part) -> Path:
    """Return a part's environment, named by its list of versions."""
    pins = b"".join((part.here / pin).read_bytes() for pin in part.pins)
    return _caches() / f"{part.folder}-{sha256(pins).hexdigest()[:12]}"


def missing(part: Part) -> list[str]:
    """Return the programs that a part needs and that are not here."""
    return [program for program in part.programs if not shutil.which(program)]


def _filled(part: Part, words: Sequence[str]) -> list[str]:
    """Return words with their places filled in."""
    return [word.format(here=part.here, home=home_of(part)) for word in words]


def _environment(part: Part, more: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for a part's commands."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(LEADING_ELSEWHERE) and name != "VIRTUAL_ENV"
    }
    own = {**part.variables, **more}
    return kept | QUIET | dict(zip(own, _filled(part, list(own.values())), strict=True))


def _run(
    part: Part, command: Command, more: Mapping[str, str], timeout_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command of a part; both of its outputs become one."""
    return subprocess.run(  # noqa: S603 - the commands are those of parts.py
        _filled(part, command),
        cwd=part.here,
        env=_environment(part, more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Keep others from installing the same environment."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepare(part: Part) -> float:
    """Install a part's environment, if it is not there, and build its checks; return the seconds.

    Raises:
        CannotInstallError: A command of the installation failed.
        CannotBuildError: The checks do not compile.
    """
    started, home = time.monotonic(), home_of(part)
    whole = home / "installed"
    with _alone(home):
        if not whole.exists():
            # Toolchains' caches name their own folder: none can be made elsewhere and moved here.
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            for command in part.install:
                ended = _run(part, command, {})
                if ended.returncode:
                    raise CannotInstallError(f"{ended.args}\n{ended.stdout[-LOG_TAIL:]}")
            whole.touch()
        if part.build:
            ended = _run(part, part.build, {})
            if ended.returncode:
                raise CannotBuildError(ended.stdout)
    return time.monotonic() - started


def check(part: Part, url: str) -> tuple[Results, str]:
    """Run a part's checks against a server; return how each ended, and the output."""
    home = home_of(part)
    beside = sorted(part.here.glob(part.beside)) if part.beside else []
    command = [*part.check, *(str(shutil.copy(file, home / file.name)) for file in beside)]
    shutil.rmtree(home / "target" / "surefire-reports", ignore_errors=True)
    with strays() as (proxy, asked):
        local = {"EMULATOR_URL": url, "OPENAI_API_KEY": "dummy-key", **proxy, **part.at_checks}
        try:
            ended = _run(part, command, local, CHECK_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            return {f"the checks end within {CHECK_TIMEOUT_S} s": False}, f"{error.output}"
    results = part.read(ended.stdout, home)
    if not results or (ended.returncode and all(results.values())):
        results["the checks run to their end"] = False
    if asked:
        results[f"nothing but the emulator is asked: {', '.join(sorted(asked))}"] = False
    return results, ended.stdout


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - it is a script's


def _report(name: str, results: Results, output: str, times: str) -> bool:
    """Print how the checks of a part ended; return whether all held."""
    failed = [check for check, held in results.items() if not held]
    if failed:
        _say(output)
    _say(f"{name}: {len(results) - len(failed)} hold, {len(failed)} fail; {times}")
    for check in failed:
        _say(f"  FAILS: {check}")
    return not failed


def _try(name: str, url: str | None, prepared: Future[float]) -> int:
    """Try a part that is being prepared, if at a server; return the code to end with."""
    try:
        took = prepared.result()
    except CannotInstallError as error:
        _say(f"{name}: cannot be installed here: {error}")
        return SKIPPED
    except CannotBuildError as error:
        _say(f"{name}: does not compile: {error}")
        return FAILED
    if url is None:
        _say(f"{name}: prepared in {took:.1f} s")
        return 0
    started = time.monotonic()
    results, output = check(PARTS[name], url)
    times = f"prepared in {took:.1f} s, checked in {time.monotonic() - started:.1f} s"
    return 0 if _report(name, results, output, times) else FAILED


def run(names: Sequence[str], url: str | None) -> Iterator[int]:
    """Prepare parts, some at a time, and try one after the other; yield the codes to end with.

    Without a server they are not tried.
    """
    with ThreadPoolExecutor(INSTALLERS) as pool:
        preparing = {}
        for name in names:
            if lacking := missing(PARTS[name]):
                _say(f"{name}: skipped, as {' and '.join(lacking)} cannot be found")
            else:
                preparing[name] = pool.submit(prepare, PARTS[name])
        for name, prepared in preparing.items():
            yield _try(name, url, prepared)


def main(arguments: Sequence[str]) -> int:
    """Try what the command line names; return the code to end with."""
    where = [word for word in arguments if "://" in word or word == "--prepare"]
    names = [word for word in arguments if word not in where]
    if len(where) > 1 or not set(names) <= set(PARTS):
        _say(f"tests/clients/run [url | --prepare] [part ...]; the parts: {', '.join(PARTS)}")
        return 2
    url = (where or ["http://localhost:3000"])[0].rstrip("/")
    codes = set(run(names or list(PARTS), None if where == ["--prepare"] else url))
    if any(missing(PARTS[name]) for name in names):
        codes.add(SKIPPED)
    return FAILED if FAILED in codes else max(codes, default=0)
