"""The generator of timed tokens: all events once, in order, none early, whoever sends them."""

import random
from collections.abc import Generator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest

import tokenizer
from emulator.timing.pace import Pace
from emulator.timing.plan import GenerationPlan
from tests.support.simulated_time import SimulatedLoop, run_on, simulated_clock
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
    holds: bool = False
    shares: Sequence[None] = (None,)

    def render(self, first: int, upto: int, _: object) -> str:
        """Return some numbers, each on a line."""
        return "".join(f"{number}\n" for number in range(first, upto))

    def ahead(self, first: int) -> list[bytes]:
        """Return the next numbers."""
        upto = min(first + self.at_once, self.events)
        return [self.render(number, number + 1, None).encode() for number in range(first, upto)]

    def leaving(self, _: int, __: int) -> None:
        """Hold nothing back."""


@dataclass
class Client:
    """Takes blocks at once, but now and then refuses one."""

    loop: SimulatedLoop
    refuses: float
    random: random.Random
    taken: list[tuple[float, bytes]] = field(default_factory=list)
    refused: int = 0
    yielded: int = 0

    def write(self, block: bytes) -> bool:
        """Take a block or not."""
        self.loop.work(self.random.choice([0, 0, 5e-6, 2e-3]))
        if self.random.random() < self.refuses:
            self.refused += 1
            return False
        self.taken.append((self.loop.time(), block))
        return True


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> SimulatedLoop:
    """Return a loop whose time is simulated, which the generator goes by."""
    return simulated_clock(monkeypatch, tokenizer)


def due_times(chance: random.Random) -> list[float]:
    """Return when the events are due: some together, some within microseconds, some later."""
    due_s, times = 0.0, []
    for _ in range(EVENTS):
        due_s += chance.choice([0, 0, 1e-5, 1e-3, 4e-3])
        times.append(due_s)
    return times


@pytest.mark.parametrize("refuses", [0, 0.2, 1])
@pytest.mark.parametrize("at_once", [0, 1, 7, EVENTS])
@pytest.mark.parametrize("is_quick", [True, False])
def test_every_event_leaves_once(
    loop: SimulatedLoop, at_once: int, refuses: float, is_quick: bool
) -> None:
    """Events leave in order and none is early, be they written or yielded, ready or not."""
    chance = random.Random(f"{at_once} {refuses} {is_quick}")
    client = Client(loop, refuses, chance)
    times = due_times(chance)
    stream = Numbers(at_once if is_quick else 0, is_quick)
    plan = GenerationPlan(EVENTS, "stop", times[0], 0.001, offsets=times)

    async def main() -> tuple[float, Pace]:
        start_s = 0.005
        pace = Pace(plan, start_s, 1, keep_gaps=True)
        blocks = TokenGenerator().generate(stream, plan, start_s, pace, write=client.write)
        async with aclosing(blocks):
            async for block in blocks:
                client.taken.append((loop.time(), block))
                client.yielded += 1
        return start_s, pace

    start_s, pace = run_on(loop, main())
    assert b"".join(block for _, block in client.taken) == stream.render(0, EVENTS, None).encode()
    assert all(len(block.split()) <= stream.events_per_write for _, block in client.taken)
    assert client.yielded == client.refused
    for now_s, block in client.taken:
        assert now_s >= start_s + times[int(block.split()[-1])]
    assert pace.events == EVENTS
    assert 0 <= pace.worst_lag_s < 0.002 * EVENTS


def test_what_is_due_together_leaves_together(loop: SimulatedLoop) -> None:
    """A block holds all that are due, however few of them were ready."""
    client, stream = Client(loop, 0, random.Random(0)), Numbers(1)
    plan = GenerationPlan(10, "stop", 0.01, 0)
    stream.events = 10

    async def main() -> None:
        pace = Pace(plan, 0, 1, keep_gaps=False)
        blocks = TokenGenerator().generate(stream, plan, 0, pace, write=client.write)
        assert [block async for block in blocks] == []

    run_on(loop, main())
    assert [block for _, block in client.taken] == [stream.render(0, 10, None).encode()]


def test_no_task_wakes_while_a_stream_is_in_time(loop: SimulatedLoop) -> None:
    """The clock takes the steps of a stream that is in time, and its task sleeps to the end."""
    client, wakes = Client(loop, 0, random.Random(0)), 0
    plan = GenerationPlan(EVENTS, "stop", 0.01, 0.005)

    async def main() -> None:
        pace = Pace(plan, 0, 1, keep_gaps=False)
        generator = TokenGenerator().generate(Numbers(7), plan, 0, pace, write=client.write)
        step = generator.__anext__()

        class Counted:
            """Awaits a step of the generator, and counts how often it goes on."""

            def __await__(self) -> Generator[Any, None, Any]:
                nonlocal wakes
                waiting = step.__await__()
                try:
                    while True:
                        future = next(waiting)
                        wakes += 1
                        yield future
                except StopIteration as end:
                    return end.value

        with pytest.raises(StopAsyncIteration):
            await Counted()

    run_on(loop, main())
    assert len(client.taken) == EVENTS
    assert wakes == 1
