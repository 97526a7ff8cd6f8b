"""Asking a server: what it says of itself, and streamed answers by the load kit's reading."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError
from prometheus_client.parser import text_string_to_metric_families

from loadtest.failures import BEFORE_THE_ANSWER, StreamError, connection_name, status_name
from loadtest.prompts import CHAT_TOKENS, text
from loadtest.stream import ChatStream, read_stream
from loadtest.twin.sweep import Known, Request, TwinError

MAX_CONNECTIONS = 65_536
MAX_BODY_BYTES = 8_000_000
SILENCE_S = 120.0
_PROBE_TOKENS = 64
_COUNT_TRIES = 4


class ProbedStream(ChatStream):
    """A stream that also notes the lengths that the server's usage tells of the prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt_tokens: int | None = None
        self.cached_tokens = 0

    def _note(self, chunk: dict[str, Any]) -> str | None:
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self.prompt_tokens = usage.get("prompt_tokens", self.prompt_tokens)
            details = usage.get("prompt_tokens_details") or {}
            self.cached_tokens = details.get("cached_tokens") or 0
        return super()._note(chunk)


@dataclass
class Client:
    """A client of one server.

    ``excess_tokens`` is what a prompt has, by the server's count, beside the words of its content.

    Args:
        url: With or without /v1.
        model: Of every request.
        api_key: Sent as a bearer token.
        log: Told what the user should know.
    """

    url: str
    model: str
    api_key: str | None = None
    log: Callable[[str], None] = print
    excess_tokens: int = CHAT_TOKENS
    ignores_eos: bool = True
    _number: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Connect to nothing yet, but check the address.

        Raises:
            TwinError: It is no address of an HTTP server.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TwinError(f"--url: expected http://host:port/v1, but got {self.url!r}")
        self._root = parts.path.rstrip("/").removesuffix("/v1")
        self._number = time.time_ns() >> 10  # no prompt of an earlier sweep comes again
        self._http = HTTPClient.from_url(
            f"{parts.scheme}://{parts.netloc}",
            concurrency=MAX_CONNECTIONS,
            connection_timeout=10.0,
            network_timeout=SILENCE_S,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        self._http.close()

    # ------------------------------------------------------------------------------
    # One streamed answer
    # ------------------------------------------------------------------------------

    def ask(self, prompt_tokens: int, output_tokens: int, shared: bool = False) -> Request:
        """Return a streamed answer to a prompt of that length; its times are on `perf_counter`.

        Raises:
            StreamError: There was no such answer; the message names the failure.
        """
        stream = ProbedStream()
        start_s = self._stream(self._body(prompt_tokens, output_tokens, shared), stream)
        if not stream.arrivals_s:
            raise StreamError("empty answer")
        return Request.of(
            start_s,
            stream.arrivals_s,
            prompt_tokens=stream.prompt_tokens or prompt_tokens,
            output_tokens=stream.completion_tokens,
            cached_tokens=min(stream.cached_tokens, prompt_tokens),
        )

    def _body(self, prompt_tokens: int, output_tokens: int, shared: bool) -> dict[str, Any]:
        self._number += 1
        words = max(prompt_tokens - self.excess_tokens, 1)
        content = text(words, (), 0 if shared else self._number)
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": output_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"ignore_eos": True} if self.ignores_eos else {}),
        }

    def _stream(self, body: dict[str, Any], stream: ProbedStream) -> float:
        """Feed a stream; return the instant at which its request was sent."""
        data = json.dumps(body).encode()
        start_s = time.perf_counter()
        try:
            response = self._send("POST", "/v1/chat/completions", data)
        except (OSError, HTTPParseError) as error:
            raise StreamError(connection_name(error, BEFORE_THE_ANSWER, SILENCE_S)) from None
        if response.status_code != 200:
            raise StreamError(status_name(response.status_code, _json(response.read())))
        kind = str(response.get("content-type", ""))
        if not kind.startswith("text/event-stream"):
            response.release()
            raise StreamError(f"no stream: the answer's type is {kind or 'missing'}")
        read_stream(response, stream, SILENCE_S, lambda: None)
        return start_s

    def _send(self, method: str, path: str, data: bytes = b"") -> Any:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return self._http.request(method, self._root + path, data, headers)

    # ------------------------------------------------------------------------------
    # What the server is
    # ------------------------------------------------------------------------------

    def probe(self) -> Known:
        """Return what the server says of itself; learn how it counts, and if it ignores the end.

        Raises:
            TwinError: It is not there, refuses, or does not stream.
        """
        counted_by = self._learn_counting()
        self._learn_to_ignore_eos()
        facts = self._facts()
        self.log(f"prompts are counted by {counted_by}")
        return Known(
            url=self.url,
            model=self.model,
            measured=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            counted_by=counted_by,
            notes=() if self.ignores_eos else ("the server knows no ignore_eos",),
            **facts,
        )

    def _learn_counting(self) -> str:
        """Find out how many tokens a prompt has beside its words; return who says so."""
        told = None
        for _ in range(_COUNT_TRIES):
            stream = ProbedStream()
            try:
                self._stream(self._body(_PROBE_TOKENS, 2, shared=False), stream)
            except StreamError as error:
                if not self.ignores_eos or "ignore_eos" not in str(error):
                    raise TwinError(f"{self.url}: {error}") from None
                self.ignores_eos = False
                continue
            told = stream.prompt_tokens
            break
        if told is None:
            self.log("the server tells no usage: prompts are as long as tiktoken says")
            return "tiktoken's o200k_base"
        self.excess_tokens += told - _PROBE_TOKENS
        return "the server's usage"

    def _learn_to_ignore_eos(self) -> None:
        try:
            answer = self.ask(_PROBE_TOKENS, _PROBE_TOKENS)
        except StreamError as error:
            raise TwinError(f"{self.url}: {error}") from None
        if answer.output_tokens < _PROBE_TOKENS:
            self.ignores_eos = False
            self.log(
                f"ignore_eos has no effect: an answer of {_PROBE_TOKENS} tokens had "
                f"{answer.output_tokens}. Answers are as long as the server makes them"
            )

    def _facts(self) -> dict[str, Any]:
        """Return what vLLM's metrics say of its cache, nothing of another server."""
        try:
            response = self._send("GET", "/metrics")
            body = response.read(MAX_BODY_BYTES)
            if response.status_code != 200:
                return {}
            families = list(text_string_to_metric_families(bytes(body).decode()))
        except (OSError, HTTPParseError, ValueError):
            return {}
        busy = sum(
            s.value for f in families if f.name == "vllm:num_requests_running" for s in f.samples
        )
        if busy:
            self.log(
                f"{busy:.0f} requests of others run on the server: what they cost is measured too"
            )
        for family in families:
            if family.name == "vllm:cache_config_info" and family.samples:
                labels = family.samples[0].labels
                facts = {
                    "kv_blocks": _number(labels.get("num_gpu_blocks")),
                    "block_size": _number(labels.get("block_size")),
                    "max_num_seqs": _number(labels.get("max_num_seqs")),
                }
                caching = labels.get("enable_prefix_caching")
                known = {} if caching is None else {"prefix_caching": caching == "True"}
                return {name: value for name, value in facts.items() if value} | known
        return {}


def _number(label: str | None) -> int | None:
    return int(label) if label and label.isdecimal() else None


def _json(body: bytes | bytearray) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return bytes(body[:200]).decode(errors="replace")
