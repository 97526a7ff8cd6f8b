"""What the caller asks for: options on locust's command line and in the form of its web UI."""

import re
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from math import inf, nan
from typing import Any

from locust.argument_parser import LocustArgumentParser


@dataclass(frozen=True)
class Number:
    """A kind of number, and what it may be."""

    kind: type[int] | type[float]
    expected: str
    allows: Callable[[float], bool]

    def __call__(self, given: Any) -> float:
        """Return the number that a text, or a number, stands for.

        Raises:
            ArgumentTypeError: It is none, or out of range; the message says what was expected.
        """
        try:
            number: float = self.kind(given)
        except ValueError:
            number = nan
        if not self.allows(number):
            raise ArgumentTypeError(f"must be {self.expected}, not {str(given)!r}")
        return number


@dataclass(frozen=True)
class Word:
    """A text of letters, digits and dashes, as a header's value may be."""

    expected: str

    def __call__(self, given: Any) -> str:
        """Return the text.

        Raises:
            ArgumentTypeError: It is something else.
        """
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,63}", str(given)):
            raise ArgumentTypeError(f"must be {self.expected}, not {str(given)!r}")
        return str(given)


_COUNT = Number(int, "a whole number of at least 1", lambda number: number >= 1)
_POSITIVE = Number(float, "a number over 0", lambda number: 0 < number < inf)
_NOT_NEGATIVE = Number(float, "a number of at least 0", lambda number: 0 <= number < inf)
_SHARE = Number(float, "a number from 0 to 1", lambda number: 0 <= number <= 1)


_COUNT_OR_NONE = Number(int, "a whole number of at least 0", lambda number: number >= 0)
_FAULT = Word("the name of a fault, such as close or no-done")


def _option(kind: type | Number | Word, default: Any, explanation: str, **arguments: Any) -> Any:
    """Return a field of `Options` that `add_options` makes an option of."""
    arguments |= {"help": explanation, "default": default}
    arguments |= {"action": "store_true"} if kind is bool else {"type": kind}
    return field(default=default, metadata={"kind": kind, "arguments": arguments})


@dataclass(frozen=True)
class Options:
    """The options of a run; None where the scenario's own value counts, or no limit."""

    ttft_ms: float | None = _option(_NOT_NEGATIVE, None, "time to first token, in ms")
    itl_ms: float | None = _option(_NOT_NEGATIVE, None, "inter-token latency, in ms")
    output_length: int | None = _option(_COUNT, None, "tokens in each answer")
    server_timing: bool = _option(
        bool, False, "ask the emulator for lengths alone: its own settings or engine sets the times"
    )
    no_emulation_headers: bool = _option(
        bool, False, "send no X-* headers, for a real server; --output-length then caps the answers"
    )
    length_parameter: str = _option(
        str,
        "max_completion_tokens",
        "how a real server is told the length; older ones know max_tokens only",
        choices=["max_completion_tokens", "max_tokens"],
    )
    model: str | None = _option(str, None, "model of every request")
    api_key: str | None = _option(
        str, None, "sent as a bearer token", env_var="LOCUST_API_KEY", is_secret=True
    )
    stream_ratio: float = _option(_SHARE, 0.9, "share of the answers that are streamed, 0 to 1")
    prompt_words: int = _option(_COUNT, 1500, "words in a prompt of RetrievalUser")
    image_kb: float = _option(_POSITIVE, 64.0, "size of an image of VisionUser, in 1,000 bytes")
    image_url: str = _option(
        str, "https://example.com/cat.png", "image that VisionUser names by its URL"
    )
    rate: float = _option(_POSITIVE, 1.0, "requests/s that each SteadyRateUser starts")
    burst_size: int = _option(_COUNT, 10, "requests that a BurstUser sends at once")
    silence_s: float = _option(
        _POSITIVE, 300.0, "how long nothing may come before a request has failed, in seconds"
    )
    fault_kind: str | None = _option(
        _FAULT, None, "have the emulator fail on purpose: its kind of fault, such as close"
    )
    fault_rate: float | None = _option(
        _SHARE, None, "share of the requests that --fault-kind is for, 0 to 1; all without it"
    )
    fault_after_tokens: int | None = _option(
        _COUNT_OR_NONE, None, "tokens before the fault of --fault-kind"
    )
    trace: str | None = _option(
        str,
        None,
        "file that TraceUser replays: Azure LLM (CSV), BurstGPT (CSV) or Mooncake (JSONL)",
        include_in_web_ui=False,
    )
    trace_speed: float = _option(_POSITIVE, 1.0, "how many times as fast the trace is replayed")
    trace_limit: int | None = _option(_COUNT, None, "replay the trace's first so many requests")
    no_ignore_eos: bool = _option(
        bool, False, "replay on a real server without `ignore_eos`: answers may be shorter"
    )
    max_ttft_p99_ms: float | None = _option(_NOT_NEGATIVE, None, "limit for each TTFT row, in ms")
    max_itl_p99_ms: float | None = _option(_NOT_NEGATIVE, None, "limit for each ITL row, in ms")
    max_error_rate: float | None = _option(_SHARE, None, "limit for failed / all requests, 0 to 1")
    min_tokens_per_s: float | None = _option(
        _NOT_NEGATIVE, None, "limit for the whole run's tokens/s"
    )

    def __post_init__(self) -> None:
        """Check what belongs together.

        Raises:
            ValueError: An option lacks the one that it says more about.
        """
        for name in ("fault_rate", "fault_after_tokens"):
            if getattr(self, name) is not None and self.fault_kind is None:
                raise ValueError(f"{flag(name)} needs {flag('fault_kind')}")

    @classmethod
    def of(cls, parsed: Namespace | None) -> "Options":
        """Return the options as locust holds them.

        The web UI's form hands over text for an option without a default, and empty text for one
        that was left alone.

        Raises:
            ValueError: One is not what was expected; the message names it.
        """
        given = vars(parsed) if parsed else {}
        return cls(
            **{
                option.name: _convert(option, given[option.name])
                for option in fields(cls)
                if option.name in given
            }
        )


def flag(name: str) -> str:
    """Return an option as it is written on the command line.

    >>> flag("ttft_ms")
    '--ttft-ms'
    """
    return "--" + name.replace("_", "-")


def _convert(option: Field[Any], value: Any) -> Any:
    if value is None or (value == "" and option.default is None):
        return option.default
    choices = option.metadata["arguments"].get("choices")
    if choices and value not in choices:
        raise ValueError(f"{flag(option.name)} must be {' or '.join(choices)}, not {value!r}")
    try:
        return option.metadata["kind"](value)
    except ArgumentTypeError as error:
        raise ValueError(f"{flag(option.name)} {error}") from None


def add_options(parser: LocustArgumentParser) -> None:
    """Add the options to locust's command line, which is where its web UI takes them from."""
    for option in fields(Options):
        parser.add_argument(flag(option.name), **option.metadata["arguments"])
