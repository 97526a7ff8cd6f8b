"""The X-* headers by name, those of failures too, and what says the same in a body or a file."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import TypeAlias

from pydantic import ValidationError

from emulator.contract.error_words import (
    header_error,
    invalid_header,
    invalid_type,
    unknown_parameter,
)
from emulator.contract.errors import APIError
from emulator.contract.headers import EmulationHeaders
from emulator.faults.asking import FaultHeaders

RawHeaders: TypeAlias = Sequence[tuple[bytes, bytes]]

MAX_INTEGER_BITS = 64
MAX_NAME_SHOWN = 64
MAX_LENGTH_REMEMBERED = 256  # characters of all values of a request

LISTS = ("flagged",)  # what may be a list where it is no header

# What no gateway's header begins with.
BEGINNINGS = (b"x-fault-", b"x-emulation-")

_FIELDS = (EmulationHeaders.model_fields, FaultHeaders.model_fields)
HEADER_NAMES = {
    str(field.alias).lower().encode(): str(field.alias)
    for fields in _FIELDS
    for field in fields.values()
}
FAULT_NAMES = frozenset(str(field.alias) for field in FaultHeaders.model_fields.values())


def field_name(header: str) -> str:
    """Return the name of a header where it stands in an object: ``ttft_ms`` for X-TTFT-MS."""
    return header.removeprefix("X-").lower().replace("-", "_")


HEADERS_BY_FIELD = {field_name(name): name for name in HEADER_NAMES.values()}


def header_fields(raw: RawHeaders) -> dict[bytes, bytes]:
    """Return headers by name: of several of a name the first, as Starlette has it."""
    return dict(reversed(raw))


def given_headers(raw: RawHeaders, fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """Return the X-* headers of ours among a request's headers, by name.

    Args:
        raw: All headers, as they came.
        fields: The same by name.

    Raises:
        APIError: One of them comes more than once, or begins as ours do and is none.
    """
    if len(fields) < len(raw):
        _refuse_repeated(name for name, _ in raw if name in HEADER_NAMES)
    return {HEADER_NAMES[name]: _text(fields[name]) for name in _ours(tuple(fields))}


@lru_cache(128)  # clients send the same names again and again
def _ours(names: tuple[bytes, ...]) -> list[bytes]:
    """Return which names of headers are ours; other X-* headers are those of gateways.

    Raises:
        APIError: One begins as ours do, and is none.
    """
    for name in names:
        if name.startswith(BEGINNINGS) and name not in HEADER_NAMES:
            shown = name.decode("latin-1").upper()[:MAX_NAME_SHOWN]
            (nearest,) = get_close_matches(shown, HEADER_NAMES.values(), n=1, cutoff=0)
            raise APIError(
                f"Unknown header: '{shown}'. Did you mean '{nearest}'?",
                param=shown,
                code="unknown_parameter",
            )
    return [name for name in names if name in HEADER_NAMES]


def _text(value: bytes) -> str:
    """Return a header's text, which clients send as UTF-8, and some as Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _refuse_repeated(names: Iterable[bytes]) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise invalid_header(
                HEADER_NAMES[name], f"expected one value, but got {times} headers of this name"
            )


def check_headers(given: Mapping[str, str]) -> EmulationHeaders:
    """Check the X-* headers.

    Raises:
        APIError: A header is not a number or out of its range.
    """
    pairs = tuple(given.items())
    is_short = sum(len(value) for _, value in pairs) <= MAX_LENGTH_REMEMBERED
    try:
        return (_checked if is_short else _checked.__wrapped__)(pairs)
    except ValidationError as error:
        raise header_error(error, EmulationHeaders) from None


@lru_cache(1024)  # load tests send the same headers again and again
def _checked(pairs: Sequence[tuple[str, str]]) -> EmulationHeaders:
    return EmulationHeaders.model_validate(dict(pairs))


def body_headers(emulation: Mapping[str, object]) -> dict[str, str]:
    """Return the headers that say the same as ``emulation`` in a body.

    Raises:
        APIError: It holds a name that no header has, or a value that is no scalar.
    """
    given = {}
    for field, value in emulation.items():
        param = f"emulation.{field[:128]}"
        if field not in HEADERS_BY_FIELD:
            raise unknown_parameter(param)
        if value is None:
            continue
        text = header_text(value, field)
        if text is None:
            kinds = "string or array of strings" if field in LISTS else "number, string or boolean"
            raise invalid_type(value, f"one of a {kinds}", param)
        given[HEADERS_BY_FIELD[field]] = text
    return given


def header_text(value: object, field: str = "") -> str | None:
    """Return a scalar as a header says it, or a list of texts for `LISTS`; None for all else."""
    match value:
        case list() if field in LISTS and all(isinstance(item, str) for item in value):
            return ",".join(value)
        case bool():
            return str(value).lower()
        case int() if value.bit_length() > MAX_INTEGER_BITS:
            return f"an integer of more than {MAX_INTEGER_BITS} bits"  # no header takes this text
        case int() | float() | str():
            return str(value)
        case _:
            return None
