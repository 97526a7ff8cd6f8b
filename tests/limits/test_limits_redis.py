"""Limits in a real Redis: the script's arithmetic, several hosts, and what happens without it."""

import asyncio
import logging
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings

from emulator.limits.buckets import Bucket, Limits, Verdict, take
from tests.limits.test_limits import FULL, NOW, pairs, steps
from tests.serving.test_settings import failed_start
from tests.support.process import free_port
from tests.support.server import Server, eventually, running_server
from tests.support.wire import Answer, Post, chat, headers, post_together

redis = pytest.importorskip("redis", reason="the package redis is optional")
if shutil.which("redis-server") is None:
    pytest.skip("needs Debian's redis-server", allow_module_level=True)

from emulator.limits import redis_store  # noqa: E402 - needs the package
from emulator.limits.redis_store import RedisStore, StoreError, check_store, without_password  # noqa: E402

LIMITS = Limits(Bucket("requests", 600), Bucket("tokens", 1_000_000))


@contextmanager
def running_redis(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run redis-server on `port` while the body runs; the body may kill it."""
    process = subprocess.Popen(  # noqa: S603 - our own command line
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""],  # noqa: S607
        stdout=subprocess.DEVNULL,
    )
    try:
        assert eventually(lambda: answers(port))
        yield process
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    """Tell whether a Redis answers on `port`."""
    try:
        with redis.Redis(port=port) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Yield the port of a Redis that runs."""
    chosen = free_port()
    with running_redis(chosen):
        yield chosen


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pairs, steps)
def test_script_counts_as_python_does(
    port: int, limits: Limits, requests: list[tuple[int, int]]
) -> None:
    """For any requests at any times the script says what the arithmetic in Python says."""
    # Time is simulated, so that nothing may expire in real time.
    text, replaced = re.subn(r", kept, 'PX'.*", ", kept)", redis_store.SCRIPT)
    assert replaced == 1
    state, now = FULL, NOW
    with redis.Redis(port=port) as client:
        client.delete("state")
        script = client.register_script(text)
        for wait, tokens in requests:
            now += wait
            state, verdict = take(limits, state, tokens, now)
            answer = script(["state"], [*redis_store._arguments(limits, tokens), now])
            assert redis_store._verdict(limits, answer, tokens) == verdict


async def take_many(store: RedisStore, count: int) -> list[Verdict | None]:
    """Take `count` requests at once from one bucket."""
    return await asyncio.gather(*(store.take(b"bucket", LIMITS, 10) for _ in range(count)))


def store_at(port: int) -> RedisStore:
    """Return a store whose unlimited requests go unnoticed."""
    return RedisStore(f"redis://127.0.0.1:{port}", lambda: None)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stores wait for a Redis that is slow because the machine is."""
    monkeypatch.setattr(redis_store, "TIMEOUT_S", 300.0)


@pytest.mark.anyio
@pytest.mark.usefixtures("patient")
async def test_hosts_share_a_bucket_exactly(port: int) -> None:
    """Of two hosts' requests at once the limit passes, plus what refilled, each value once."""
    stores = [store_at(port) for _ in range(2)]
    start_s = time.monotonic()

    answers = await asyncio.gather(*(take_many(store, 500) for store in stores))
    refilled = (time.monotonic() - start_s) * 10

    passed = Counter(
        verdict.requests_left
        for some in answers
        for verdict in some
        if verdict and not verdict.refused
    )
    assert set(passed) == set(range(600))
    assert passed.total() <= 600 + refilled
    for store in stores:
        await store.close()


@pytest.mark.anyio
@pytest.mark.usefixtures("patient")
async def test_buckets_are_forgotten_when_full(port: int) -> None:
    """A bucket leaves Redis's memory when it is full again."""
    store = store_at(port)
    await store.take(b"forgotten", Limits(Bucket("requests", 600_000)), 0)
    await store.close()

    with redis.Redis(port=port) as client:
        assert eventually(lambda: not client.exists(redis_store._name(b"forgotten")))


@pytest.mark.anyio
@pytest.mark.usefixtures("patient")
async def test_looking_takes_nothing(port: int) -> None:
    """What is left can be told without taking anything."""
    store = store_at(port)

    looks = [await store.look(b"looked at", LIMITS) for _ in range(3)]
    await store.close()

    assert looks == [Verdict(600, 1_000_000)] * 3


