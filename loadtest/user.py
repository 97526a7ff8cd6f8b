"""The users that scenarios are made of: they send chats, check the answers and report."""

import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import gevent
from gevent import Greenlet
from gevent.pool import Group
from geventhttpclient.response import HTTPParseError
from locust import FastHttpUser, constant
from locust.contrib.fasthttp import ResponseContextManager
from locust.env import Environment

from loadtest.failures import (
    BEFORE_THE_ANSWER,
    WITHIN_THE_ANSWER,
    StreamError,
    broken_json_name,
    connection_name,
    status_name,
)
from loadtest.options import Options
from loadtest.report import E2E, StreamLog, log_tokens
from loadtest.stream import ChatStream, read_stream, usage_tokens

CHAT_PATH = "/v1/chat/completions"
MODELS_PATH = "/v1/models"
MAX_IDLE_S = 2.0
FAULT_HEADER = "x-fault-injected"  # with it the emulator says that it fails on purpose
_STREAMED_FAULTS = {"no-done"}  # a whole answer has no [DONE] to lose

Message = dict[str, Any]


@dataclass(frozen=True)
class Timing:
    """What the emulator is asked for: times in ms, and the answer's length in tokens.

    A time that is None is left to the server. With ``calls_tool``, a user's message is answered
    with a tool call, whose length is its own. With ``varies``, the length differs from request to
    request, and so names no row.
    """

    ttft_ms: float | None
    itl_ms: float | None
    output_length: int
    calls_tool: bool = False
    varies: bool = False

    def headers(self) -> dict[str, str]:
        """Return the request headers that ask for it."""
        return {
            **({} if self.ttft_ms is None else {"X-TTFT-MS": f"{self.ttft_ms:g}"}),
            **({} if self.itl_ms is None else {"X-ITL-MS": f"{self.itl_ms:g}"}),
            "X-OUTPUT-LENGTH": str(self.output_length),
            **({"X-TOOL-CALLS": "1"} if self.calls_tool else {}),
        }

    def label(self) -> str:
        """Return what the scenario's rows are named after, beside its name."""
        asked = {
            "ttft": self.ttft_ms,
            "itl": self.itl_ms,
            "n": None if self.varies else self.output_length,
        }
        return " ".join(f"{k}={v:g}" for k, v in asked.items() if v is not None)


