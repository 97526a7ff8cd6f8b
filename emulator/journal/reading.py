"""What is asked of the journal: which requests, from where on, and how many."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from emulator.control.changes.refusals import refused_at
from emulator.journal.rows import Record

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
QUERY = {
    "after": "the `next` of a page before; 0 for the oldest that is kept; the newest by default",
    "limit": f"the most requests, 1 to {MAX_LIMIT}; {DEFAULT_LIMIT} by default",
    "scope": "their scope",
    "model": "their model; one that ends with * fits all that begin so",
    "status": "their status, as 429 or 4xx",
    "rule": "a rule that decided something",
    "path": "their path; one that ends with * fits all that begin so",
}

_STATUS = re.compile(r"[1-5](\d\d|xx)")
_MAX_DIGITS = 19


class Wanted(NamedTuple):
    """Which requests are wanted.

    Args:
        positions: By ring, the number of the first that may be; None for the newest of all.
        limit: The most.
        fits: Tells whether one is wanted.
    """

    positions: Sequence[int] | None
    limit: int
    fits: Callable[[Record], bool]


def read(query: Mapping[str, str], rings: int) -> Wanted:
    """Return what a query asks.

    Args:
        query: The parameters.
        rings: How many rings there are.

    Raises:
        APIError: One of them is no good.
    """
    tests = [
        *(_named(name, query[name]) for name in ("model", "path") if name in query),
        *([_status(query["status"])] if "status" in query else ()),
    ]
    if (scope := query.get("scope")) is not None:
        tests.append(lambda record: record.scope == scope)
    if (rule := query.get("rule")) is not None:
        tests.append(lambda record: rule in record.rules)
    return Wanted(
        _positions(query["after"], rings) if "after" in query else None,
        _limit(query.get("limit", str(DEFAULT_LIMIT))),
        lambda record: all(test(record) for test in tests),
    )


def cursor(positions: Sequence[int]) -> str:
    """Return where a page ends, as `after` takes it."""
    return ".".join(map(str, positions))


def _positions(text: str, rings: int) -> Sequence[int]:
    parts = ["0"] * rings if text == "0" else text.split(".")
    are_good = all(part.isascii() and part.isdigit() and len(part) <= _MAX_DIGITS for part in parts)
    if not are_good or len(parts) != rings:
        raise refused_at(("after",), f"expected the `next` of a page, or 0, but got '{text:.64}'")
    return [int(part) for part in parts]


def _limit(text: str) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    if not is_number or not 1 <= int(text) <= MAX_LIMIT:
        raise refused_at(("limit",), f"expected 1 to {MAX_LIMIT}, but got '{text:.64}'")
    return int(text)


def _named(name: str, text: str) -> Callable[[Record], bool]:
    if text.endswith("*"):
        return lambda record: getattr(record, name).startswith(text[:-1])
    return lambda record: getattr(record, name) == text


def _status(text: str) -> Callable[[Record], bool]:
    if not _STATUS.fullmatch(text):
        raise refused_at(("status",), f"expected a status as 429 or 4xx, but got '{text:.64}'")
    if text.endswith("xx"):
        return lambda record: record.status // 100 == int(text[0])
    return lambda record: record.status == int(text)