@pytest.mark.anyio
async def test_requests_pass_without_redis_and_limits_hold_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While Redis is away all requests pass at once, with one log line; then limits hold again."""
    port, unlimited = free_port(), []
    limits = Limits(Bucket("requests", 1))
    with running_redis(port) as process:
        store = RedisStore(f"redis://:secret@127.0.0.1:{port}", lambda: unlimited.append(1))
        with redis.Redis(port=port) as client:
            client.config_set("requirepass", "secret")
        assert await store.take(b"bucket", limits, 0) == Verdict(0, None)
        process.kill()
        process.wait()

        start_s = time.monotonic()
        with caplog.at_level(logging.WARNING):
            verdicts = [await store.take(b"bucket", limits, 0) for _ in range(100)]
        assert verdicts == [None] * 100
        assert len(unlimited) == 100
        assert time.monotonic() - start_s < 20 * redis_store.TIMEOUT_S  # if all waited: 100
        assert len(caplog.records) == 1
        assert "secret" not in caplog.text
    with running_redis(port):
        known = await until_known(store, limits)
        assert known[-1].refused == limits.requests
        await store.close()


async def until_known(store: RedisStore, limits: Limits) -> list[Verdict]:
    """Take requests until Redis has counted two."""
    known: list[Verdict] = []
    async with asyncio.timeout(60):
        while len(known) < 2:
            verdict = await store.take(b"bucket", limits, 0)
            if verdict is not None:
                known.append(verdict)
            await asyncio.sleep(0.02)
    return known


@pytest.mark.anyio
async def test_a_redis_that_hangs_delays_nobody_for_long() -> None:
    """A Redis that does not answer holds requests up once, for a second, and then none."""
    port = free_port()
    with running_redis(port) as process:
        store = store_at(port)
        assert await store.take(b"bucket", LIMITS, 0)
        process.send_signal(signal.SIGSTOP)
        start_s = time.monotonic()
        assert await take_many(store, 100) == [None] * 100
        first_s = time.monotonic() - start_s
        assert await take_many(store, 100) == [None] * 100
        second_s = time.monotonic() - start_s - first_s
        await store.close()

    assert redis_store.TIMEOUT_S <= first_s < 20 * redis_store.TIMEOUT_S  # if each waited: 100
    assert second_s < first_s


def test_a_store_that_is_not_there() -> None:
    """A Redis that cannot be reached is told with its address and without its password."""
    url = f"redis://user:secret@127.0.0.1:{free_port()}/0"

    with pytest.raises(StoreError) as caught:
        check_store(url)

    assert "redis://***@127.0.0.1:" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:secret@localhost", "redis://***@localhost"),
        ("redis://localhost?password=secret", "redis://localhost"),
    ],
)
def test_addresses_are_shown_without_password(url: str, shown: str) -> None:
    """An address in a message holds no password."""
    assert without_password(url) == shown


def test_a_store_that_is_there(port: int) -> None:
    """A Redis that runs the script is good."""
    check_store(f"redis://127.0.0.1:{port}")


# --------------------------------------------------------------------------------------
# Real servers
# --------------------------------------------------------------------------------------


@contextmanager
def two_emulators(port: int, rpm: int) -> Iterator[tuple[Server, Server]]:
    """Run two emulators with one worker each and a Redis between them."""
    settings = [f"rpm={rpm}", f"store=redis://127.0.0.1:{port}", "workers=1"]
    arguments = [word for setting in settings for word in ("--arg", setting)]
    with (
        running_server(*arguments, ready=False) as first,
        running_server(*arguments) as second,
    ):
        first.wait_until_ready()
        yield first, second


def post_to_both(servers: Sequence[Server], count: int, **parameters: object) -> list[Answer]:
    """Send `count` requests at once to each server, and return all answers."""
    posts = [Post(chat(**parameters), headers())] * count
    with ThreadPoolExecutor(len(servers)) as pool:
        answers = pool.map(lambda server: post_together(server.address, posts), servers)
        return [answer for some in answers for answer in some]


@pytest.mark.slow
@pytest.mark.usefixtures("local_only")
def test_two_emulators_share_a_limit_through_redis(port: int) -> None:
    """Of requests to two emulators at once the limit passes, plus what refilled."""
    with two_emulators(port, rpm=40) as servers:
        start_s = time.monotonic()
        answers = post_to_both(servers, 30)
        refilled = (time.monotonic() - start_s) * 40 / 60
    left = Counter(
        answer.headers["x-ratelimit-remaining-requests"]
        for answer in answers
        if answer.status == 200
    )
    assert set(left) == set(map(str, range(40)))
    assert left.total() <= 40 + refilled


@pytest.mark.slow
@pytest.mark.usefixtures("local_only")
def test_two_emulators_outlive_redis() -> None:
    """While two emulators' Redis is away all requests pass; then the limit holds again."""
    port = free_port()
    with running_redis(port) as process, two_emulators(port, rpm=100) as servers:
        statuses: Counter[int] = Counter()
        enough = threading.Event()

        def load() -> None:
            while not enough.is_set():
                answers = post_to_both(servers, 5, model="under-load")
                statuses.update(answer.status for answer in answers)

        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(load)
            try:
                assert eventually(lambda: statuses[429] > 20)
                process.kill()
                process.wait()
                assert eventually(lambda: unlimited(servers) > 200)
                with running_redis(port):
                    assert eventually(lambda: all(map(knows_limits, servers)))
                    enough.set()
                    loading.result()
                    start_s = time.monotonic()
                    answers = post_to_both(servers, 60, model="new")
                    refilled = (time.monotonic() - start_s) * 100 / 60
                    passed = [answer for answer in answers if answer.status == 200]
            finally:
                enough.set()
        assert set(statuses) == {200, 429}
        assert 100 <= len(passed) <= 100 + refilled
        assert all(server.log().count("limits store=") <= 2 for server in servers)


def knows_limits(server: Server) -> bool:
    """Tell whether a server's answers tell limits."""
    [answer] = post_together(server.address, [Post(chat(), headers())])
    return "x-ratelimit-limit-requests" in answer.headers


def unlimited(servers: Sequence[Server]) -> float:
    """Return how many requests passed without Redis."""
    return sum(server.metrics().total("openai_emulator_unlimited_total") for server in servers)


@pytest.mark.usefixtures("local_only")
def test_a_start_without_redis_stops() -> None:
    """An emulator whose Redis cannot be reached does not start, and says which and why."""
    url = f"redis://:secret@127.0.0.1:{free_port()}"

    message = failed_start("--arg", "rpm=1", "--arg", f"store={url}")

    assert "store" in message
    assert "redis://***@127.0.0.1:" in message
    assert "secret" not in message.replace(url, "")
    assert "Traceback" not in message
