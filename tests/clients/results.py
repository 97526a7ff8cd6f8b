"""What each toolchain prints of its checks, as names that held or did not."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

Results = dict[str, bool]
Reader = Callable[[str, Path], Results]


def _lines(pattern: str, held: str) -> Reader:
    """Return a reader of lines that name a check and say how it ended."""
    line = re.compile(pattern, re.MULTILINE)

    def read(output: str, home: Path) -> Results:  # noqa: ARG001 - the other reader needs it
        return {found["name"]: found["end"] == held for found in line.finditer(output)}

    return read


go = _lines(r"^--- (?P<end>PASS|FAIL): (?P<name>\S+)", "PASS")
cargo = _lines(r"^test (?P<name>\S+) \.\.\. (?P<end>ok|FAILED)$", "ok")
pytest = _lines(r"^(?P<end>PASSED|FAILED|ERROR) (?P<name>\S+)", "PASSED")
tap = _lines(r"^(?P<end>ok|not ok) \d+ - (?P<name>.+?)$", "ok")


def surefire(output: str, home: Path) -> Results:  # noqa: ARG001 - the others need it
    """Read Maven's reports, as its output names no check that held."""
    results: Results = {}
    for report in sorted(home.glob("target/surefire-reports/TEST-*.xml")):
        for case in ET.parse(report).iter("testcase"):  # noqa: S314 - Maven wrote it here
            ended_badly = case.find("failure") is not None or case.find("error") is not None
            results[f"{case.get('classname')}.{case.get('name')}"] = not ended_badly
    return results
