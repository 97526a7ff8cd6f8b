"""What a request asks for beside its API: by header, in its body, or by its model's profile."""

from collections.abc import Mapping
from dataclasses import dataclass

from emulator.contract.bodies import ModelRequest
from emulator.contract.error_words import placed
from emulator.contract.errors import APIError
from emulator.contract.headers import EmulationHeaders
from emulator.emulation.header_fields import FAULT_NAMES, body_headers, check_headers, field_name
from emulator.emulation.profiles import Profiles

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


def read_asked(
    given: Mapping[str, str], body: ModelRequest, profiles: Profiles | None = None
) -> Asked:
    """Read and check the X-* headers, what the body says in their place, and the profile's.

    Raises:
        APIError: One of them is not a number or out of its range, or the body names no header.
    """
    places = _NO_PLACES
    if profiles is not None or body.emulation:
        given, places = _with_defaults(given, body, profiles)
    faults = None
    if not FAULT_NAMES.isdisjoint(given):
        faults = {name: value for name, value in given.items() if name in FAULT_NAMES}
        given = {name: value for name, value in given.items() if name not in FAULT_NAMES}
    try:
        return Asked(check_headers(given), faults, places)
    except APIError as error:
        raise placed(error, places) from None


def _with_defaults(
    given: Mapping[str, str], asked: ModelRequest, profiles: Profiles | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the headers with those that the body or the profile stands in for, and their places.

    Raises:
        APIError: The body names no header, or gives one a list or an object.
    """
    profile = profiles.of(asked.model) if profiles is not None else {}
    body = body_headers(asked.emulation or {})
    places = {name: f"profile.{field_name(name)}" for name in profile}
    places |= {name: f"emulation.{field_name(name)}" for name in body}
    return {**profile, **body, **given}, {n: at for n, at in places.items() if n not in given}
