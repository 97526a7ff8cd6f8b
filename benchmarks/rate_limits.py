"""What a limit costs: processor time for each request, in the shared table and in Redis.

python -m benchmarks.rate_limits [--redis redis://localhost:6379/15]
"""

import argparse
import asyncio
import hashlib
import multiprocessing
import os
import resource
import time

from emulator.limits.buckets import Bucket, Limits
from emulator.limits.shared import SharedTable, create_table

LIMITS = Limits(Bucket("requests", 1_000_000), Bucket("tokens", 100_000_000))
REQUESTS = 50_000


def main() -> None:
    """Print the cost of a request."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis", help="address of a Redis to measure")
    options = parser.parse_args()
    path = create_table()
    measure_table(path)
    for processes in (2, 4):
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            costs = pool.map(contend, [path] * processes, chunksize=1)
        print(f"table, {processes} processes at one bucket: {max(costs):.1f} us of processor time")
    if options.redis:
        asyncio.run(measure_redis(options.redis))


def measure_table(path: str) -> None:
    """Print what the table costs a single process, and what 10,000 buckets add to its memory."""
    before_kb = resident_kb()
    table = SharedTable(path)
    digests = [hashlib.blake2b(b"%d" % n, digest_size=16).digest() for n in range(10_000)]
    for digest in digests:
        table.take(digest, LIMITS, 100)
    print(f"table, 10,000 buckets: {(resident_kb() - before_kb) / 1000:.1f} MB")
    for name, chosen in (("one bucket", digests[:1]), ("10,000 buckets", digests)):
        start_s = time.process_time()
        for n in range(REQUESTS):
            table.take(chosen[n % len(chosen)], LIMITS, 100)
        cost_us = (time.process_time() - start_s) / REQUESTS * 1e6
        print(f"table, one process, {name}: {cost_us:.1f} us of processor time")


def contend(path: str) -> float:
    """Take from one bucket and return the processor time of each request, in us."""
    table = SharedTable(path)
    start_s = time.process_time()
    for _ in range(REQUESTS):
        table.take(bytes(16), LIMITS, 100)
    return (time.process_time() - start_s) / REQUESTS * 1e6


async def measure_redis(url: str) -> None:
    """Print what Redis costs a process, one request after another and 16 at a time."""
    from emulator.limits.redis_store import RedisStore  # noqa: PLC0415 - the package is optional

    store = RedisStore(url, on_unlimited=lambda: None)
    digest = os.urandom(16)
    for together in (1, 16):
        start_s, processor_s = time.perf_counter(), time.process_time()
        for _ in range(2000 // together):
            await asyncio.gather(*(store.take(digest, LIMITS, 100) for _ in range(together)))
        cost_us = (time.process_time() - processor_s) / 2000 * 1e6
        wall_us = (time.perf_counter() - start_s) / 2000 * 1e6
        print(f"redis, {together} at a time: {cost_us:.0f} us of processor time, {wall_us:.0f} us")
    await store.close()


def resident_kb() -> int:
    """Return the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
