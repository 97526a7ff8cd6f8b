"""The options of the command ``openai-api-emulator serve``."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.settings import SECRETS, Settings
from openai_api_emulator.running.options import OptionsError, launch, parse
from tests.support.server import REPOSITORY, clean_environment

HOME = {"BENTOML_HOME": "/home"}


def words_of(*options: str, **environment: str) -> list[str]:
    """Return the arguments of Python for a command line."""
    return launch(parse(["serve", *options]), {**HOME, **environment})[0]


def variables_of(*options: str, **environment: str) -> dict[str, str]:
    """Return the variables for a command line."""
    return launch(parse(["serve", *options]), {**HOME, **environment})[1]


def helped() -> str:
    """Return what --help prints, in one line."""
    ended = subprocess.run(
        [sys.executable, "-m", "openai_api_emulator", "serve", "--help"],
        cwd=REPOSITORY,
        env=clean_environment({"COLUMNS": "1000"}),
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout


def test_help_tells_every_setting() -> None:
    """--help has every setting as an option, with its description and its default."""
    lines = dict(re.findall(r"^ +(--[\w-]+)(?: \S+)?\s{2,}(.+)$", helped(), re.MULTILINE))
    for name, field in Settings.model_fields.items():
        told = lines.pop(f"--{name.replace('_', '-')}")
        assert told.startswith(f"{field.description} (")
        assert (
            isinstance(field.default, bool | tuple | dict)
            or str(field.default) in told
            or (field.default is None and told.endswith("(none)"))
        )
    assert set(lines) == {"--host", "--port"}


def test_options_become_arguments() -> None:
    """Host, port and settings are those of `bentoml serve` of the service."""
    assert words_of("--ttft-ms", "20", "--workers=1", "--port", "3001") == [
        *["-m", "bentoml", "serve", "service.py:OpenAIEmulator"],
        *["--host", "127.0.0.1", "--port", "3001"],
        *["--arg", "ttft_ms=20", "--arg", "workers=1"],
    ]


@pytest.mark.parametrize("value", ["--lenient", "--lenient=true"])
def test_switch_needs_no_value(value: str) -> None:
    """A setting that is true or false is true where its option stands alone."""
    assert words_of(value)[-1] == "lenient=true"


@pytest.mark.parametrize(
    ("option", "shown"),
    [
        ("--rules=a/rules.yaml", "rules={here}/a/rules.yaml"),
        ("--rules=/b/rules.yaml", "rules=/b/rules.yaml"),
        ("--engine=my.yaml", "engine={here}/my.yaml"),
        ("--engine=paper", "engine=paper"),
        ("--store=redis://a", "store=redis://a"),
    ],
)
def test_files_are_looked_for_where_one_is(option: str, shown: str) -> None:
    """A relative path starts at the current folder, not at the service's."""
    assert words_of(option)[-1] == shown.format(here=Path.cwd())


def test_files_in_the_environment_are_looked_for_where_one_is() -> None:
    """A relative path in a variable starts at the current folder too."""
    assert variables_of(EMULATOR_LIMITS="limits.yaml")["EMULATOR_LIMITS"] == str(
        Path.cwd() / "limits.yaml"
    )


def test_secret_stands_on_no_command_line() -> None:
    """A key that is given as an option reaches the server in its environment."""
    key = "a-key-of-twenty-characters"
    assert "control_key" in SECRETS
    assert key not in " ".join(words_of("--control-key", key))
    assert variables_of("--control-key", key)["EMULATOR_CONTROL_KEY"] == key


@pytest.mark.parametrize(
    ("options", "environment", "told"),
    [
        (["--ttft-ms", "-1"], {}, "--ttft-ms=-1: Input should be greater than or equal to 0"),
        (["--control=key"], {}, "control_key must be set with control=key"),
        (["--control-key=short"], {}, "--control-key=***: "),
        (["--ttft=1"], {}, "--ttft=1: there is no such option; the nearest is --ttft-ms"),
    ],
)
def test_bad_options_are_told(options: list[str], environment: dict[str, str], told: str) -> None:
    """A bad value is told in the settings' words, a bad option with the nearest that there is."""
    with pytest.raises(OptionsError, match=re.escape(told)):
        words_of(*options, **environment)


def test_bad_variable_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad value in the environment is told as one."""
    monkeypatch.setenv("EMULATOR_ITL_MS", "fast")
    with pytest.raises(OptionsError, match=r"^EMULATOR_ITL_MS=fast: "):
        words_of()


def test_command_ends_with_what_is_wrong() -> None:
    """The command prints what is wrong, with no traceback, and ends with status 2."""
    ended = subprocess.run(
        [sys.executable, "-m", "openai_api_emulator", "serve", "--itl-ms", "x"],
        cwd=REPOSITORY,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert re.fullmatch(r"--itl-ms=x: Input should be a valid number.*\n", ended.stderr)


def test_each_port_has_a_home(tmp_path: Path) -> None:
    """Servers on two ports share no home of BentoML's, unless one is given."""
    cache = {"BENTOML_HOME": "", "XDG_CACHE_HOME": str(tmp_path)}
    homes = [variables_of("--port", port, **cache)["BENTOML_HOME"] for port in ("3000", "3001")]
    assert len(set(homes)) == 2
    assert all(Path(home).is_relative_to(tmp_path) and Path(home).is_dir() for home in homes)
    assert variables_of()["BENTOML_HOME"] == "/home"


def test_home_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A cache that cannot be written is told, with what to do."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(OptionsError, match="set BENTOML_HOME to a folder that can be written"):
        variables_of(BENTOML_HOME="", XDG_CACHE_HOME=str(tmp_path / "cache"))
