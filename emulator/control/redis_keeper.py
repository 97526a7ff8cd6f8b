"""The changes that several servers share, in Redis: compared and replaced in one script."""

import asyncio
import logging
import time
from typing import Any, cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from emulator import metrics
from emulator.contract.errors import APIError
from emulator.control.changes.document import NOTHING, Changes
from emulator.control.truth import Truth
from emulator.limits.redis_store import TIMEOUT_S, StoreError, without_password

KEY = "openai_emulator:control"
# How often the first worker of a server looks; a change reaches it within a second.
LOOK_EVERY_S = 0.25
# Changes are forgotten when no server has looked for so long: the next starts begin anew.
_FORGET_AFTER_S = "60"

# KEYS: the hash. ARGV: revision and mark of what is to be replaced, then of what replaces it, and
# that itself. What is kept must be what is to be replaced, or nothing.
_REPLACE = """
local kept = redis.call('HMGET', KEYS[1], 'revision', 'mark', 'document')
if kept[1] and (kept[1] ~= ARGV[1] or kept[2] ~= ARGV[2]) then return kept[3] end
redis.call('HSET', KEYS[1], 'revision', ARGV[3], 'mark', ARGV[4], 'document', ARGV[5])
redis.call('EXPIRE', KEYS[1], ARGV[6])
return false
"""
# ARGV: revision and mark of what a server has. It is told what is kept, if that is something else.
_LOOK = """
local kept = redis.call('HMGET', KEYS[1], 'revision', 'mark')
if not kept[1] then return 'nothing' end
redis.call('EXPIRE', KEYS[1], ARGV[3])
if kept[1] == ARGV[1] and kept[2] == ARGV[2] then return false end
return redis.call('HGET', KEYS[1], 'document')
"""

logger = logging.getLogger("bentoml.openai_emulator")


def kept_at_start(url: str) -> bytes:
    """Return the document that other servers share by now, empty if there is none.

    Raises:
        StoreError: Redis cannot be reached.
    """
    try:
        client = redis.Redis.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        )
        with client:
            return cast(bytes, client.hget(KEY, "document") or b"")
    except (RedisError, OSError, ValueError) as error:
        raise StoreError(f"{without_password(url)}: {error}") from None


class RedisKeeper:
    """The changes that all servers with the same Redis share.

    ``problem`` says why it cannot be reached, and is empty while it can.
    """

    def __init__(self, url: str) -> None:
        self.shown_url = without_password(url)
        self.problem = ""
        self._client = redis.asyncio.Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),  # a change that was made must not be made again
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
        )
        self._replace = self._client.register_script(_REPLACE)
        self._look = self._client.register_script(_LOOK)

    async def replace(self, old: Changes, new: Changes) -> Changes | None:
        """Put new changes in the place of the old ones.

        Returns:
            None, or what is kept in the place of the old ones.

        Raises:
            APIError: Redis cannot be reached, so that nothing has changed.
        """
        try:
            kept = await self._replace(
                [KEY],
                [*map(str, (*old[:2], *new[:2])), new.packed(), _FORGET_AFTER_S],
            )
        except (RedisError, OSError) as error:
            self._away(error)
            raise APIError(
                f"Nothing has changed: the store {self.shown_url} cannot be reached.",
                status=503,
                type="service_unavailable_error",
                code="store_is_away",
                headers={"retry-after": "1"},
            ) from None
        self._back()
        return None if kept is None else Changes.unpacked(kept)

    async def later(self, own: Changes) -> Changes | None:
        """Return the other servers' changes, if they differ from this server's.

        What this server has is shared where nothing is kept, or something older: Redis has come
        back with less than it had.
        """
        try:
            if self.problem:  # connections to a Redis that has ended would each fail a change
                await self._client.connection_pool.disconnect(inuse_connections=False)
            kept = await self._look([KEY], [str(own.revision), str(own.mark), _FORGET_AFTER_S])
            found = NOTHING if kept == b"nothing" else kept and Changes.unpacked(kept)
            if found is not None and found.revision < own.revision:
                old = found if kept != b"nothing" else own
                await self.replace(old, own)
                found = None
        except (RedisError, OSError) as error:
            self._away(error)
            return None
        except APIError:
            return None
        self._back()
        return found if found is not NOTHING else None

    def _away(self, error: Exception) -> None:
        if not self.problem:
            logger.warning("control store=%s away error=%s", self.shown_url, error)
        self.problem = f"{type(error).__name__}: {error}"
        metrics.STORE_AWAY.set(1)

    def _back(self) -> None:
        if self.problem:
            logger.warning("control store=%s back", self.shown_url)
        self.problem = ""
        metrics.STORE_AWAY.set(0)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()


class Follower:
    """Takes what other servers have changed, in the first worker of this one.

    Args:
        truth: Gets it.
        keeper: What they share.
    """

    def __init__(self, truth: Truth, keeper: RedisKeeper) -> None:
        self._truth = truth
        self._keeper = keeper
        self._next_s = 0.0
        self._task: asyncio.Task[Any] | None = None

    def tick(self) -> None:
        """Look if it is time; called many times a second."""
        now_s = time.monotonic()
        if now_s >= self._next_s and self._task is None:
            self._next_s = now_s + LOOK_EVERY_S
            if self._truth.members.is_first() or self._keeper.problem:
                self._task = asyncio.get_running_loop().create_task(self._once())

    async def _once(self) -> None:
        try:
            found = await self._keeper.later(self._truth.changes)
            if found is not None:
                await self._truth.adopt(found)
        finally:
            self._task = None
