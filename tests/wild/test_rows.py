"""The table of what was hit in the wild, held against the tests that there are."""

import subprocess
import sys

import pytest

from tests.support.documents import names, page, table
from tests.support.server import REPOSITORY, clean_environment


def collected(files: set[str]) -> set[str]:
    """Return the cases that pytest finds in files of tests/, and the tests that they are of."""
    ended = subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "slow or not slow", *files],
        cwd=REPOSITORY / "tests",
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = [line.removeprefix("tests/") for line in ended.stdout.splitlines() if "::" in line]
    return {*lines, *(line.partition("[")[0] for line in lines)}


@pytest.mark.slow  # it collects most of the tests in another process
def test_each_row_has_cases() -> None:
    """Every row of the table names cases, and each of them is there."""
    text = page("tests/wild/README.md").text
    rows = table(text, "what was hit", "what is right", "cases")
    named = {what: names(cases) for what, right, cases in rows if right}
    assert [what for what, cases in named.items() if not cases] == []
    cases = {case for of_row in named.values() for case in of_row}
    assert len(cases) > len(named)
    assert cases - collected({case.partition("::")[0] for case in cases}) == set()
