"""From a request to the failure that it is to get, and from that to the response."""

import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from emulator import metrics
from emulator.contract.error_words import header_error, invalid_header
from emulator.contract.errors import APIError
from emulator.faults.asking import FaultHeaders, header_contradiction
from emulator.faults.attempts import Attempts
from emulator.faults.deciding import Call, Fault, decide, first_match, kind_of
from emulator.faults.kinds import KINDS
from emulator.faults.rules import Rule
from emulator.faults.statuses import error_body
from emulator.injection.faulty_answers import (
    Failure,
    FaultyAnswer,
    FaultyStream,
    Place,
    StreamToFail,
    Whole,
    instant_s,
    wait_until,
)
from emulator.limits.keys import key_of
from emulator.metrics import TALLY
from emulator.serving.generation import Generation
from emulator.settings import Settings
from emulator.transport.direct_write import RawHeaders
from emulator.transport.sending import ended_by_disconnect, openai_headers
from emulator.transport.socket_control import Connection, NoConnectionError
from tokenizer import TokenGenerator

FAULTS = {name: metrics.FAULTS.labels(name) for name in KINDS}

KIND = "X-FAULT-KIND"
_RETRIES = "x-stainless-retry-count"
_ATTEMPTS = "x-envoy-attempt-count"


def refuse_time_in_engine(fault: Fault | None) -> None:
    """Refuse a failure at a time that an engine would have to foresee.

    Raises:
        APIError: It is at a time, and no status in the answer's place.
    """
    if fault is None or fault.after_s is None or fault.kind.refuses(stream=True):
        return
    raise invalid_header(
        "X-FAULT-AFTER-MS",
        "expected X-TTFT-MS or X-ITL-MS beside it, as without them an engine makes the times of "
        "this server, but got neither",
    )


