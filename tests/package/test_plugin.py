"""The plugin for pytest, in projects whose tests pass, fail and are cut short."""

import re
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.package.projects import PLUGIN, command, run, write
from tests.support.server import PLAIN, Server, clean_environment, eventually

pytestmark = pytest.mark.usefixtures("importable", "local_only")

ASK = """
def ask(scope):
    client = scope.openai(max_retries=0)
    return client.chat.completions.create(
        model="gpt-4", messages=[{"role": "user", "content": "Hi"}]
    )
"""
SCOPES = f"""{ASK}
seen = set()


def test_one(emulator):
    emulator.rules.put("named", answer={{"text": "One."}})
    assert ask(emulator).choices[0].message.content == "One."
    seen.add(emulator.id)


def test_other(emulator, openai_emulator):
    assert ask(emulator).choices[0].message.content != "One."
    assert openai_emulator.rules.list() == []
    seen.add(emulator.id)
    assert len(seen) == 2
"""
FAILING = f"""{ASK}
def test_before(emulator):
    ask(emulator)


def test_that_fails(emulator):
    emulator.rules.put("busy", fault={{"status": 418}})
    ask(emulator)
"""
SETTINGS = """
def test_settings(openai_emulator):
    settings = openai_emulator.settings.read()
    print("itl", settings["itl_ms"], "ttft", settings["ttft_ms"], "of", settings["models"])
    print("rules", openai_emulator.rules.list())
"""
INI = """[pytest]
openai_emulator_settings =
    itl_ms=3
    ttft_ms=4
    models=one,two
    rules=rules.yaml
"""
MODULES = """
import sys


def test_modules():
    assert not {"httpx", "openai_api_emulator.client"} & set(sys.modules)
"""
WAITS = """
import time


def test_waits(openai_emulator):
    print(openai_emulator.url, flush=True)
    time.sleep(600)
"""


def test_each_test_has_a_scope(packaged: Server, tmp_path: Path) -> None:
    """Each test has a scope of its own on the server of an address, and leaves no rule there."""
    write(tmp_path, {"test_scopes.py": SCOPES})
    options = ["-p", "no:randomly", f"--openai-emulator-url={packaged.url}"]
    ended = run(tmp_path, command(*PLUGIN, *options))
    assert ended.returncode == 0, ended.stdout


def test_setting_without_a_value_is_told(tmp_path: Path) -> None:
    """A setting that is none ends the run before any test, as bad usage."""
    write(tmp_path, {"test_scopes.py": SCOPES})
    ended = run(tmp_path, command(*PLUGIN, "--openai-emulator", "ttft"))
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR
    assert "expected SETTING=VALUE, but got 'ttft'" in ended.stdout


def test_plugin_loads_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    """Runs that use no fixture of the plugin load neither the clients nor httpx."""
    write(tmp_path, {"test_modules.py": MODULES})
    ended = run(tmp_path, command(*PLUGIN, "-p", "no:anyio", "-p", "no:schemathesis"))
    assert ended.returncode == 0, ended.stdout


@pytest.mark.slow
def test_failed_test_shows_what_came(tmp_path: Path) -> None:
    """A test that fails shows its own requests, and what the server logged meanwhile."""
    write(tmp_path, {"test_failing.py": FAILING})
    ended = run(tmp_path, command(*PLUGIN, "-p", "no:randomly"))
    assert "1 failed, 1 passed" in ended.stdout
    requests, _, log = ended.stdout.partition("requests of this test")[2].partition(
        "log of the emulator"
    )
    assert len(re.findall(r"/v1/chat/completions.* 418", requests)) == 1
    assert len(re.findall("/v1/chat/completions", requests)) == 1
    assert len(re.findall(r"status=418", log)) == 1


@pytest.mark.slow
def test_settings_stand_in_the_configuration(tmp_path: Path) -> None:
    """The server has the settings of pytest's configuration, over which those of the line win."""
    rules = "- name: ours\n  ttft_ms: 9\n"
    write(tmp_path, {"test_s.py": SETTINGS, "pytest.ini": INI, "rules.yaml": rules})
    write(tmp_path / "below", {})
    options = ["-s", "--openai-emulator", "ttft_ms=5", ".."]
    ended = run(tmp_path / "below", command(*PLUGIN, *options))
    assert "itl 3.0 ttft 5.0 of ['one', 'two']" in ended.stdout
    assert "rules [{'name': 'ours', 'ttft_ms': 9}]" in ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_server_ends_with_a_run_that_is_cut_short(tmp_path: Path, how: signal.Signals) -> None:
    """When a run is interrupted or killed, the server ends too."""
    write(tmp_path, {"test_waits.py": WAITS})
    with subprocess.Popen(  # noqa: S603 - our own command line
        [
            "/usr/bin/env",
            "--default-signal=INT",
            *command(*PLUGIN, "-s", "-q"),
        ],  # a shell may ignore it
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as pytest_run:
        assert pytest_run.stdout is not None
        url = next(line for line in pytest_run.stdout if line.startswith("http")).strip()
        assert PLAIN.get(f"{url}/readyz").status_code == 200
        pytest_run.send_signal(how)
    assert eventually(lambda: not _answers(url), 30)


def _answers(url: str) -> bool:
    try:
        PLAIN.get(f"{url}/readyz")
    except httpx.TransportError:
        return False
    return True
