"""Admission: settings, key and limit files, and the store of buckets put together."""

import hashlib
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol, TypeAlias

from emulator.limits.buckets import Limits, Verdict
from emulator.limits.keys import Caller, Keys, anyone, scope_of_key
from emulator.limits.resets import NO_RESETS, Resets
from emulator.limits.rules import Figures, Key, LimitsFile, Rules, read_keys, read_limits
from emulator.limits.shared import SharedTable, create_table
from emulator.limits.words import Refusal
from emulator.settings import MEMORY, ConfigError, Settings

# The environment variable with the path of the table that a server's workers share.
TABLE_VARIABLE = "OPENAI_EMULATOR_LIMITS_TABLE"
MAX_REMEMBERED = 1024


class Store(Protocol):
    """Keeps the buckets, in memory or on another host, which answers None while it is away."""

    def take(
        self, digest: bytes, limits: Limits, tokens: int
    ) -> Verdict | Awaitable[Verdict | None]:
        """Take a request of `tokens` from both buckets, or nothing from either."""

    def look(self, digest: bytes, limits: Limits) -> Verdict | Awaitable[Verdict | None]:
        """Return what is left in both buckets."""


@dataclass(frozen=True, slots=True)
class Account:
    """The limits of a caller and a model, and the digest that names their buckets.

    ``name`` is the caller's name in the keys file, None if there is none.
    """

    name: str | None
    model: str
    limits: Limits
    digest: bytes


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits and the keys that are configured; `keys` is None if any key is accepted.

    ``resets`` are the revisions at which buckets were last filled.
    """

    rules: Rules
    keys: Keys | None
    resets: Resets = NO_RESETS


@dataclass(frozen=True, slots=True)
class LimitFiles:
    """What the files of keys and limits hold, as far as there are any."""

    limits: LimitsFile | None = None
    named: Sequence[Key] = ()
    keys: Keys | None = None

    @classmethod
    def read(cls, settings: Settings) -> "LimitFiles":
        """Read the files that the settings name.

        Raises:
            ConfigError: A file cannot be used.
        """
        named: Sequence[Key] = ()
        keys, names = None, None
        if found := settings.read("api_keys", read_keys):
            content, keys = found
            named = content.keys
            names = [key.name for key in named]
        limits = settings.read("limits", lambda path: read_limits(path, settings.models, names))
        return cls(limits, named, keys)

    @property
    def names(self) -> list[str] | None:
        """The names of the keys, None where every key is good."""
        return None if self.keys is None else [key.name for key in self.named]

    def with_limits(self, limits: LimitsFile | None) -> "LimitFiles":
        """Return these with other limits."""
        return replace(self, limits=limits)

    def policy(self, settings: Settings, resets: Resets = NO_RESETS) -> Policy | None:
        """Return what these and the settings say; None if nothing is limited or locked."""
        given = {"rpm": settings.rpm, "tpm": settings.tpm}
        default = Figures(**{name: limit for name, limit in given.items() if limit is not None})
        if self.keys is None and self.limits is None and not default.model_fields_set:
            return None
        return Policy(Rules(default, self.limits or LimitsFile(), self.named), self.keys, resets)


NO_FILES = LimitFiles()


def prepare_store(url: str) -> None:
    """Prepare the store, before any worker starts.

    Raises:
        ConfigError: The store cannot be reached.
    """
    if url == MEMORY:
        os.environ[TABLE_VARIABLE] = create_table()
        return
    try:
        from emulator.limits.redis_store import StoreError, check_store  # noqa: PLC0415 - optional
    except ImportError:
        raise ConfigError(
            "a store in Redis needs the package redis: pip install -r requirements-redis.txt"
        ) from None
    try:
        check_store(url)
    except StoreError as error:
        raise ConfigError(str(error)) from None


def open_store(url: str, on_unlimited: Callable[[], None], *, alone: bool) -> Store:
    """Open the store in a worker.

    Args:
        url: The setting ``store``.
        on_unlimited: Called for each request that passes because the store is away.
        alone: Whether the server has no other worker.
    """
    if url == MEMORY:
        return SharedTable(os.environ.get(TABLE_VARIABLE) or create_table(), alone=alone)
    from emulator.limits.redis_store import RedisStore  # noqa: PLC0415 - optional

    return RedisStore(url, on_unlimited)


Identify: TypeAlias = Callable[[str | None], Caller | Refusal]


class Gate:
    """Admits or refuses requests.

    ``identify`` returns the sender of an Authorization header, or a 401. ``account`` returns the
    account of a caller and a model, None if it has no limits; it is cached. ``take`` is the
    store's.
    """

    def __init__(self, policy: Policy, store: Store) -> None:
        self._policy = policy
        self._store = store
        self.identify: Identify = anyone if policy.keys is None else policy.keys.identify
        self.account = lru_cache(MAX_REMEMBERED)(self._account)
        self.take = store.take

    def _account(self, caller: Caller, model: str) -> Account | None:
        limits = self._policy.rules.limits_of(caller.name, model)
        if limits.requests is None and limits.tokens is None:
            return None
        named = b"%d %s %s" % (len(caller.bucket), caller.bucket, model.encode(errors="replace"))
        if filled := self._policy.resets.of(scope_of_key(caller.bucket.decode(errors="replace"))):
            named += b" %d" % filled
        digest = hashlib.blake2b(named, digest_size=16).digest()
        return Account(caller.name, model, limits, digest)

    async def look(self, account: Account) -> Verdict | None:
        """Return what is left, None while the store is away."""
        verdict = self._store.look(account.digest, account.limits)
        return verdict if isinstance(verdict, Verdict) else await verdict
