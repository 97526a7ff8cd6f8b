"""Clients of other people, unmodified, in environments of their own."""

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.clients.parts import FOLDER, PARTS
from tests.clients.running import SKIPPED
from tests.clients.strays import strays
from tests.support.server import REPOSITORY, Server, args, clean_environment, running_server

TIMEOUT_S = 1500  # the first time everything is downloaded and built, maybe beside others


@pytest.fixture(scope="module")
def server(local_only: None) -> Iterator[Server]:  # noqa: ARG001 - it starts one
    """Yield a quick server with the rules that clients without header fields need.

    Pools pause for a tenth of their time, and it keeps connections for a quarter of the default, as
    on a busy machine a round of 150 requests takes its time too.
    """
    rules = ("--arg", f"rules={FOLDER / 'rules.yaml'}")
    with running_server(*args(ttft_ms=5, itl_ms=1, workers=1, keep_alive_s=30), *rules) as started:
        yield started


def run(server: Server, part: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Try a part at a server; return how that ended, and what it said."""
    return subprocess.run(  # noqa: S603 - our own script
        [str(REPOSITORY / "tests" / "clients" / "run"), server.url, part],
        env=clean_environment(variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_other_clients_work(server: Server, part: str) -> None:
    """All checks of a part hold."""
    ended = run(server, part)
    if ended.returncode == SKIPPED:
        pytest.skip(ended.stdout[-500:])
    assert ended.returncode == 0, ended.stdout


@pytest.mark.long
@pytest.mark.usefixtures("local_only")
def test_pools_see_no_reset_in_true_time() -> None:
    """Pools in Go, Java and Python that pause for 5, 30 and 65 s keep their connections."""
    parts = ("go", "java", "openai")
    rules = ("--arg", f"rules={FOLDER / 'rules.yaml'}")
    with running_server(*args(workers=1), *rules) as server, ThreadPoolExecutor(len(parts)) as pool:
        ended = list(pool.map(lambda part: run(server, part, CLIENTS_TIME="1"), parts))
    for each in ended:
        assert each.returncode in (0, SKIPPED), each.stdout


OUTPUTS = {
    "go": "=== RUN   TestA\n--- PASS: TestA (0.01s)\n--- FAIL: TestB (0.01s)\n",
    "rust": "test a ... ok\ntest b ... FAILED\ntest result: FAILED. 1 passed; 1 failed\n",
    "node": "TAP version 13\n# Subtest: a\nok 1 - a\n  ---\nnot ok 2 - b\n",
    "openai": "PASSED check_a.py::a\nFAILED check_a.py::b - assert 1 == 2\n",
}


@pytest.mark.parametrize(("part", "output"), OUTPUTS.items(), ids=OUTPUTS)
def test_results_are_read(part: str, output: str, tmp_path: Path) -> None:
    """What a toolchain prints is read as one check that held and one that did not."""
    assert list(PARTS[part].read(output, tmp_path).values()) == [True, False]


def test_reports_of_maven_are_read(tmp_path: Path) -> None:
    """A check without failure and error held, and each of these two is none that held."""
    folder = tmp_path / "target" / "surefire-reports"
    folder.mkdir(parents=True)
    cases = ("", "<failure/>", "<error/>")
    text = "".join(
        f'<testcase classname="T" name="{number}">{ended}</testcase>'
        for number, ended in enumerate(cases)
    )
    (folder / "TEST-T.xml").write_text(f"<testsuite>{text}</testsuite>")
    read = PARTS["java"].read("", tmp_path)
    assert read == {"T.0": True, "T.1": False, "T.2": False}


def test_strays_are_noted() -> None:
    """Whoever heeds the proxy's variables and asks for another host is refused and noted."""
    with strays() as (variables, asked):
        with httpx.Client(proxy=variables["http_proxy"]) as client:
            assert client.get("http://example.test/x").status_code == 403
        assert asked == {"GET http://example.test/x"}
