"""What the caller asks for: options on locust's command line and in the form of its web UI."""

from argparse import Namespace
from dataclasses import dataclass, field, fields
from typing import Any

from locust.argument_parser import LocustArgumentParser


def _option(kind: type, default: Any, explanation: str, **arguments: Any) -> Any:
    """Return a field of `Options` that `add_options` makes an option of."""
    arguments |= {"help": explanation, "default": default}
    arguments |= {"action": "store_true"} if kind is bool else {"type": kind}
    return field(default=default, metadata={"kind": kind, "arguments": arguments})


@dataclass(frozen=True)
class Options:
    """The options of a run; None where the scenario's own value counts, or no limit."""

    ttft_ms: float | None = _option(float, None, "time to first token, in ms")
    itl_ms: float | None = _option(float, None, "inter-token latency, in ms")
    output_length: int | None = _option(int, None, "tokens in each answer")
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
    stream_ratio: float = _option(float, 0.9, "share of the answers that are streamed, 0 to 1")
    prompt_words: int = _option(int, 1500, "words in a prompt of RetrievalUser")
    image_kb: float = _option(float, 64.0, "size of an image of VisionUser, in 1,000 bytes")
    image_url: str = _option(
        str, "https://example.com/cat.png", "image that VisionUser names by its URL"
    )
    rate: float = _option(float, 1.0, "requests/s that each SteadyRateUser starts")
    burst_size: int = _option(int, 10, "requests that a BurstUser sends at once")
    max_ttft_p99_ms: float | None = _option(float, None, "limit for each TTFT row, in ms")
    max_itl_p99_ms: float | None = _option(float, None, "limit for each ITL row, in ms")
    max_error_rate: float | None = _option(float, None, "limit for failed / all requests, 0 to 1")
    min_tokens_per_s: float | None = _option(float, None, "limit for the whole run's tokens/s")

    @classmethod
    def of(cls, parsed: Namespace | None) -> "Options":
        """Return the options as locust holds them.

        The web UI's form hands over text for an option without a default, and empty text for one
        that was left alone.

        Raises:
            ValueError: A number was expected.
        """
        given = vars(parsed) if parsed else {}
        return cls(
            **{
                option.name: _convert(option.name, option.metadata["kind"], given[option.name])
                for option in fields(cls)
                if given.get(option.name) not in (None, "")
            }
        )


def flag(name: str) -> str:
    """Return an option as it is written on the command line.

    >>> flag("ttft_ms")
    '--ttft-ms'
    """
    return "--" + name.replace("_", "-")


def _convert(name: str, kind: type, value: Any) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"{flag(name)} must be a number, not {value!r}") from None


def add_options(parser: LocustArgumentParser) -> None:
    """Add the options to locust's command line, which is where its web UI takes them from."""
    for option in fields(Options):
        parser.add_argument(flag(option.name), **option.metadata["arguments"])
