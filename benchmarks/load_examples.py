"""Runs the load kit's examples of the pages over and over: ``python -m benchmarks.load_examples``.

All must pass each time: an emulator with default settings keeps what the examples ask of it.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise

from benchmarks.kit.server import Server, emulator, serving, stop_servers_on_sigterm
from tests.support.documents import page
from tests.support.server import REPOSITORY, clean_environment

PAGES = ("README.md", "docs/load-testing.md")
HOST = "http://localhost:3000"
NOT_HERE = {"--master", "--worker"}  # several machines
LINES_SHOWN = 20


def examples() -> list[list[str]]:
    """Return the words of each example that ends by itself and runs against an emulator here."""
    found: list[list[str]] = []
    for name in PAGES:
        for words in page(name).commands:
            ends = words[:1] == ["locust"] and "--headless" in words and HOST in words
            if ends and not NOT_HERE & set(words) and words not in found:
                found.append(words)
    return found


def arguments(words: Sequence[str], url: str, duration: str | None) -> Iterator[str]:
    """Yield an example's arguments, with the server's address and the duration in their places."""
    for before, word in pairwise(words):
        if word == HOST:
            yield url
        elif before == "-t" and duration:
            yield duration
        else:
            yield str(REPOSITORY / word) if word == "locustfile.py" else word


def passes(words: Sequence[str], server: Server, duration: str | None) -> bool:
    """Run an example, print what it wrote if it failed, and return whether it passed."""
    url = f"http://{server.host}:{server.port}"
    with tempfile.TemporaryDirectory() as folder:
        ended = subprocess.run(
            [sys.executable, "-m", "locust", *arguments(words, url, duration), "--only-summary"],
            cwd=folder,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if ended.returncode:
        print("\n".join(ended.stdout.splitlines()[-LINES_SHOWN:]))
    return not ended.returncode


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load_examples", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--times", type=int, default=20, help="each, default 20")
    parser.add_argument("--duration", help="in place of the examples' own, such as 15s")
    parser.add_argument("--only", default="", help="examples that hold this text")
    return parser.parse_args()


def main() -> int:
    """Print how often each example passed; the exit status is 1 if one failed."""
    options = parse_options()
    stop_servers_on_sigterm()
    failed = 0
    for words in examples():
        line = " ".join(words)
        if options.only not in line:
            continue
        with serving("emulator", emulator()) as server:
            passed = sum(passes(words, server, options.duration) for _ in range(options.times))
        print(f"{passed} of {options.times} passed: {line}", flush=True)
        failed += options.times - passed
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
