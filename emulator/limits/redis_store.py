"""Buckets in Redis, shared by several hosts: one atomic script a request, on Redis's clock."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from emulator.limits.buckets import Bucket, Limits, Verdict
from emulator.settings import MAX_RATE_LIMIT

TIMEOUT_S = 1.0
PROBE_EVERY_S = 0.5
LOG_EVERY_S = 60.0
# Of each worker; requests beyond these wait for a connection.
MAX_CONNECTIONS = 16

logger = logging.getLogger("bentoml.openai_emulator")

# emulator/limits/buckets.py in Lua, with the same integers; a test compares the two.
# ARGV: tokens, or -1 to look only; limit, window length and stride of each bucket, or zeros;
# the time in ticks, in tests.
SCRIPT = """
local tokens = tonumber(ARGV[1])
local now = tonumber(ARGV[8])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 100000 + math.floor(time[2] / 10)
end
local state = {now, 0, 0, 0, 0}
local stored = redis.call('GET', KEYS[1])
if stored then
  local field = 1
  for digits in string.gmatch(stored, '%d+') do
    state[field] = tonumber(digits)
    field = field + 1
  end
end
local cost = {1, tokens}
local limit, length, stride = {}, {}, {}
local debt, promised, fits_at = {0, 0}, {state[4], state[5]}, {now, now}
local refused = false

local function tick_of_debt(b, at_most)
  local over = debt[b] - at_most
  if over <= 0 then return now end
  return (math.floor(now / stride[b]) + math.ceil(over / limit[b])) * stride[b]
end

for b = 1, 2 do
  limit[b] = tonumber(ARGV[3 * b - 1])
  length[b] = tonumber(ARGV[3 * b])
  stride[b] = tonumber(ARGV[3 * b + 1])
  if limit[b] > 0 then
    local passed = math.max(0, math.floor(now / stride[b]) - math.floor(state[1] / stride[b]))
    debt[b] = math.max(0, math.min(state[b + 1], limit[b] * length[b]) - passed * limit[b])
    fits_at[b] = tick_of_debt(b, (limit[b] - cost[b]) * length[b])
    refused = refused or fits_at[b] > now
  end
end

local function left(b)
  if limit[b] == 0 then return -1 end
  return math.floor((limit[b] * length[b] - debt[b]) / length[b])
end

if tokens < 0 then return {left(1), left(2), 0, 0} end

local first, turn = 0, now
if refused and limit[2] > 0 and tokens > limit[2] then
  first = 2
elseif refused then
  for b = 1, 2 do
    if fits_at[b] > now then
      local mine = fits_at[b]
      local behind = math.min(promised[b], now + length[b] * stride[b])
      if behind > now then
        mine = math.max(mine, behind + math.ceil(cost[b] * length[b] / limit[b]) * stride[b])
      end
      promised[b] = mine
      if mine > turn then first, turn = b, mine end
    end
  end
else
  for b = 1, 2 do
    if limit[b] > 0 then debt[b] = debt[b] + cost[b] * length[b] end
  end
end

local full = math.max(promised[1], promised[2])
for b = 1, 2 do
  if limit[b] > 0 then full = math.max(full, tick_of_debt(b, 0)) end
end
local kept = string.format(
  '%.0f %.0f %.0f %.0f %.0f', now, debt[1], debt[2], promised[1], promised[2])
redis.call('SET', KEYS[1], kept, 'PX', 1 + math.ceil(math.max(0, full - now) / 100))
return {left(1), left(2), first, math.ceil((turn - now) / 100)}
"""


class StoreError(ValueError):
    """Redis cannot be used; the message says why, without the password."""


def without_password(url: str) -> str:
    """Return an address that may be logged."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=(user and "***") + at + host, query=""))


def check_store(url: str) -> None:
    """Check that Redis can be reached and runs the script.

    Raises:
        StoreError: It does not.
    """
    try:
        client = redis.Redis.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        )
        with client:
            enough = Limits(Bucket("requests", MAX_RATE_LIMIT))
            client.eval(SCRIPT, 1, _name(b"check"), *_arguments(enough, 0))
    except (RedisError, OSError, ValueError) as error:
        raise StoreError(f"{without_password(url)}: {error}") from None