class Injector:
    """Decides which answers fail, and makes them.

    Args:
        settings: Whether headers may ask, and for how long a connection may stay silent.
        rules: Those of the operator.
    """

    def __init__(self, settings: Settings, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._allows_headers = settings.fault_headers
        self._timeout_s = settings.timeout_s

    @cached_property
    def _attempts(self) -> Attempts:
        # All workers of a server share this folder, and BentoML empties it at the start.
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR") or tempfile.mkdtemp()
        return Attempts(Path(folder) / "fault_attempts")

    def decide(self, request: Request, body: BaseModel) -> Fault | None:
        """Return the failure that a request is to get; most get none.

        Args:
            request: The HTTP request, whose X-* headers have been read.
            body: Its body, with a model and, where the API has them, stream, user and seed.

        Raises:
            APIError: A header is no good, contradicts another, or is refused on this server.
        """
        given: Mapping[str, str] | None = request.scope.get("fault_headers")
        if given is None and not self._rules:
            return None
        call = _call(request, body)
        wish: FaultHeaders | Rule
        if given is not None:
            wish = self._read(given, call)
            name, key = KIND, wish.key and f"key {wish.key}"
        else:
            found = first_match(self._rules, call)
            if found is None:
                return None
            index, wish = found
            name, key = f"match of faults[{index}]", f"rule {index}"
        attempt = 0 if wish.attempts is None else self._attempt(request, key)
        fault = decide(wish, attempt, call.seed)
        if fault is None:
            return None
        if fault.kind.needs_connection:
            self._connection(request, name)
        if fault.kind.refuses(stream=True) and (fault.after_s or 0) >= self._timeout_s:
            raise APIError(
                f"Invalid 'X-FAULT-AFTER-MS': expected less than {self._timeout_s:g} s, this "
                f"server's timeout, but got {fault.after_s:g} s instead.",
                param="X-FAULT-AFTER-MS",
                code="timeout_exceeded",
            )
        return fault

    def _read(self, given: Mapping[str, str], call: Call) -> FaultHeaders:
        if not self._allows_headers:
            raise invalid_header(
                next(iter(given)),
                "expected no X-FAULT-* header, as this server's setting fault_headers is false, "
                "but got one",
            )
        try:
            headers = FaultHeaders.model_validate(given)
        except ValidationError as error:
            raise header_error(error, FaultHeaders) from None
        if found := header_contradiction(headers):
            raise invalid_header(*found)
        kind = kind_of(headers)
        if not kind.fits(stream=call.stream):
            raise invalid_header(
                KIND, f"expected a kind that a whole answer has, but got {kind.name}"
            )
        return headers

    def _attempt(self, request: Request, key: str | None) -> int:
        """Return how many attempts came before this one."""
        for name, first in ((_RETRIES, 0), (_ATTEMPTS, 1)):
            if (value := request.headers.get(name)) is not None:
                return _number(name, value, first) - first
        if key is None:
            raise invalid_header(
                "X-FAULT-ATTEMPTS",
                f"expected {_RETRIES} (which OpenAI's SDKs send), {_ATTEMPTS} or X-FAULT-KEY "
                "beside it, but got none of them",
            )
        return self._attempts.count(key)

    def _connection(self, request: Request, name: str = KIND) -> Connection:
        try:
            return Connection.of(request.scope, request.receive, self._timeout_s)
        except NoConnectionError as error:
            raise invalid_header(
                name, f"expected a kind that leaves the connection alone, as {error}, but got one"
            ) from None

    async def inject(
        self, request: Request, fault: Fault, generation: Generation, generator: TokenGenerator
    ) -> Response:
        """Return the response that fails, in place of the one of a generation."""
        plan, answers, kind = generation.plan, generation.answers, fault.kind
        generation.is_cut = kind.ends
        generation.fault = kind.name
        asked = generation.request
        if kind.refuses(stream=bool(asked.stream)) or not asked.stream:
            wait = partial(wait_until, lambda: instant_s(fault, plan, answers), generation)
            try:
                return await self.inject_whole(request, fault, asked, generation, wait)
            except BaseException:
                generation.leave()
                raise
        place = Place.of(fault, plan, answers)
        if kind.where in ("token", "event"):
            generation.fault += f"@{place.tokens}"
        if kind.ends:
            generation.slots_before_cut = place.slots
        TALLY.add(FAULTS[kind.name])
        failure = self._failure(request, fault, asked)
        wire = StreamToFail(generation, generator, failure, place)
        return FaultyStream(wire, generation, _headers(request, fault))

    async def inject_whole(
        self,
        request: Request,
        fault: Fault,
        body: BaseModel,
        whole: Whole,
        wait: Callable[[], Awaitable[None]],
    ) -> Response:
        """Return the response that fails, in place of a whole answer of any API.

        Args:
            request: The HTTP request.
            fault: How it fails.
            body: What the client asked for.
            whole: The answer that it would be.
            wait: Waits until it fails.

        Raises:
            ClientDisconnect: The client went away.
        """
        content = None
        if not fault.kind.refuses(stream=_call(request, body).stream):
            async with ended_by_disconnect(request.receive):
                content = await whole.whole()
        TALLY.add(FAULTS[fault.kind.name])
        failure = self._failure(request, fault, body)
        return FaultyAnswer(whole, failure, content, wait, _headers(request, fault))

    def _failure(self, request: Request, fault: Fault, body: BaseModel) -> Failure:
        call = _call(request, body)
        error = error_body(
            fault.status,
            model=call.model,
            api_key=call.api_key,
            retry_after_ms=fault.retry_after_ms,
        )
        connection = self._connection(request) if fault.kind.needs_connection else None
        return Failure(fault, error, connection)


def _call(request: Request, body: BaseModel) -> Call:
    """Return what decides of a request; what its API does not have is as if it were null."""
    return Call(
        model=getattr(body, "model", ""),
        path=request.url.path,
        stream=bool(getattr(body, "stream", None)),
        user=getattr(body, "user", None),
        api_key=key_of(request.headers.get("authorization")),
        seed=getattr(body, "seed", None),
    )


def _number(name: str, value: str, least: int) -> int:
    """Read the number that a header has.

    Raises:
        APIError: It is none, or less than `least`.
    """
    if not value.isascii() or not value.isdecimal() or len(value) > 9 or int(value) < least:
        raise invalid_header(
            name, f"expected a whole number of at least {least}, but got '{value[:64]}'"
        )
    return int(value)


def _headers(request: Request, fault: Fault) -> RawHeaders:
    """Return the headers of an answer that fails, which say so."""
    headers = [*openai_headers(request), (b"x-fault-injected", fault.kind.name.encode())]
    if fault.retry_after_ms is not None:
        headers += [
            (b"retry-after-ms", b"%d" % fault.retry_after_ms),
            (b"retry-after", b"%d" % -(-fault.retry_after_ms // 1000)),
        ]
    return headers
