"""What the caller asks for: options on locust's command line and in the form of its web UI."""

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


_COUNT = Number(int, "a whole number of at least 1", lambda number: number >= 1)
_POSITIVE = Number(float, "a number over 0", lambda number: 0 < number < inf)
_NOT_NEGATIVE = Number(float, "a number of at least 0", lambda number: 0 <= number < inf)
_SHARE = Number(float, "a number from 0 to 1", lambda number: 0 <= number <= 1)


def _option(kind: type | Number, default: Any, explanation: str, **arguments: Any) -> Any:
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
    max_ttft_p99_ms: float | None = _option(_NOT_NEGATIVE, None, "limit for each TTFT row, in ms")
    max_itl_p99_ms: float | None = _option(_NOT_NEGATIVE, None, "limit for each ITL row, in ms")
    max_error_rate: float | None = _option(_SHARE, None, "limit for failed / all requests, 0 to 1")
    min_tokens_per_s: float | None = _option(
        _NOT_NEGATIVE, None, "limit for the whole run's tokens/s"
    )

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
