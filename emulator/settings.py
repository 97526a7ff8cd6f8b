"""The operator's settings, and the limits on what callers may ask for."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

from annotated_types import MinLen
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "EMULATOR_"
MEMORY = "memory"  # the store of one server

MAX_TTFT_MS = 600_000
MAX_ITL_MS = 60_000
MAX_OUTPUT_LENGTH = 131_072
MAX_KEEPALIVE_MS = 60_000
MAX_RATE_LIMIT = 1_000_000_000
MAX_TIMER_SLACK_US = 5000
MAX_REPLICAS = 64

Policy: TypeAlias = Literal["round-robin", "least-waiting", "prefix-aware", "random"]

DEFAULT_MODELS = (
    "gpt-3.5-turbo",
    "gpt-3.5-turbo-0301",
    "gpt-3.5-turbo-0613",
    "gpt-3.5-turbo-16k",
    "gpt-4",
    "gpt-4-0314",
    "gpt-4-0613",
    "gpt-4-32k",
    "text-davinci-003",
    "text-davinci-002",
)


def _split_on_commas(value: object) -> object:
    return [item.strip() for item in value.split(",")] if isinstance(value, str) else value


def _split_or_none(value: object) -> object:
    return () if value in ("", "none") else _split_on_commas(value)


def _split_into_pairs(value: object) -> object:
    if not isinstance(value, str):
        return value
    return dict(item.strip().partition("=")[::2] for item in value.split(","))


Content = TypeVar("Content")
_Text = Annotated[str, MinLen(1)]
_Origin = Annotated[str, Field(pattern=r"^(\*|null|[a-z][a-z0-9+.-]*://[^/\s]+)$")]
_RateLimit = Annotated[int, Field(ge=1, le=MAX_RATE_LIMIT)]
# What no message, log line or answer shows.
SECRETS = frozenset({"control_key"})
_TokenCount = Annotated[int, Field(ge=0, le=MAX_OUTPUT_LENGTH)]


_LIVE: dict[str, Any] = {"changes_while_running": True}


def live(default: Any = ..., **given: Any) -> Any:  # noqa: ANN401 - as pydantic's Field
    """Return the field of something that can change while the server runs."""
    return Field(default, json_schema_extra=_LIVE, **given)


def is_live(field: FieldInfo) -> bool:
    """Tell whether the setting of this field can change while the server runs."""
    return field.json_schema_extra == _LIVE


class ConfigError(ValueError):
    """The configuration is invalid; the message names what is wrong."""


class Settings(BaseModel):
    """What the operator sets."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    ttft_ms: float = live(100, ge=0, le=MAX_TTFT_MS, description="TTFT without X-TTFT-MS, in ms")
    itl_ms: float = live(50, ge=0, le=MAX_ITL_MS, description="ITL without X-ITL-MS, in ms")
    output_length: int = live(
        20, ge=1, le=MAX_OUTPUT_LENGTH, description="tokens without X-OUTPUT-LENGTH"
    )
    max_output_length: int = live(
        MAX_OUTPUT_LENGTH, ge=1, le=MAX_OUTPUT_LENGTH, description="most tokens of one answer"
    )
    ttft_jitter: _Text | None = live(
        None, description="distribution of the TTFT without X-TTFT-JITTER"
    )
    itl_jitter: _Text | None = live(
        None, description="distribution of the gaps without X-ITL-JITTER"
    )
    head: Literal["accepted", "first-token"] = live(
        "accepted", description="when the head of a stream leaves without X-HEAD"
    )
    keepalive_ms: float = live(
        0,
        ge=0,
        le=MAX_KEEPALIVE_MS,
        description="time between comments before the first token without X-KEEPALIVE-MS, in ms",
    )
    text: Literal["english", "unicode"] = live(
        "english", description="the texts without X-TEXT: English, or many scripts with emoji"
    )
    models: Annotated[tuple[_Text, ...], BeforeValidator(_split_on_commas)] = live(
        DEFAULT_MODELS, min_length=1, description="the model list, separated by commas"
    )
    strict_models: bool = live(False, description="answer 404 for a model that is not listed")
    strict_parameters: bool = live(
        False, description="answer 400 for a parameter that OpenAI does not have"
    )
    reasoning_lengths: Annotated[dict[str, _TokenCount], BeforeValidator(_split_into_pairs)] = live(
        {}, description="hidden reasoning tokens by reasoning_effort, as low=64,high=512"
    )
    dialect: Literal["openai", "vllm"] = live(
        "openai",
        description="whose errors, events and models are told: OpenAI's or vLLM's",
    )
    vllm_flags: Annotated[
        tuple[Literal["prompt-tokens-details", "request-id-headers"], ...],
        BeforeValidator(_split_or_none),
    ] = live((), description="what a vLLM with --enable-... of these tells, with dialect=vllm")
    reasoning_content: bool = live(
        False, description="stream the reasoning tokens as delta.reasoning_content"
    )
    traces: Path | None = Field(
        None, description="folder of <name>.csv files with gaps in ms, for X-ITL-JITTER: trace:name"
    )
    rules: Path | None = Field(
        None, description="YAML file of rules: how fast, how it fails, and what it says"
    )
    unmatched: Literal["corpus", "refuse"] = live(
        "corpus", description="what a request gets that no rule with an answer decides"
    )
    rules_header: bool = live(
        True, description="whether answers name the rules that decided, in x-emulation-rules"
    )
    ignore_eos: bool = live(
        False, description="answer as long as the limit allows, as with ignore_eos in the body"
    )
    lenient: bool = live(
        False, description="let pass what OpenAI refuses and servers like vLLM do not"
    )
    engine: _Text | None = live(
        None,
        description="a preset of engines/ or a YAML file: a model of an engine makes the times",
    )
    replicas: int | None = Field(
        None, ge=1, le=MAX_REPLICAS, description="engines of each worker, behind a router; else one"
    )
    routing: Policy | None = Field(
        None, description="how the router chooses an engine, round-robin if not given"
    )
    startup_s: float = Field(
        0, ge=0, le=86_400, description="answer 503 for so long after the start, in s"
    )
    ready: bool = live(True, description="false: answer 503, as while a model loads")
    fault_headers: bool = live(
        True, description="whether a request may ask for a failure with X-FAULT-* headers"
    )
    journal: bool = Field(
        True, description="keep what the last 4,096 requests were, for GET /emulator/requests"
    )
    journal_bodies: bool = Field(
        False, description="keep the first 64 KB of their bodies too, which hold what was said"
    )
    timer_slack_us: int = Field(
        0,
        ge=0,
        le=MAX_TIMER_SLACK_US,
        description="how late a token may leave, so that it costs less, in us",
    )
    workers: int | None = Field(None, ge=1, description="worker processes; one a core by default")
    helpers: int = Field(2, ge=1, le=64, description="processes of each worker for what takes long")
    timeout_s: float = Field(
        300,
        gt=0,
        le=3600,
        description="longest wait for a body, and for the first byte of an answer, in s",
    )
    keep_alive_s: float = Field(
        120,
        gt=0,
        le=86_400,
        description="how long a connection may be idle between two requests, in s",
    )
    max_body_mb: float = Field(50, gt=0, description="largest request body, in MB of 10**6 bytes")
    cors_origins: Annotated[tuple[_Origin, ...], BeforeValidator(_split_or_none)] = live(
        ("*",),
        description="origins whose pages a browser lets read answers, separated by commas; or none",
    )

    rpm: _RateLimit | None = live(None, description="requests a minute of each key and model")
    tpm: _RateLimit | None = live(None, description="tokens a minute of each key and model")
    limits: Path | None = live(None, description="YAML file of limits by model and key")
    api_keys: Path | None = Field(None, description="YAML file of keys: others are answered 401")
    store: str = Field(
        MEMORY,
        pattern=r"^(memory|(redis|rediss|unix)://.+)$",
        description="where limits are counted and changes are kept: memory, or redis://... for "
        "several hosts",
    )
    control: Literal["local", "key", "off"] = Field(
        "local",
        description="who may use /emulator: this machine and who has the key, or only who has it",
    )
    control_key: Annotated[SecretStr, Field(min_length=16, max_length=512)] | None = Field(
        None, description="key that opens /emulator, as a Bearer; 16 characters at least"
    )

    @model_validator(mode="after")
    def _control_has_its_key(self) -> Self:
        if self.control == "key" and self.control_key is None:
            raise ValueError("control_key must be set with control=key")
        return self

    @model_validator(mode="after")
    def _replicas_have_an_engine(self) -> Self:
        for name in ("replicas", "routing"):
            if self.engine is None and getattr(self, name) is not None:
                raise ValueError(f"{name} needs the setting engine: without one there is no queue")
        return self

    @model_validator(mode="after")
    def _bodies_have_a_journal(self) -> Self:
        if self.journal_bodies and not self.journal:
            raise ValueError("journal must not be false with journal_bodies=true")
        return self

    @model_validator(mode="after")
    def _opening_is_possible(self) -> Self:
        if self.head == "first-token" and self.keepalive_ms:
            raise ValueError("keepalive_ms must be 0 with head=first-token: no comment can leave")
        return self

    @model_validator(mode="after")
    def _default_fits_limit(self) -> Self:
        if self.output_length > self.max_output_length:
            raise ValueError(
                f"output_length must be at most max_output_length ({self.max_output_length}), "
                f"but is {self.output_length}"
            )
        return self

    @property
    def shows_reasoning(self) -> bool:
        """Whether streams and answers show their reasoning."""
        return self.reasoning_content or self.dialect == "vllm"

    def read(self, name: str, reader: Callable[[Any], Content]) -> Content | None:
        """Read the file that a setting names; return None if it is not set.

        Raises:
            ConfigError: The file is invalid; the message names the setting.
        """
        try:
            return None if (value := getattr(self, name)) is None else reader(value)
        except (OSError, ValueError) as error:
            raise ConfigError(f"The setting '{name}': {error}") from None


