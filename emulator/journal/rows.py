"""One request as a flat record, and what that tells."""

import math
import random
from array import array
from time import monotonic
from time import time as now
from typing import Any, NamedTuple

from emulator.journal.bodies import JournalRow, Times, TokenInstant
from emulator.journal.ring import Row
from emulator.limits.keys import SCOPE_KEY, key_of, scope_of_key
from emulator.transport.ending import Ending
from emulator.transport.exchange import Exchange
from emulator.transport.sending import CLIENT_CLOSED_REQUEST

# Clients can make these long; names of files, rules and models of ours are shorter.
MAX_TEXT = 128
MAX_SCOPE = 64
MAX_METHOD = 16
MAX_RULES = 16
MAX_RULE_NAME = 64
# What is left of each text of a record that is too long for its slot.
MAX_SHORT_TEXT = 16

_SCOPE_KEY = SCOPE_KEY.encode()


class More(NamedTuple):
    """Where the instants and the body of a request are kept.

    Args:
        kept_at: Where both are.
        events: How many instants there are.
        regular: The first due time and the distance of the others; None where they are kept.
        body_bytes: How many bytes of the body are kept after the instants.
    """

    kept_at: int = 0
    events: int = 0
    regular: tuple[float, float] | None = None
    body_bytes: int = 0


class Record(NamedTuple):
    """What is kept of a request; all times in seconds, instants after its start.

    Args:
        id: The number in its x-request-id.
        ended_at: When it ended, on ``time.time()``.
        start_s: When its headers came, on ``time.monotonic()``.
        took_s: How long after that it ended.
        decided: The fields of X-* headers that something said.
        places: What said them, where it was no header, as ``X-TTFT-MS=rules.slow.ttft_ms``.
        kept_at: This and what follows are those of `More`.
    """

    id: int
    ended_at: float
    start_s: float
    took_s: float
    revision: int
    scope: str
    key: str
    method: str
    path: str
    model: str
    status: int
    code: str
    rules: tuple[str, ...]
    decided: tuple[str, ...]
    places: tuple[str, ...]
    bytes_in: int
    stream: bool | None = None
    answer_id: str = ""
    finish_reason: str = ""
    tokens_in: int | None = None
    tokens_out: int = 0
    ttft_due_s: float | None = None
    ttft_s: float | None = None
    itl_due_s: float | None = None
    itl_s: float | None = None
    total_due_s: float | None = None
    total_s: float | None = None
    worst_lag_s: float | None = None
    blocked_s: float = 0.0
    fault: str = ""
    queue_s: float | None = None
    kept_at: int = 0
    events: int = 0
    regular: tuple[float, float] | None = None
    body_bytes: int = 0


_NO_ENDING = tuple(Record._field_defaults.values())[: -len(More._fields)]


def scope_of(exchange: Exchange) -> str:
    """Return the scope of a request, which a header, its body or its API key names."""
    asked = exchange.asked
    if asked is not None and asked.emulation.emulation_scope:
        return asked.emulation.emulation_scope[:MAX_SCOPE]
    fields = exchange.fields
    given = fields.get(b"authorization")
    # Most keys name none, which is seen at once.
    if given is not None and (_SCOPE_KEY in given or not given.startswith(b"Bearer ")):
        scope = scope_of_key(key_of(given.decode("latin-1")))
        if scope:
            return scope[:MAX_SCOPE]
    if asked is not None:
        return ""
    given = fields.get(b"x-emulation-scope")
    return "" if given is None else given.decode("latin-1")[:MAX_SCOPE]


def row_of(exchange: Exchange, ending: Ending | None) -> Row:
    """Return what is kept of a request that has ended: the values of a `Record`, but for `more`.

    It is a plain tuple: this is done for each request, and to make a named one takes as long again.
    """
    caller, asked, rules, scope = exchange.caller, exchange.asked, exchange.rules, exchange.scope
    ended_s, start_s = exchange.ended_s, exchange.start_s
    decided: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    if asked is not None:
        decided = tuple(asked.emulation.__pydantic_fields_set__)
        if asked.places:
            places = tuple([f"{name}={place[:MAX_TEXT]}" for name, place in asked.places.items()])
    begins = (
        exchange.request_id or random.getrandbits(128),
        now() - (monotonic() - ended_s),
        start_s,
        ended_s - start_s,
        exchange.state.version,
        scope_of(exchange),
        "" if caller is None or caller.name is None else caller.name[:MAX_TEXT],
        scope["method"][:MAX_METHOD],
        scope["path"][:MAX_TEXT],
        exchange.model[:MAX_TEXT],
        exchange.status,
        exchange.code[:MAX_TEXT],
        tuple([name[:MAX_RULE_NAME] for name in rules[:MAX_RULES]]) if rules else (),
        decided,
        places,
        exchange.size,
    )
    if ending is None:
        return begins + _NO_ENDING
    ttft_due_s, ttft_s = ending.ttft_s
    itl_due_s, itl_s = ending.itl_s
    total_due_s, total_s = ending.total_s
    is_text = ending.kind == "completion"
    return (
        *begins,
        ending.is_stream,
        ending.id[:MAX_TEXT],
        ending.finish_reasons[0] if ending.finish_reasons else "",
        ending.tokens_in,
        ending.all_tokens,
        float(ttft_due_s) if is_text else None,
        ttft_s,
        float(itl_due_s) if is_text else None,
        itl_s,
        float(total_due_s),  # drawn times are numpy's, which marshal does not know
        total_s,
        ending.worst_lag_s,
        ending.blocked_s,
        ending.fault,
        ending.queue_s,
    )


