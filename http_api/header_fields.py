"""The X-* headers by name, and what says the same elsewhere: in a body, or in a file."""

from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from faults.asking import FaultHeaders
from http_api.errors import header_error, invalid_type, unknown_parameter
from schemas import EmulationHeaders

MAX_INTEGER_BITS = 64


def _names(model: type[BaseModel]) -> dict[bytes, str]:
    fields = model.model_fields.values()
    return {str(field.alias).lower().encode(): str(field.alias) for field in fields}


HEADER_NAMES = _names(EmulationHeaders)
FAULT_HEADERS = frozenset(_names(FaultHeaders).values())
ALL_HEADER_NAMES = HEADER_NAMES | _names(FaultHeaders)


def field_name(header: str) -> str:
    """Return the name of a header where it stands in an object: ``ttft_ms`` for X-TTFT-MS."""
    return header.removeprefix("X-").lower().replace("-", "_")


HEADERS_BY_FIELD = {field_name(name): name for name in HEADER_NAMES.values()}


def check_headers(given: Mapping[str, str]) -> EmulationHeaders:
    """Check the X-* headers.

    Raises:
        APIError: A header is not a number or out of its range.
    """
    try:
        return EmulationHeaders.model_validate(given)
    except ValidationError as error:
        raise header_error(error, EmulationHeaders) from None


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
        text = header_text(value)
        if text is None:
            raise invalid_type(value, "one of a number, string or boolean", param)
        given[HEADERS_BY_FIELD[field]] = text
    return given


def header_text(value: object) -> str | None:
    """Return a scalar as a header says it, None for anything else."""
    match value:
        case bool():
            return str(value).lower()
        case int() if value.bit_length() > MAX_INTEGER_BITS:
            return f"an integer of more than {MAX_INTEGER_BITS} bits"  # no header takes this text
        case int() | float() | str():
            return str(value)
        case _:
            return None
