"""The generator of timed tokens and the pump: all events once, in order, none early."""

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import pytest

import tokenizer
from emulator.serving import pump as serving_pump
from emulator.serving.pump import Pump
from emulator.timing.pace import Pace
from emulator.timing.plan import GenerationPlan
from tests.support.simulated.loop import SimulatedLoop, run_on, simulated_clock
from tokenizer import TokenGenerator

EVENTS = 60


@dataclass
class Numbers:
    """A stream of numbers, of which some are ready before they are due."""

    at_once: int
    is_quick: bool = True
    events: int = EVENTS
    tokens_per_event: int = 1
    events_per_write: int = 16
    may_hold_back: bool = False
    shares: Sequence[None] = (None,)

    def render(self, first: int, upto: int, _: object) -> str:
        """Return some numbers, each on a line."""
        return "".join(f"{number}\n" for number in range(first, upto))

    def ahead(self, first: int) -> list[bytes]:
        """Return the next numbers."""
        upto = min(first + self.at_once, self.events)
        return [self.render(number, number + 1, None).encode() for number in range(first, upto)]

    def departing(self, _: int, __: int) -> None:
        """Hold nothing back."""


@dataclass
class Client:
    """Takes blocks at once, but now and then refuses one."""

    loop: SimulatedLoop
    refuses: float
    random: random.Random
    taken: list[tuple[float, bytes]] = field(default_factory=list)
    refused: int = 0
    sent: int = 0

    def write(self, block: bytes) -> bool:
        """Take a block or not, which takes a moment."""
        self.loop.work(self.random.choice([0, 0, 5e-6, 2e-3]))
        if self.random.random() < self.refuses:
            self.refused += 1
            return False
        self.taken.append((self.loop.time(), block))
        return True

    async def send(self, block: bytes) -> None:
        """Take a block, however long that takes."""
        self.sent += 1
        self.taken.append((self.loop.time(), block))


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> SimulatedLoop:
    """Return a loop whose time is simulated, by which generator and pump go."""
    return simulated_clock(monkeypatch, tokenizer, serving_pump)


def due_times(chance: random.Random) -> list[float]:
    """Return when the events are due: some together, some within microseconds, some later."""
    due_s, times = 0.0, []
    for _ in range(EVENTS):
        due_s += chance.choice([0, 0, 1e-5, 1e-3, 4e-3])
        times.append(due_s)
    return times


Play = Callable[[Numbers, GenerationPlan, float, Pace, Client], Awaitable[None]]


async def generate(
    stream: Numbers, plan: GenerationPlan, start_s: float, pace: Pace, client: Client
) -> None:
    """Let the plain generator give out the events, and hand each block to the client."""
    async with aclosing(TokenGenerator().generate(stream, plan, start_s, pace)) as blocks:
        async for block in blocks:
            await client.send(block)


async def pump(
    stream: Numbers, plan: GenerationPlan, start_s: float, pace: Pace, client: Client
) -> None:
    """Let the pump give out the events."""
    await Pump(stream, plan, start_s, pace, client.write, client.send).run()


@pytest.mark.parametrize("refuses", [0, 0.2, 1])
@pytest.mark.parametrize("at_once", [0, 1, 7, EVENTS])
@pytest.mark.parametrize("play", [generate, pump])
def test_every_event_leaves_once(
    loop: SimulatedLoop, play: Play, at_once: int, refuses: float
) -> None:
    """Events leave in order and none is early, be they written or sent, ready or not."""
    chance = random.Random(f"{at_once} {refuses}")
    client, times, stream = Client(loop, refuses, chance), due_times(chance), Numbers(at_once)
    plan = GenerationPlan(EVENTS, "stop", times[0], 0.001, offsets=times)

    async def main() -> tuple[float, Pace]:
        start_s = 0.005
        pace = Pace(plan, start_s, 1, keep_gaps=True)
        await play(stream, plan, start_s, pace, client)
        return start_s, pace

    start_s, pace = run_on(loop, main())
    assert b"".join(block for _, block in client.taken) == stream.render(0, EVENTS, None).encode()
    assert all(len(block.split()) <= stream.events_per_write for _, block in client.taken)
    assert client.sent == (client.refused if play is pump else len(client.taken))
    for now_s, block in client.taken:
        assert now_s >= start_s + times[int(block.split()[-1])]
    assert pace.events == EVENTS
    assert 0 <= pace.worst_lag_s < 0.002 * EVENTS


def test_slow_events_are_rendered_in_a_thread() -> None:
    """A stream that takes long to render keeps the event loop free, and loses nothing."""
    texts: list[bytes] = []
    threads, stream = set(), Numbers(0, is_quick=False)
    plan, render = GenerationPlan(EVENTS, "stop", 0, 0), stream.render

    def watched(first: int, upto: int, share: None) -> str:
        threads.add(threading.current_thread())
        return render(first, upto, share)

    stream.render = watched  # type: ignore[method-assign, assignment]

    async def main() -> None:
        pace = Pace(plan, start_s := monotonic(), 1, keep_gaps=False)
        async with aclosing(TokenGenerator().generate(stream, plan, start_s, pace)) as blocks:
            texts.extend([block async for block in blocks])

    asyncio.run(main())
    assert threading.main_thread() not in threads
    assert b"".join(texts) == render(0, EVENTS, None).encode()


@pytest.mark.parametrize("play", [generate, pump])
def test_what_is_due_together_leaves_together(loop: SimulatedLoop, play: Play) -> None:
    """A block holds all that are due, however few of them were ready."""
    client, stream = Client(loop, 0, random.Random(0)), Numbers(1)
    plan = GenerationPlan(10, "stop", 0.01, 0)
    stream.events = 10

    async def main() -> None:
        await play(stream, plan, 0, Pace(plan, 0, 1, keep_gaps=False), client)

    run_on(loop, main())
    assert [block for _, block in client.taken] == [stream.render(0, 10, None).encode()]


def test_no_task_wakes_while_a_stream_is_in_time(loop: SimulatedLoop) -> None:
    """The clock takes the steps of a stream that is in time, and its task sleeps to the end."""
    client, wakes = Client(loop, 0, random.Random(0)), 0
    plan = GenerationPlan(EVENTS, "stop", 0.01, 0.005)

    async def main() -> None:
        playing = pump(Numbers(7), plan, 0, Pace(plan, 0, 1, keep_gaps=False), client)

        class Counted:
            """Awaits the pump, and counts how often its task goes on."""

            def __await__(self) -> Generator[Any, None, None]:
                nonlocal wakes
                waiting = playing.__await__()
                with suppress(StopIteration):
                    while True:
                        future = next(waiting)
                        wakes += 1
                        yield future

        await Counted()

    run_on(loop, main())
    assert len(client.taken) == EVENTS
    assert wakes == 1
