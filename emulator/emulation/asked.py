"""What a request asks for beside its API: by header, in its body, or by the operator's rules."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from emulator.contract.bodies import ModelRequest
from emulator.contract.error_words import placed
from emulator.contract.errors import APIError
from emulator.contract.headers import EmulationHeaders
from emulator.emulation.header_fields import (
    FAULT_NAMES,
    HEADERS_BY_FIELD,
    body_headers,
    check_headers,
    field_name,
)

_NO_PLACES: Mapping[str, str] = {}


@dataclass(slots=True)
class Asked:
    """The X-* headers of one request, and what stands in their place.

    Args:
        emulation: The checked headers, but for those of failures.
        faults: Those of failures, if there are any.
        places: Where each header stands that did not come as one, for errors that name it.
    """

    emulation: EmulationHeaders
    faults: Mapping[str, str] | None
    places: Mapping[str, str]

    @property
    def has_no_timing(self) -> bool:
        """Whether it asks for no time, so that an engine may make the times."""
        return self.emulation.ttft_ms is None and self.emulation.itl_ms is None

    @property
    def decided(self) -> frozenset[str]:
        """The names of what the client has decided, which rules leave alone."""
        given = frozenset(self.emulation.model_fields_set)
        return given if self.faults is None else given | {"fault"}

    def ruled(self, timing: Mapping[str, Any], sources: Mapping[str, str]) -> "Asked":
        """Return it with what rules say where the client says nothing.

        Args:
            timing: The values of fields, checked.
            sources: By each of these fields, the name of its rule.
        """
        places = {HEADERS_BY_FIELD[name]: f"rules.{at}.{name}" for name, at in sources.items()}
        emulation = self.emulation.model_copy(update=timing)
        return replace(self, emulation=emulation, places={**places, **self.places})


def read_asked(given: Mapping[str, str], body: ModelRequest) -> Asked:
    """Read and check the X-* headers, and what the body says in their place.

    Raises:
        APIError: One of them is not a number or out of its range, or the body names no header.
    """
    places = _NO_PLACES
    if body.emulation:
        stated = body_headers(body.emulation)
        places = {n: f"emulation.{field_name(n)}" for n in stated if n not in given}
        given = {**stated, **given}
    faults = None
    if not FAULT_NAMES.isdisjoint(given):
        faults = {name: value for name, value in given.items() if name in FAULT_NAMES}
        given = {name: value for name, value in given.items() if name not in FAULT_NAMES}
    try:
        return Asked(check_headers(given), faults, places)
    except APIError as error:
        raise placed(error, places) from None
