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

# KEYS: the count. ARGV: how long it is kept.
SCRIPT = """
local before = redis.call('INCR', KEYS[1]) - 1
redis.call('PEXPIRE', KEYS[1], ARGV[1])
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

    async def add(self, name: str, scope: str = "", since: int = 0) -> int:
        """Count something; return how often it was counted before.

        Raises:
            APIError: Redis is away.
        """
        key = f"openai_emulator:count:{since}:{len(scope)}:{scope}:{name}"
        try:
            async with asyncio.timeout(TIMEOUT_S), self._turns:
                return int(await cast(Awaitable[Any], self._script([key], [KEPT_MS])))
        except (RedisError, OSError, TimeoutError):
            raise store_is_away() from None

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()
