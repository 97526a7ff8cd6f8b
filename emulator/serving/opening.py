"""What a stream does before its first token: when its head leaves, and comments meanwhile."""

import asyncio
import math
from collections.abc import Awaitable, Callable

from emulator.serving.generation import Generation
from emulator.timing.clock import sleep_until

# What client libraries skip (WHATWG HTML, 9.2.6: a line that starts with a colon).
COMMENT = b": keep-alive\n\n"


async def until_first_token(generation: Generation) -> None:
    """Wait until the first token is due; where an engine makes the times, until it has come."""
    due_s = generation.plan.due_s
    while (first_s := due_s(0)) == math.inf and generation.times is not None:
        await generation.times.sleep_until(math.inf)
    await sleep_until(generation.start_s + first_s)


async def hold_head(generation: Generation) -> None:
    """Wait until the head of a stream may leave, with its first token."""
    await until_first_token(generation)
    generation.head_s = generation.exchange.elapsed_s


async def keep_alive(generation: Generation, send: Callable[[bytes], Awaitable[None]]) -> None:
    """Send comments, by the clock of the start, until the first token is due, if that is asked."""
    every_s = 0.0 if generation.opening is None else generation.opening.keepalive_s
    if not every_s:
        return
    first = asyncio.create_task(until_first_token(generation))
    try:
        while not first.done():
            generation.keepalives += 1
            next_s = generation.start_s + generation.keepalives * every_s
            comment = asyncio.create_task(sleep_until(next_s))
            await asyncio.wait([first, comment], return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                await send(COMMENT)
            comment.cancel()
        generation.keepalives -= 1
    finally:
        first.cancel()