class _Given(Settings, BaseSettings):
    """What no argument says is read from ``EMULATOR_<NAME>``; to look there takes milliseconds."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        env_prefix=PREFIX,
        env_ignore_empty=True,
        enable_decoding=False,  # a list is written as in an argument, not as JSON
    )


# Kubernetes sets these variables in each pod if a Service is called "emulator".
_SERVICE_LINK = re.compile(r"(service_host|service_port(_\w+)?|port(_\w+)?)")


def _written(name: str) -> str:
    return f"--arg {name}="


def read_settings(
    arguments: Mapping[str, object],
    built: Mapping[str, object] | None = None,
    written: Callable[[str], str] = _written,
) -> Settings:
    """Return the settings: arguments win over the environment, and it over what was built in.

    Args:
        arguments: The command line's, by name.
        built: The arguments that a bento was built with.
        written: Returns how an argument is given, before its value.

    Raises:
        ConfigError: A value is wrong, or a name is no setting's.
    """
    variables = _variables()
    kept = {name: value for name, value in (built or {}).items() if not variables.get(name)}
    sources = {
        **{name: f"{_variable(name)}={_shown(name, value)}" for name, value in variables.items()},
        **{name: f"the bento's own {name}={_shown(name, value)}" for name, value in kept.items()},
        **{name: f"{written(name)}{_shown(name, value)}" for name, value in arguments.items()},
    }
    unknown = [name for name in sources if name not in Settings.model_fields]
    if unknown:
        raise ConfigError("\n".join(_no_setting(name, sources[name]) for name in unknown))
    given: dict[str, Any] = {**kept, **arguments}
    try:
        return Settings(**dict(_Given(**given)))
    except ValidationError as error:
        raise ConfigError("\n".join(_faults(error, sources))) from None


def _shown(name: str, value: object) -> object:
    return "***" if name in SECRETS else value


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _variables() -> dict[str, str]:
    """Return the environment's variables with our prefix, by what follows it in lower case."""
    found = {
        name.upper().removeprefix(PREFIX).lower(): value
        for name, value in os.environ.items()
        if name.upper().startswith(PREFIX)
    }
    return {name: value for name, value in found.items() if not _SERVICE_LINK.fullmatch(name)}


def _no_setting(name: str, source: str) -> str:
    (nearest,) = get_close_matches(name.lower(), Settings.model_fields, n=1, cutoff=0)
    shown = _variable(nearest) if source.startswith(PREFIX) else nearest
    return f"{source}: no setting has this name; the nearest is {shown}"


def _faults(error: ValidationError, sources: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong, one line for each fault."""
    for fault in error.errors():
        name, *within = map(str, fault["loc"] or ("",))
        place = f" ({'.'.join(within)})" if within else ""
        message = fault["msg"].removeprefix("Value error, ")
        yield f"{sources[name]}{place}: {message}" if name in sources else message
