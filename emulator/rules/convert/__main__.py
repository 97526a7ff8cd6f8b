"""Writes rules that answer as fixtures of aimock do, and tells what rules cannot say."""

import argparse
import sys
from pathlib import Path

import yaml  # type: ignore[import-untyped]  # ships no types

from emulator.rules.convert.files import sources
from emulator.rules.convert.joining import convert


def main() -> int:
    """Convert what the command line names; return 1 if rules cannot say all of it."""
    parser = argparse.ArgumentParser(prog="python -m emulator.rules.convert", description=__doc__)
    parser.add_argument("path", type=Path, nargs="+", help="a JSON file of fixtures, or a folder")
    paths = parser.parse_args().path
    converted = convert(each for path in paths for each in sources(path))
    yaml.safe_dump(converted.rules, sys.stdout, sort_keys=False, allow_unicode=True, width=100)
    for line in converted.unsaid:
        print(line, file=sys.stderr)  # noqa: T201 - it is a program's
    return 1 if converted.unsaid else 0


if __name__ == "__main__":
    sys.exit(main())
