"""The command line: `python -m twin measure`, `fit` and `check`."""

import argparse
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from socket import socket

from benchmarks.engine.prediction import capacity
from benchmarks.engine.workload import Workload
from emulator.engine.config import EngineConfig, load_engine
from emulator.settings import ConfigError
from loadtest.twin.comparison import Compared, compare, table, verdict
from loadtest.twin.engine_file import engine_file, fit_sweep, parameter, ranges
from loadtest.twin.picture import picture
from loadtest.twin.simulated import simulate
from loadtest.twin.sweep import Point, TwinError, read_sweep

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
POISSON_SHARE = 0.6  # of what the engine can do
DEFAULT_LENGTHS = (50, 200, 500, 1000, 2000)
DEFAULT_CLIENTS = 64


def tell(message: str) -> None:
    """Print a line of progress."""
    print(message, flush=True)


# ----------------------------------------------------------------------------------
# fit
# ----------------------------------------------------------------------------------


def fit(options: argparse.Namespace) -> None:
    """Read a sweep, and write an engine."""
    report = fit_sweep(read_sweep(options.sweep), tell)
    for name, value in report.fitted.values.items():
        tell(f"{name} {value:.5g} ({parameter(report.fitted, name)})")
    for note in (*report.notes, *ranges(report)):
        tell(note)
    tell(verdict(report.compared))
    write(options.to, engine_file(report))
    load_engine(str(options.to))


# ----------------------------------------------------------------------------------
# check
# ----------------------------------------------------------------------------------


def check(options: argparse.Namespace) -> None:
    """Compare an engine with a server, or with a sweep."""
    config = load_engine(options.engine)
    if options.sweep:
        points: Sequence[Point] = read_sweep(options.sweep).points
        if not points:
            raise TwinError(f"{options.sweep}: there is no load in it")
        compared = compare(points, [simulate(config, point) for point in points])
    else:
        compared = check_server(options, config)
    for line in table(compared):
        tell(line)
    tell(verdict(compared))
    if options.svg:
        write(options.svg, picture(compared, f"{Path(options.engine).stem}: real and twin"))


def check_server(options: argparse.Namespace, config: EngineConfig) -> list[Compared]:
    """Send the same loads to a server and to the emulator, in turns."""
    from loadtest.twin.client import Client  # noqa: PLC0415 - brings gevent
    from loadtest.twin.loads import run, unseen  # noqa: PLC0415

    workload = Workload(sum(options.lengths) // len(options.lengths), options.output_tokens)
    rate = POISSON_SHARE * capacity(config, workload)
    loads = unseen(options.lengths, options.clients, options.output_tokens, rate)
    points, twins = [], []
    with (
        Client(options.url, options.model, options.api_key, tell) as real,
        running_emulator(options.engine) as url,
        Client(url, options.model, log=tell) as twin,
    ):
        real.probe()
        twin.probe()
        for load in loads:
            tell(str(load))
            points.append(run(real, load))
            twins.append(run(twin, load))
    return compare(points, twins)


@contextmanager
def running_emulator(engine: str) -> Iterator[str]:
    """Run the emulator with an engine and one worker; yield its address.

    Raises:
        TwinError: It does not start.
    """
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = str(Path(engine).resolve()) if engine.endswith((".yaml", ".yml")) else engine
    settings = ["--arg", f"engine={path}", "--arg", "workers=1"]
    where = ["--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "bentoml", "serve", "service.py:OpenAIEmulator"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*command, *where, *settings], cwd=ROOT, stdout=log, stderr=log)
        try:
            _wait_until_ready(process, f"http://127.0.0.1:{port}/readyz")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    until_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until_s and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise TwinError("the emulator did not start: `bentoml serve` with this engine says why")


# ----------------------------------------------------------------------------------
# measure
# ----------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> None:
    """Measure a server into a file."""
    from loadtest.twin.client import Client  # noqa: PLC0415 - brings gevent
    from loadtest.twin.loads import Design, Measurement  # noqa: PLC0415

    told = {
        name: value
        for name in ("max_num_seqs", "max_num_batched_tokens", "kv_blocks", "block_size")
        if (value := getattr(options, name)) is not None
    }
    design = Design(options.lengths, options.clients, options.output_tokens)
    with Client(options.url, options.model, options.api_key, tell) as client:
        known = client.probe().model_copy(update=told)
        sweep = Measurement(client, options.to, design, options.minutes).run(known)
    tell(f"{len(sweep.points)} loads are in {options.to}: python -m twin fit {options.to}")


def write(path: Path, text: str) -> None:
    """Write a file.

    Raises:
        TwinError: That is not possible.
    """
    try:
        path.write_text(text)
    except OSError as error:
        raise TwinError(f"{path}: {error.strerror}") from None
    tell(f"wrote {path}")


# ----------------------------------------------------------------------------------
# The command line
# ----------------------------------------------------------------------------------


def whole(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, but got {text!r}")
    return int(text)


def several(text: str) -> tuple[int, ...]:
    """Return whole numbers, parted by commas, in order."""
    return tuple(sorted({whole(part.strip()) for part in text.split(",")}))


def minutes(text: str) -> float:
    """Return a time."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= 1440:
        raise argparse.ArgumentTypeError(f"expected minutes, over 0 and up to 1440, not {text!r}")
    return found


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    whole_parser = argparse.ArgumentParser(prog="python -m twin", description=__doc__)
    commands = whole_parser.add_subparsers(required=True, metavar="measure, fit or check")
    one = commands.add_parser("measure", help="measure a server into a file")
    _server(one, required=True)
    one.add_argument("--to", type=Path, default=Path("sweep.jsonl"), help="resumed if it is there")
    one.add_argument("--minutes", type=minutes, default=5.0, help="default 5")
    for name in ("max-num-seqs", "max-num-batched-tokens", "kv-blocks", "block-size"):
        one.add_argument(f"--{name}", type=whole, help="of the engine, if you know it")
    one.set_defaults(run=measure)
    two = commands.add_parser("fit", help="fit an engine to a sweep")
    two.add_argument("sweep", type=Path)
    two.add_argument("--to", type=Path, required=True, help="the engine, a .yaml file")
    two.set_defaults(run=fit)
    three = commands.add_parser("check", help="compare an engine with its server, or with a sweep")
    _server(three, required=False)
    three.add_argument("--engine", required=True, help="a name in engines/, or a .yaml file")
    three.add_argument("--from", dest="sweep", type=Path, help="compare with a sweep, no server")
    three.add_argument("--svg", type=Path, help="draw the comparison here")
    three.set_defaults(run=check)
    return whole_parser


def _server(command: argparse.ArgumentParser, required: bool) -> None:
    command.add_argument("--url", required=required, help="of the server, with or without /v1")
    command.add_argument("--model", default="m", help="of every request")
    command.add_argument("--api-key", help="sent as a bearer token")
    command.add_argument("--clients", type=whole, default=DEFAULT_CLIENTS, help="at most; 64")
    command.add_argument("--output-tokens", type=whole, default=64, help="of each answer; 64")
    lengths = ",".join(map(str, DEFAULT_LENGTHS))
    command.add_argument(
        "--lengths", type=several, default=DEFAULT_LENGTHS, help=f"of prompts, in tokens; {lengths}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command.

    Raises:
        SystemExit: With 1, and what was wrong.
    """
    options = parser().parse_args(arguments)
    if options.run is check and bool(options.url) == bool(options.sweep):
        sys.exit("check: expected either --url or --from")
    try:
        options.run(options)
    except (TwinError, ConfigError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped; what was measured is in the file")
