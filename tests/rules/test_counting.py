"""Counts are exact: over processes, over hosts that share a Redis, and for each scope."""

import asyncio
import multiprocessing
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis

from emulator.contract.errors import APIError
from emulator.rules import counting
from emulator.rules.counting import SharedCounts
from emulator.rules.redis_counts import RedisCounts
from tests.support.process import free_port
from tests.support.server import eventually


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return the file of an empty table."""
    file = tmp_path / "table"
    file.touch()
    return file


def count_many(file: Path, start_s: float, times: int) -> Sequence[int]:
    """Count in a process of its own, from an instant on."""
    counts = SharedCounts(file)
    while time.monotonic() < start_s:
        pass
    return [counts.add("key") for _ in range(times)]


def test_counts_are_exact_over_processes(table: Path, tmp_path: Path) -> None:
    """Four processes that count one rule at once never see the same count twice."""
    times = 5000
    (tmp_path / "warm-up").touch()
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(count_many, [(tmp_path / "warm-up", 0, 1)] * 4, chunksize=1)
        start_s = time.monotonic() + 0.2
        seen = pool.starmap(count_many, [(table, start_s, times)] * 4, chunksize=1)
    assert sorted(count for counts in seen for count in counts) == [*range(4 * times)]


def test_names_and_scopes_are_counted_apart(table: Path) -> None:
    """Each name has a count of its own in each scope, which outlives the process that counted."""
    counts = SharedCounts(table)
    assert [counts.add(name) for name in ("a", "b", "a", "a", "b")] == [0, 0, 1, 2, 1]
    assert [counts.add("a", scope) for scope in ("x", "y", "x")] == [0, 0, 1]
    assert SharedCounts(table).add("a") == 3


def test_counts_begin_anew(table: Path) -> None:
    """What counts since another revision has counts of its own, in every process."""
    counts, other = SharedCounts(table), SharedCounts(table)
    assert [each.add("a", "x", since) for since in (0, 5) for each in (counts, other)] == [0, 1] * 2


def test_ten_thousand_scopes_are_kept(table: Path) -> None:
    """The counts of 10,000 scopes are kept side by side."""
    counts = SharedCounts(table, alone=True)
    for scope in range(10_000):
        counts.add("a", str(scope))
    assert [counts.add("a", str(scope)) for scope in range(10_000)] == [1] * 10_000


def test_oldest_gives_way(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room, what has not been counted for longest begins anew."""
    monkeypatch.setattr(counting, "MAX_COUNTS", 16)
    counts = SharedCounts(table)
    for key in range(16):
        counts.add(str(key))
    counts.add("0")
    counts.add("one more")
    assert counts.add("0") == 2
    assert counts.add("1") == 0


# --------------------------------------------------------------------------------------
# Redis
# --------------------------------------------------------------------------------------


@pytest.fixture
def redis_url() -> Iterator[str]:
    """Yield the address of a Redis of this test."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    port = free_port()
    command = [program, "--port", str(port), "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:  # noqa: S603 - our own
        try:
            url = f"redis://127.0.0.1:{port}/0"
            with redis.Redis.from_url(url) as client:
                assert eventually(lambda: _answers(client))
            yield url
        finally:
            process.terminate()


def _answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def test_counts_in_redis_are_exact(redis_url: str) -> None:
    """Two hosts that count at once never see the same count twice; scopes are kept apart."""

    async def count() -> list[int]:
        hosts = RedisCounts(redis_url), RedisCounts(redis_url)
        try:
            found = await asyncio.gather(*(hosts[i % 2].add("a") for i in range(200)))
            found += [await hosts[0].add("a", "x"), await hosts[1].add("a", "x")]
            return [*found, await hosts[1].add("a", "x", 5), await hosts[1].add("a")]
        finally:
            for host in hosts:
                await host.close()

    found = asyncio.run(count())
    assert sorted(found[:200]) == [*range(200)]
    assert found[200:] == [0, 1, 0, 200]


def test_without_redis_nothing_is_counted() -> None:
    """A store that is away is a 503, and not a count that may be wrong."""

    async def count() -> int:
        counts = RedisCounts(f"redis://127.0.0.1:{free_port()}/0")
        try:
            return await counts.add("a")
        finally:
            await counts.close()

    with pytest.raises(APIError) as caught:
        asyncio.run(count())
    assert (caught.value.status, caught.value.body.code) == (503, "store_unavailable")