class RedisStore:
    """The buckets of all emulators that use the same Redis.

    While Redis is away requests pass without limits, and a task asks twice a second whether it is
    back. No request waits for it longer than a second.
    """

    def __init__(self, url: str, on_unlimited: Callable[[], None]) -> None:
        """Take the URL, and what to call for each request that passes while Redis is away."""
        self._shown_url = without_password(url)
        self._on_unlimited = on_unlimited
        self._client = redis.asyncio.Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),  # a script that ran must not run twice
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
        )
        self._turns = asyncio.Semaphore(MAX_CONNECTIONS)
        self._script = self._client.register_script(SCRIPT)
        self._asking: set[asyncio.Task[list[int]]] = set()
        self._probe: asyncio.Task[None] | None = None
        self._log_next_s = 0.0
        self._unlimited = 0
        self._error = ""
        self._told = False

    async def take(self, digest: bytes, limits: Limits, tokens: int) -> Verdict | None:
        """Take a request of `tokens` from both buckets, or nothing from either.

        Returns:
            None if Redis is away.
        """
        return await self._run(digest, limits, tokens)

    async def look(self, digest: bytes, limits: Limits) -> Verdict | None:
        """Return what is left in both buckets, or None if Redis is away."""
        return await self._run(digest, limits, -1)

    async def _run(self, digest: bytes, limits: Limits, tokens: int) -> Verdict | None:
        if self._probe is None:
            asking = asyncio.create_task(self._ask(digest, limits, tokens))
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)
            try:
                # In a task, because closing a connection may take seconds.
                await asyncio.wait([asking], timeout=TIMEOUT_S)
                if not asking.done():
                    raise TimeoutError
                return _verdict(limits, asking.result(), tokens)
            except (RedisError, OSError) as error:
                self._lose(error)
            finally:
                asking.cancel()
        self._pass(tokens)
        return None

    async def _ask(self, digest: bytes, limits: Limits, tokens: int) -> list[int]:
        async with self._turns:
            answer = await self._script([_name(digest)], _arguments(limits, tokens))
        return cast(list[int], answer)

    def _pass(self, tokens: int) -> None:
        if tokens < 0:
            return
        self._unlimited += 1
        self._on_unlimited()
        if time.monotonic() >= self._log_next_s:
            self._log_next_s = time.monotonic() + LOG_EVERY_S
            self._told = True
            logger.warning(
                "limits store=%s away error=%s unlimited_requests=%d",
                self._shown_url,
                self._error,
                self._unlimited,
            )

    def _lose(self, error: Exception) -> None:
        if self._probe is None:
            self._error = f"{type(error).__name__}: {error}"
            self._probe = asyncio.create_task(self._wait_until_back())

    async def _wait_until_back(self) -> None:
        while self._probe is not None:
            await asyncio.sleep(PROBE_EVERY_S)
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    # Else each connection to the Redis that went away would fail a request.
                    await self._client.connection_pool.disconnect(inuse_connections=False)
                    await cast(Awaitable[Any], self._client.ping())
            except (RedisError, OSError) as error:
                self._error = f"{type(error).__name__}: {error}"
            else:
                self._probe = None
        if self._told:
            logger.warning("limits store=%s back", self._shown_url)
            self._told = False

    async def close(self) -> None:
        """Close the connections."""
        if self._probe is not None:
            self._probe.cancel()
        await self._client.aclose()


def _name(digest: bytes) -> str:
    return f"openai_emulator:limits:{digest.hex()}"


def _arguments(limits: Limits, tokens: int) -> list[int]:
    return [tokens, *_numbers(limits.requests), *_numbers(limits.tokens)]


def _numbers(bucket: Bucket | None) -> tuple[int, int, int]:
    return (bucket.limit, bucket.unit, bucket.stride) if bucket else (0, 0, 0)


def _verdict(limits: Limits, answer: list[int], tokens: int) -> Verdict:
    requests_left, tokens_left, refused, retry_ms = answer
    return Verdict(
        requests_left if limits.requests else None,
        tokens_left if limits.tokens else None,
        tuple(limits)[refused - 1] if refused else None,
        retry_ms,
        (1, tokens)[refused - 1] if refused else 0,
    )
