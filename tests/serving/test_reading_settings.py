"""Where settings come from: arguments, the environment, what a bento was built with."""

import pytest

from emulator.settings import ConfigError, Settings, read_settings

# A text for each setting that is not its default.
TEXTS = {
    "ttft_ms": "12.5",
    "itl_ms": "7",
    "output_length": "3",
    "max_output_length": "300",
    "ttft_jitter": "normal:0.2",
    "itl_jitter": "uniform:0.5",
    "head": "first-token",
    "keepalive_ms": "0.5",
    "text": "unicode",
    "models": "a, b/c",
    "strict_models": "true",
    "strict_parameters": "1",
    "reasoning_lengths": "low=64,high=512",
    "dialect": "vllm",
    "vllm_flags": "request-id-headers",
    "reasoning_content": "yes",
    "traces": "traces",
    "rules": "rules.yaml",
    "unmatched": "refuse",
    "rules_header": "false",
    "ignore_eos": "on",
    "lenient": "true",
    "engine": "paper",
    "replicas": "3",
    "routing": "random",
    "startup_s": "2.5",
    "ready": "false",
    "fault_headers": "false",
    "journal": "false",
    "journal_bodies": "true",
    "timer_slack_us": "500",
    "workers": "1",
    "helpers": "3",
    "timeout_s": "30",
    "keep_alive_s": "75",
    "max_body_mb": "1.5",
    "cors_origins": "none",
    "rpm": "3",
    "tpm": "1000",
    "limits": "limits.yaml",
    "api_keys": "keys.yaml",
    "store": "redis://host:6379/0",
    "control": "off",
    "control_key": "a-key-of-16-characters",
}

# Settings that count only with others.
NEEDED = {"replicas": {"engine": "paper"}, "routing": {"engine": "paper", "replicas": "2"}}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Return what sets variables for a test."""
    return monkeypatch


def test_every_setting_has_a_text() -> None:
    """The table above has a text for each setting, so that what follows tries them all."""
    assert list(TEXTS) == list(Settings.model_fields)


@pytest.mark.parametrize("name", TEXTS)
def test_environment_reads_as_an_argument_does(name: str, environment: pytest.MonkeyPatch) -> None:
    """A variable says the same as an argument of the same text."""
    needed = NEEDED.get(name, {})
    without, by_argument = read_settings(needed), read_settings({**needed, name: TEXTS[name]})
    environment.setenv(f"EMULATOR_{name.upper()}", TEXTS[name])
    assert read_settings(needed) == by_argument != without


def test_argument_wins_over_the_environment(environment: pytest.MonkeyPatch) -> None:
    """Where argument and variable differ, the argument counts."""
    environment.setenv("EMULATOR_TTFT_MS", "700")
    assert read_settings({"ttft_ms": "300"}).ttft_ms == 300


def test_environment_wins_over_what_was_built_in(environment: pytest.MonkeyPatch) -> None:
    """Where a variable and the arguments of `bentoml build` differ, the variable counts."""
    environment.setenv("EMULATOR_TTFT_MS", "700")
    read_ = read_settings({}, built={"ttft_ms": "300", "itl_ms": "9"})
    assert (read_.ttft_ms, read_.itl_ms) == (700, 9)


def test_empty_variable_says_nothing(environment: pytest.MonkeyPatch) -> None:
    """A variable without a value, as Compose makes it of `${RPM:-}`, leaves what there would be."""
    environment.setenv("EMULATOR_TTFT_MS", "")
    environment.setenv("EMULATOR_ITL_MS", "")
    read_ = read_settings({}, built={"itl_ms": "9"})
    assert (read_.ttft_ms, read_.itl_ms) == (100, 9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EMULATOR_SERVICE_HOST", "10.0.0.1"),
        ("EMULATOR_SERVICE_PORT", "3000"),
        ("EMULATOR_SERVICE_PORT_HTTP", "3000"),
        ("EMULATOR_PORT", "tcp://10.0.0.1:3000"),
        ("EMULATOR_PORT_3000_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_service_links_are_no_settings(
    name: str, value: str, environment: pytest.MonkeyPatch
) -> None:
    """What Kubernetes sets for a Service called "emulator" does not stop the start."""
    environment.setenv(name, value)
    assert read_settings({}).ttft_ms == 100


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (
            {"ttft_ms": "-1"},
            {},
            "--arg ttft_ms=-1: Input should be greater than or equal to 0",
        ),
        (
            {},
            {"EMULATOR_TTFT_MS": "-1"},
            "EMULATOR_TTFT_MS=-1: Input should be greater than or equal to 0",
        ),
        (
            {"tttf_ms": "1"},
            {},
            "--arg tttf_ms=1: no setting has this name; the nearest is ttft_ms",
        ),
        (
            {},
            {"EMULATOR_TTFT": "1"},
            "EMULATOR_TTFT=1: no setting has this name; the nearest is EMULATOR_TTFT_MS",
        ),
        (
            {},
            {"EMULATOR_RPMS": ""},
            "EMULATOR_RPMS=: no setting has this name; the nearest is EMULATOR_RPM",
        ),
        (
            {"workers": "0"},
            {"EMULATOR_RPM": "x"},
            "--arg workers=0: Input should be greater than or equal to 1\n"
            "EMULATOR_RPM=x: Input should be a valid integer, unable to parse string as an integer",
        ),
        (
            {"reasoning_lengths": "low=many"},
            {},
            "--arg reasoning_lengths=low=many (low): Input should be a valid integer, "
            "unable to parse string as an integer",
        ),
        (
            {},
            {"EMULATOR_MAX_OUTPUT_LENGTH": "19"},
            "output_length must be at most max_output_length (19), but is 20",
        ),
    ],
)
def test_what_is_wrong_is_named(
    arguments: dict[str, str],
    variables: dict[str, str],
    message: str,
    environment: pytest.MonkeyPatch,
) -> None:
    """The message has a line for each fault, with the argument or variable and what it holds."""
    for name, value in variables.items():
        environment.setenv(name, value)
    with pytest.raises(ConfigError) as raised:
        read_settings(arguments)
    assert sorted(str(raised.value).split("\n")) == sorted(message.split("\n"))


def test_fault_of_a_build_is_named() -> None:
    """A setting that was built into the bento is blamed as such."""
    with pytest.raises(ConfigError, match=r"^the bento's own ttft_ms=-1: "):
        read_settings({}, built={"ttft_ms": "-1"})