class ChatUser(FastHttpUser):
    """A user of an OpenAI-compatible server; subclasses are the scenarios.

    Reports one request for each answer, as type ``E2E`` with the time to its last byte, and for
    streamed answers TTFT, ITL and TOKENS rows under the same name (`loadtest.report`).
    """

    abstract = True
    only_when_picked = False  # True keeps a class out of a run that names no classes and no tags
    concurrency = 10_000  # connections of one user: never what holds a request back
    model = "gpt-3.5-turbo"
    unanswered_s: ClassVar[list[float]] = []  # ages of the requests that were stopped, of all users
    injected: ClassVar[Counter[tuple[str, bool]]] = Counter()  # kinds, and if they were failures

    def __init__(self, environment: Environment) -> None:
        self.network_timeout = Options.of(environment.parsed_options).silence_s
        super().__init__(environment)

    def on_start(self) -> None:
        """Read the options: they may have changed in the web UI since the last run."""
        self.in_flight = Group()
        self.options = Options.of(self.environment.parsed_options)
        if self.client.base_url:  # OpenAI's clients want the address with /v1, locust without
            self.client.base_url = self.client.base_url.rstrip("/").removesuffix("/v1")
        self.last_used_s = time.perf_counter()

    def on_stop(self) -> None:
        """End the requests that run beside the user's own greenlet."""
        self.in_flight.kill()

    def headers(self, timing: Timing | None = None) -> dict[str, str]:
        """Return the headers of a request."""
        headers = {"Accept-Encoding": "identity"}
        if self.options.api_key:
            headers["Authorization"] = f"Bearer {self.options.api_key}"
        return headers | (timing.headers() if timing else {})

    def fault_headers(self, streamed: bool) -> dict[str, str]:
        """Return the headers that ask the emulator to fail, none if the options do not say so."""
        options = self.options
        if not options.fault_kind or (not streamed and options.fault_kind in _STREAMED_FAULTS):
            return {}
        headers = {"X-FAULT-KIND": options.fault_kind}
        if options.fault_rate is not None:
            headers["X-FAULT-PROBABILITY"] = f"{options.fault_rate:g}"
        if options.fault_after_tokens is not None:
            headers["X-FAULT-AFTER-TOKENS"] = str(options.fault_after_tokens)
        return headers

    def asked(self, timing: Timing) -> Timing | None:
        """Return what to ask the emulator for, by the options; None if it is a real server."""
        options = self.options
        if options.no_emulation_headers:
            return None
        return replace(
            timing,
            ttft_ms=_first(options.ttft_ms, None if options.server_timing else timing.ttft_ms),
            itl_ms=_first(options.itl_ms, None if options.server_timing else timing.itl_ms),
            output_length=options.output_length or timing.output_length,
        )

    def chat(
        self,
        name: str,
        timing: Timing,
        messages: Sequence[Message],
        start_s: float | None = None,
        **parameters: Any,
    ) -> None:
        """Request one completion, streamed or not by ``--stream-ratio``, and check and report it.

        Args:
            name: The scenario's name; what is asked of an emulator is added to it in the rows.
            timing: What the scenario asks for, unless options say otherwise.
            messages: The conversation.
            start_s: When the request should have been sent, on ``time.perf_counter()``: times count
                from there. The default is now.
            parameters: Further parameters of the request.
        """
        asked = self.asked(timing)
        streamed = random.random() < self.options.stream_ratio
        body = {"model": self.options.model or self.model, "messages": messages, **parameters}
        if streamed:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if asked is None:
            body[self.options.length_parameter] = self.options.output_length or timing.output_length
        data = json.dumps(body)
        start_s = time.perf_counter() if start_s is None else start_s
        self._drop_idle_connections()
        try:
            named = f"{name} {asked.label()}".rstrip() if asked else name
            self._request(named, data, streamed, asked, start_s)
        except gevent.GreenletExit:
            self.unanswered_s.append(time.perf_counter() - start_s)
            raise
        finally:
            self.last_used_s = time.perf_counter()

    def _drop_idle_connections(self) -> None:
        """Close connections that nothing was sent on for a while.

        Servers close theirs after 2 s or more, and a request that is on its way then would fail.
        """
        now_s = time.perf_counter()
        if now_s - self.last_used_s > MAX_IDLE_S:
            self.client.client.clientpool.close()
        self.last_used_s = now_s

    def _request(
        self, name: str, data: str, streamed: bool, asked: Timing | None, start_s: float
    ) -> None:
        with self.client.post(
            CHAT_PATH,
            data=data,
            headers=self.headers(asked)
            | self.fault_headers(streamed)
            | {"Content-Type": "application/json"},
            name=name,
            stream=streamed,
            catch_response=True,
        ) as response:
            response.request_meta["request_type"] = E2E
            read = self._read_streamed if streamed else self._read_whole
            try:
                end_s = read(response, start_s, asked)
                failure = None
            except StreamError as error:
                end_s, failure = time.perf_counter(), str(error)
                response.failure(failure)
            response.request_meta["response_time"] = (end_s - start_s) * 1000
            if kind := (response.headers or {}).get(FAULT_HEADER):
                self.injected[kind, failure is not None] += 1

    def start_chat(self, *arguments: Any, **parameters: Any) -> Greenlet:
        """Start a `chat` beside the user's own greenlet; it ends with the user at the latest."""
        greenlet = self.in_flight.spawn(self.chat, *arguments, **parameters)
        greenlet.link_exception(self._report_exception)
        return greenlet

    def _report_exception(self, greenlet: Greenlet) -> None:
        """Report what broke a chat as locust reports what breaks a task."""
        error = greenlet.exception
        self.environment.events.user_error.fire(
            user_instance=self, exception=error, tb=error.__traceback__
        )

    def _read_streamed(
        self, response: ResponseContextManager, start_s: float, asked: Timing | None
    ) -> float:
        """Read a streamed answer; return when it was complete."""
        self._check_status(response)
        stream = ChatStream()
        log = StreamLog(self.environment.stats, response.request_meta["name"], start_s, stream).log
        assert response._response is not None  # noqa: S101 - it has a status
        try:
            read_stream(response._response, stream, self.options.silence_s, log)
        finally:
            response.request_meta["response_length"] = stream.size
        check_stream(stream, asked.output_length if asked else None)
        return stream.done_s or time.perf_counter()

    def _read_whole(
        self, response: ResponseContextManager, _: float, asked: Timing | None
    ) -> float:
        """Read an answer that is not streamed; return when it was complete."""
        self._check_status(response)
        end_s = time.perf_counter()
        if broken := broken_json_name(response.content or b""):
            raise StreamError(broken)
        try:
            answer = response.json()
            tokens = usage_tokens(answer)
            called_tools = bool(answer["choices"][0]["message"].get("tool_calls"))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise StreamError(f"not a chat completion: {error!r}") from None
        if tokens is None:
            raise StreamError("no usage, and so no way to count the tokens")
        log_tokens(self.environment.stats, response.request_meta["name"], tokens)
        check_length(tokens, asked.output_length if asked and not called_tools else None)
        return end_s

    def _check_status(self, response: ResponseContextManager) -> None:
        """Raise what went wrong before there was an answer, or, in a whole answer, within it.

        Raises:
            StreamError: The server answered with an error, or not to the end.
        """
        error, status = response.request_meta["exception"], response.status_code
        where = WITHIN_THE_ANSWER if status == 200 else BEFORE_THE_ANSWER
        if error is not None and status in (0, 200):
            raise StreamError(connection_name(error, where, self.options.silence_s))
        if status != 200:
            raise StreamError(status_name(status, _body_of(response)))

    def list_models(self) -> None:
        """Request the list of models; it must not be empty."""
        with self.client.get(MODELS_PATH, headers=self.headers(), catch_response=True) as response:
            try:
                self._check_status(response)
                if not response.json()["data"]:
                    response.failure("no models")
            except (StreamError, ValueError, LookupError, TypeError) as error:
                response.failure(f"not a list of models: {error}")

    def check_health(self) -> None:
        """Request the emulator's health; other servers have no such address."""
        if not self.options.no_emulation_headers:
            self.client.get("/health", headers=self.headers())


