"""Counts in Redis, for several hosts: one atomic script for each."""

import asyncio
from collections.abc import Awaitable
from typing import Any, cast

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from emulator.rules.counting import store_is_away

TIMEOUT_S = 1.0
MAX_CONNECTIONS = 16
KEPT_MS = 86_400_000  # a count that nobody adds to for a day is forgotten

# KEYS: the epochs of all scopes and of this one. ARGV: the count's name, and how long it is kept.
SCRIPT = """
local all = redis.call('GET', KEYS[1]) or '0'
local own = redis.call('GET', KEYS[2]) or '0'
local count = 'openai_emulator:count:' .. all .. ':' .. own .. ':' .. ARGV[1]
local before = redis.call('INCR', count) - 1
redis.call('PEXPIRE', count, ARGV[2])
return before
"""


class RedisCounts:
    """Counts that all emulators share that name the same Redis.

    Args:
        url: The address of Redis.
    """

    def __init__(self, url: str) -> None:
        self._client = redis.asyncio.Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),  # a script that ran must not run again
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
        )
        self._turns = asyncio.Semaphore(MAX_CONNECTIONS)
        self._script = self._client.register_script(SCRIPT)

    async def add(self, name: str, scope: str = "") -> int:
        """Count something; return how often it was counted before.

        Raises:
            APIError: Redis is away.
        """
        keys = [_epoch(None), _epoch(scope)]
        return int(await self._asked(self._script(keys, [f"{len(scope)}:{scope}:{name}", KEPT_MS])))

    async def forget(self, scope: str | None = None) -> None:
        """Begin anew: all counts of a scope, or of all scopes.

        Raises:
            APIError: Redis is away.
        """
        await self._asked(cast(Awaitable[Any], self._client.incr(_epoch(scope))))

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def _asked(self, answer: Awaitable[Any]) -> Any:  # noqa: ANN401 - Redis's
        try:
            async with asyncio.timeout(TIMEOUT_S), self._turns:
                return await answer
        except (RedisError, OSError, TimeoutError):
            raise store_is_away() from None


def _epoch(scope: str | None) -> str:
    return "openai_emulator:epoch" if scope is None else f"openai_emulator:epoch:{scope}"
