"""From a request to the failure that it is to get, and from that to the answer that fails."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from pydantic import ValidationError

from emulator import metrics
from emulator.answers.ask import Ask
from emulator.contract.error_words import header_error, invalid_header
from emulator.contract.errors import APIError
from emulator.faults.asking import FaultHeaders, FaultRule, header_contradiction
from emulator.faults.fault import Fault, draw, kind_of
from emulator.faults.kinds import KINDS
from emulator.faults.statuses import error_body
from emulator.injection.faulty_answers import (
    FailedWhole,
    Failure,
    FaultyReply,
    Place,
    StreamToFail,
    Whole,
    faulty_stream,
    instant_s,
    wait_until,
)
from emulator.limits.keys import key_of
from emulator.metrics import TALLY
from emulator.reading.seeing import ATTEMPT_HEADERS, attempts_told
from emulator.rules.deciding import Decision
from emulator.serving.generation import Generation
from emulator.transport.direct_write import RawHeaders
from emulator.transport.exchange import Exchange
from emulator.transport.sending import Reply, ended_by_disconnect, own_headers
from emulator.transport.socket_control import Connection, NoConnectionError
from tokenizer import TokenGenerator

FAULTS = {name: metrics.FAULTS.labels(name) for name in KINDS}

KIND = "X-FAULT-KIND"


@dataclass(frozen=True, slots=True)
class Wished:
    """A failure that a request may get: what is asked, without contradictions.

    Args:
        wish: What a header or a rule asks.
        seed: The seed that chance is drawn from.
        attempt: How many attempts came before this one; None where they have to be counted.
        key: What they are counted by.
    """

    wish: FaultHeaders | FaultRule
    seed: int | None
    attempt: int | None = 0
    key: str = ""


def refuse_time_in_engine(wished: Wished | None) -> None:
    """Refuse a failure at a time that an engine would have to foresee.

    Raises:
        APIError: It is at a time, and no status in the answer's place.
    """
    if wished is None or wished.wish.after_ms is None or kind_of(wished.wish).refuses(stream=True):
        return
    raise invalid_header(
        "X-FAULT-AFTER-MS",
        "expected X-TTFT-MS or X-ITL-MS beside it, as without them an engine makes the times of "
        "this server, but got neither",
    )


class FaultInjector:
    """Decides which answers fail, and makes them.

    Args:
        generator: Gives out the tokens before the failure of a stream.
    """

    def __init__(self, generator: TokenGenerator) -> None:
        self._generator = generator

    def wish(self, exchange: Exchange, ask: Ask, decision: Decision) -> Wished | None:
        """Return the failure that a request may get; most get none.

        Raises:
            APIError: A header is no good, contradicts another, or is refused on this server.
        """
        given = None if exchange.asked is None else exchange.asked.faults
        wish: FaultHeaders | FaultRule | None = decision.fault
        if given is None and wish is None:
            return None
        if given is not None:
            wish = headers = self._read(exchange, given, ask)
            name, key = KIND, headers.key and f"key {headers.key}"
        else:
            name, key = f"fault of rules.{decision.fault_rule}", f"fault {decision.fault_rule}"
        if wish is None:
            return None
        kind = kind_of(wish)
        if kind.needs_connection:
            _connection(exchange, name)
        timeout_s, after_s = exchange.state.settings.timeout_s, (wish.after_ms or 0) / 1000
        if kind.refuses(stream=True) and after_s >= timeout_s:
            raise APIError(
                f"Invalid 'X-FAULT-AFTER-MS': expected less than {timeout_s:g} s, this "
                f"server's timeout, but got {after_s:g} s instead.",
                param="X-FAULT-AFTER-MS",
                code="timeout_exceeded",
            )
        attempt = attempts_told(exchange)
        if wish.attempts is None:
            return Wished(wish, ask.seed, attempt or 0)
        if given is not None and key is not None:
            attempt = None  # who gives a key tries again around a client that numbers each try 0
        if attempt is None and key is None:
            raise invalid_header(
                "X-FAULT-ATTEMPTS",
                f"expected {ATTEMPT_HEADERS[0]} (which OpenAI's SDKs send), {ATTEMPT_HEADERS[1]} "
                "or X-FAULT-KEY beside it, but got none of them",
            )
        return Wished(wish, ask.seed, attempt, key or "")

    def draw(self, wished: Wished | None, counted: int = 0) -> Fault | None:
        """Return the failure that this attempt gets, or None.

        Args:
            wished: What it may get.
            counted: How many attempts came before, where the client does not tell it.
        """
        if wished is None:
            return None
        attempt = counted if wished.attempt is None else wished.attempt
        return draw(wished.wish, attempt, wished.seed)

    def _read(self, exchange: Exchange, given: Mapping[str, str], ask: Ask) -> FaultHeaders:
        if not exchange.state.settings.fault_headers:
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
        if not kind.fits(stream=ask.stream, says_failed=ask.says_failed):
            having = "this API" if kind.says_failed else "a whole answer"
            raise invalid_header(KIND, f"expected a kind that {having} has, but got {kind.name}")
        return headers

    async def inject(self, fault: Fault, generation: Generation) -> Reply:
        """Return the answer that fails, in place of the one of a generation.

        Raises:
            ClientDisconnect: The client went away.
        """
        exchange, ask, kind = generation.exchange, generation.ask, fault.kind
        plan, answers = generation.plan, generation.answers
        generation.is_cut = kind.ends
        generation.fault = kind.name
        if kind.refuses(stream=ask.stream) or not ask.stream:
            wait = partial(wait_until, lambda: instant_s(fault, plan, answers), generation)
            whole: Whole = generation
            if kind.says_failed:
                whole = FailedWhole(generation, _failure(exchange, fault, ask).error)
            return await self.inject_whole(exchange, fault, ask, whole, wait)
        place = Place.of(fault, plan, answers)
        if kind.where in ("token", "event"):
            generation.fault += f"@{place.tokens}"
        if kind.ends:
            generation.slots_before_cut = place.slots
        TALLY.add(FAULTS[kind.name])
        wire = StreamToFail(generation, self._generator, _failure(exchange, fault, ask), place)
        return faulty_stream(wire, generation, _headers(exchange, fault))

    async def inject_whole(
        self,
        exchange: Exchange,
        fault: Fault,
        ask: Ask,
        whole: Whole,
        wait: Callable[[], Awaitable[None]],
    ) -> Reply:
        """Return the answer that fails, in place of a whole one of any API.

        Args:
            exchange: The request.
            fault: How it fails.
            ask: What was asked.
            whole: The answer that it would be.
            wait: Waits until it fails.

        Raises:
            ClientDisconnect: The client went away.
        """
        content = None
        if not fault.kind.refuses(stream=ask.stream):
            async with ended_by_disconnect(exchange.receive):
                content = await whole.whole()
        TALLY.add(FAULTS[fault.kind.name])
        failure = _failure(exchange, fault, ask)
        return FaultyReply(exchange, whole, failure, content, wait, _headers(exchange, fault))


def _failure(exchange: Exchange, fault: Fault, ask: Ask) -> Failure:
    error = error_body(
        fault.status,
        model=ask.model,
        api_key=key_of(exchange.header(b"authorization")),
        retry_after_ms=fault.retry_after_ms,
        code=fault.code,
        path=exchange.path,
    )
    if fault.message is not None:
        error.message = fault.message
    connection = _connection(exchange) if fault.kind.needs_connection else None
    return Failure(fault, exchange.envelope(error), error, connection)


def _connection(exchange: Exchange, name: str = KIND) -> Connection:
    timeout_s = exchange.state.settings.timeout_s
    try:
        return Connection.of(exchange.scope, exchange.receive, timeout_s)
    except NoConnectionError as error:
        raise invalid_header(
            name, f"expected a kind that leaves the connection alone, as {error}, but got one"
        ) from None


def _headers(exchange: Exchange, fault: Fault) -> RawHeaders:
    """Return the headers of an answer that fails, which say so."""
    headers = [*own_headers(exchange), (b"x-fault-injected", fault.kind.name.encode())]
    if fault.retry_after_ms is not None:
        headers += [
            (b"retry-after-ms", b"%d" % fault.retry_after_ms),
            (b"retry-after", b"%d" % -(-fault.retry_after_ms // 1000)),
        ]
    return headers