class OpenLoopUser(ChatUser):
    """Starts ``--rate`` requests/s on schedule, whether or not earlier ones were answered.

    Users that wait for their answer send less to a slow server and so hide how slow it is. Here
    each request has an instant at which it is due, fixed at the start, and its times count from
    there, even if this machine is late in sending it.
    """

    abstract = True
    wait_time = constant(0)

    def on_start(self) -> None:
        """Fix the schedule; users start at random points of it, or they would beat in time."""
        super().on_start()
        self.due_s = time.perf_counter() + random.random() / self.options.rate

    def start_when_due(self, *arguments: Any, **parameters: Any) -> None:
        """Wait until the next request is due and start it, as `chat` would."""
        sleep_until(self.due_s)
        self.start_chat(*arguments, start_s=self.due_s, **parameters)
        self.due_s += 1 / self.options.rate


def sleep_until(instant_s: float) -> None:
    """Sleep until ``time.perf_counter()`` has reached `instant_s`.

    The event loop's timers are up to 1 ms late, so the last one is spent on letting others run.
    """
    gevent.sleep(max(0.0, instant_s - time.perf_counter() - 0.001))
    while time.perf_counter() < instant_s:
        gevent.sleep(0)


def _body_of(response: ResponseContextManager) -> Any:
    """Return an answer's JSON, or the text that came instead."""
    try:
        return response.json()
    except (ValueError, TypeError, OSError, HTTPParseError):
        return response.text


def _first(*values: float | None) -> float | None:
    """Return the first value that is one."""
    return next((value for value in values if value is not None), None)


def check_stream(stream: ChatStream, length: int | None) -> None:
    """Check a stream that has ended with ``[DONE]``.

    Args:
        stream: What was read.
        length: The tokens that were asked for; None if a real server decides.

    Raises:
        StreamError: It is not what was asked for.
    """
    if stream.finish_reason is None:
        raise StreamError("no finish_reason")
    if stream.called_tools:  # the arguments decide how long they are
        length = None
    check_length(stream.completion_tokens, length)
    if length is not None and len(stream.arrivals_s) != length:
        raise StreamError(f"{len(stream.arrivals_s)} events with text, asked for {length} tokens")


def check_length(tokens: int, length: int | None) -> None:
    """Check an answer's length.

    Raises:
        StreamError: It is empty, or not as long as was asked for.
    """
    if length is not None and tokens != length:
        kind = "short" if tokens < length else "long"
        raise StreamError(f"{kind} answer: {tokens} tokens, asked for {length}")
    if not tokens:
        raise StreamError("empty answer")
