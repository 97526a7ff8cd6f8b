"""API keys: reading the Authorization header, and look-ups in constant time."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from emulator.limits.words import NO_KEY, Refusal, wrong_key

_MAX_BUCKET_LENGTH = 256
_NOBODY = hashlib.sha256(b"").digest()  # no key is empty
SCOPE_KEY = "sk-scope-"


def scope_of_key(key: str) -> str:
    """Return the scope that an API key names, as ``sk-scope-<scope>``; empty if it names none."""
    return key.removeprefix(SCOPE_KEY) if key.startswith(SCOPE_KEY) else ""


class Caller(NamedTuple):
    """The sender of a request: its name in the keys file, or None, and what names its buckets."""

    name: str | None
    bucket: bytes


def key_of(authorization: str | None) -> str:
    """Return the key of an Authorization header; empty if it holds none.

    Bearer holds the key itself; Basic holds it as the password, with a blank user name.
    """
    scheme, _, value = (authorization or "").strip().partition(" ")
    value = value.strip()
    match scheme.lower():
        case "bearer":
            return value
        case "basic":
            return _password(value)
        case _:
            return ""


def _password(credentials: str) -> str:
    try:
        user, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return ""
    return "" if user else password


class Keys:
    """The keys of the keys file, kept as their sha256.

    The time of a look-up tells nothing about keys: Python's hash of bytes is keyed, so that no
    caller can provoke collisions, and digests are compared in constant time.
    """

    def __init__(self, names: Mapping[bytes, str]) -> None:
        """Take the names, by the sha256 of their keys."""
        self._entries = {digest: (digest, name) for digest, name in names.items()}

    def find(self, key: str) -> str | None:
        """Return the name of the key, or None."""
        digest = hashlib.sha256(key.encode()).digest()
        expected, name = self._entries.get(digest, (_NOBODY, ""))
        return name if hmac.compare_digest(expected, digest) and name else None

    def identify(self, authorization: str | None) -> Caller | Refusal:
        """Return the sender of an Authorization header, or a 401."""
        key = key_of(authorization)
        if not key:
            return NO_KEY
        name = self.find(key)
        return wrong_key(key) if name is None else Caller(name, name.encode())


@lru_cache(maxsize=128)  # bounds the memory for long headers
def anyone(authorization: str | None) -> Caller:
    """Return the sender where any key is accepted; no key counts as one too."""
    key = key_of(authorization).encode()
    return Caller(None, key if len(key) <= _MAX_BUCKET_LENGTH else hashlib.sha256(key).digest())
