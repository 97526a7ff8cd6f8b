"""Connections that clients keep and ask through now and then: they see no reset."""

import asyncio
import time
from collections.abc import Sequence

import httpx
import pytest

from tests.support.server import TLS, args, running_server
from tests.support.wire import CHAT_PATH, chat, headers

pytestmark = pytest.mark.usefixtures("local_only")

PAUSES_S = (5, 30, 65)
IDLE_S = 120  # the default
SHORTER = 30  # times
CONNECTIONS, ROUNDS = 50, 4


async def finds(url: str, pause_s: float, idle_s: float) -> list[bool]:
    """Ask in rounds through a pool of one connection; return whether each round found it again.

    A round that a busy machine ends too late to tell is left out.
    """
    found, last = [], (-idle_s, None)
    limits = httpx.Limits(max_connections=1, keepalive_expiry=600)
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False, verify=TLS) as client:
        for number in range(ROUNDS):
            await asyncio.sleep(pause_s if number else 0)
            begun_s = time.monotonic()
            try:
                answer = await client.post(url + CHAT_PATH, json=chat(), headers=headers())
            except httpx.TransportError:
                end = None  # the server closed the connection as the request left
            else:
                assert answer.status_code == 200
                end = answer.extensions["network_stream"].get_extra_info("client_addr")
            if time.monotonic() - last[0] < 0.95 * idle_s:
                found.append(end is not None and end == last[1])
            last = begun_s, end
    return found


async def all_finds(url: str, shorter: float) -> Sequence[Sequence[bool]]:
    """Return what all pools of all pauses found, which ask at once."""
    return await asyncio.gather(
        *(
            finds(url, pause_s / shorter, IDLE_S / shorter)
            for pause_s in PAUSES_S
            for _ in range(CONNECTIONS)
        )
    )


@pytest.mark.parametrize(
    "shorter", [SHORTER, pytest.param(1, marks=pytest.mark.long)], ids=["shortened", "true time"]
)
def test_pools_see_no_reset(shorter: float) -> None:
    """Pools of httpx find connections again after 5, 30 and 65 s, in 200 requests each."""
    with running_server(*args(workers=1, keep_alive_s=IDLE_S / shorter)) as server:
        found = [
            each for of_pool in asyncio.run(all_finds(server.url, shorter)) for each in of_pool
        ]
    assert found
    assert all(found), f"{found.count(False)} of {len(found)} were closed"