def shortened(row: Row) -> Row:
    """Return a row with its texts cut, which fits into a slot whatever it holds."""
    cut = Record(*row)._asdict() | {"rules": (), "decided": (), "places": ()}
    return tuple(
        value[:MAX_SHORT_TEXT] if isinstance(value, str) else value for value in cut.values()
    )


# --------------------------------------------------------------------------------------
# What a record tells
# --------------------------------------------------------------------------------------


def request_id(record: Record) -> str:
    """Return the x-request-id of the answer."""
    return f"req_{record.id:032x}"


def told(record: Record, worker: int) -> dict[str, Any]:
    """Return the fields of a `JournalRow`."""
    return {
        "id": request_id(record),
        "answer_id": _told(record.answer_id),
        "at": round(record.ended_at - record.took_s, 6),
        "ended_at": round(record.ended_at, 6),
        "worker": worker,
        "revision": record.revision,
        "scope": _told(record.scope),
        "key": record.key,
        "method": _told(record.method),
        "path": _told(record.path),
        "model": _told(record.model),
        "stream": record.stream,
        "status": record.status,
        "code": _told(record.code),
        "finish_reason": record.finish_reason,
        "tokens_in": record.tokens_in,
        "tokens_out": record.tokens_out,
        "ttft": Times(asked_ms=_ms(record.ttft_due_s), actual_ms=_ms(record.ttft_s)),
        "itl": Times(asked_ms=_ms(record.itl_due_s), actual_ms=_ms(record.itl_s)),
        "total": Times(
            asked_ms=_ms(record.total_due_s), actual_ms=_ms(record.total_s or record.took_s)
        ),
        "worst_lag_ms": _ms(record.worst_lag_s),
        "blocked_ms": _ms(record.blocked_s),
        "fault": record.fault,
        "rules": [_told(name) for name in record.rules],
        "decided": _decided(record),
        "queue_ms": _ms(record.queue_s),
        "bytes_in": record.bytes_in,
        "client_left": record.status == CLIENT_CLOSED_REQUEST,
    }


def journal_row(record: Record, worker: int) -> JournalRow:
    """Return a record as the API tells it."""
    return JournalRow(**told(record, worker))


def _told(text: str) -> str:
    """Return a text that JSON can hold: half of a pair of surrogates cannot be encoded."""
    return text.encode(errors="replace").decode()


def _ms(seconds: float | None) -> float | None:
    """Return a time in ms; None where there is none, or an engine has not come so far."""
    return None if seconds is None or not math.isfinite(seconds) else round(seconds * 1000, 3)


def _decided(record: Record) -> dict[str, str]:
    places = dict(each.split("=", 1) for each in record.places)
    decided = {}
    for name in sorted(record.decided):
        header = f"X-{name.upper().replace('_', '-')}"
        place = places.get(header)
        if place is None:
            decided[name] = f"header {header}"
        elif place.startswith("rules."):
            decided[name] = f"rule {place.removeprefix('rules.')}"
        else:
            decided[name] = f"body {_told(place)}"
    return decided


def instants(record: Record, kept: bytes) -> list[TokenInstant]:
    """Return when the events of a stream were due and left.

    Args:
        record: The request.
        kept: When they left, and when they were due where that is not regular, as doubles.
    """
    given = array("d", kept[: record.events * 8 * (1 if record.regular else 2)])
    left = given[: record.events]
    if record.regular is not None:
        first_s, step_s = record.regular
        due = array("d", [first_s + index * step_s for index in range(len(left))])
    else:
        due = given[record.events :]
    return [
        TokenInstant(due_ms=round(due_s * 1000, 3), left_ms=_left_ms(left_s, record.start_s))
        for due_s, left_s in zip(due, left, strict=True)
        if due_s < math.inf  # an engine has come so far
    ]


def _left_ms(left_s: float, start_s: float) -> float | None:
    return None if math.isnan(left_s) else round((left_s - start_s) * 1000, 3)
