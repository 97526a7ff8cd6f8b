"""Who may use /emulator: a pure function of a request's connection, its headers and the settings.

A page in a browser on this machine can send requests to loopback: by the address (its `Origin` or
`Sec-Fetch-Site` tells of it) or by a name of its own that it has resolve to loopback (its `Host`
tells of that: DNS rebinding). A proxy on this machine connects from loopback for anybody; those
that say for whom are refused.
"""

import hmac
import ipaddress
from collections.abc import Iterable
from enum import Enum
from typing import TypeAlias
from urllib.parse import urlsplit

from emulator.settings import Settings

RawHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]

_FORWARDED = (b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"true-client-ip")
_OTHER_SITES = (b"cross-site", b"same-site")


class Verdict(Enum):
    """What becomes of a request."""

    PASSES = "passes"
    HIDDEN = "hidden"  # there is no such path
    FOREIGN = "foreign"  # not from this machine, and no key is set that would open
    KEYLESS = "keyless"  # not from this machine, or the key is asked of all; and it has not the key


def judge(peer: str | None, headers: RawHeaders, settings: Settings) -> Verdict:
    """Return what becomes of a request.

    Args:
        peer: The address that the connection comes from; None where there is none.
        headers: Its headers, with names in lower case; all that came.
        settings: Say what opens.
    """
    if settings.control == "off":
        return Verdict.HIDDEN
    key = settings.control_key
    fields = [*headers]
    if key is not None and _has_key(fields, key.get_secret_value()):
        return Verdict.PASSES
    if settings.control == "local" and _is_local(peer, fields):
        return Verdict.PASSES
    return Verdict.FOREIGN if key is None else Verdict.KEYLESS


def _has_key(fields: RawHeaders, key: str) -> bool:
    """Tell whether a request has the key; in the same time for each wrong one of its length."""
    given = [value for name, value in fields if name == b"authorization"]
    if len(given) != 1:
        return False
    scheme, _, text = given[0].partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(text.strip(), key.encode())


def _is_local(peer: str | None, fields: RawHeaders) -> bool:
    if peer is None or not _is_loopback(peer):
        return False
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) != 1 or not _names_loopback(hosts[0]):
        return False
    for name, value in fields:
        if name in _FORWARDED or name.startswith(b"x-forwarded"):
            return False
        if name == b"origin" and not _is_own(value, hosts[0]):
            return False
        if name == b"sec-fetch-site" and value.strip().lower() in _OTHER_SITES:
            return False
    return True


def _is_loopback(address: str) -> bool:
    """Tell whether an address leads to this machine alone: 127.*, ::1, ::ffff:127.*."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


def _names_loopback(host: bytes) -> bool:
    """Tell whether a Host header is a loopback address or ``localhost``, with any port."""
    try:
        parts = urlsplit(f"//{host.decode('ascii').strip()}")
        port, name = parts.port, parts.hostname
    except ValueError:
        return False
    if port == 0 or not name or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return False
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _is_own(origin: bytes, host: bytes) -> bool:
    """Tell whether a page was loaded from where it now sends a request to."""
    scheme, mark, rest = origin.strip().lower().partition(b"://")
    return scheme in (b"http", b"https") and bool(mark) and rest == host.strip().lower()
