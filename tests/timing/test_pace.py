"""When tokens left, beside when they were due: the figures for times that are made up."""

import json
import random
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.answers.answer import Answer, Segment
from emulator.answers.ask import Ask
from emulator.apis.chat.events import ChatRenderer
from emulator.emulation.asked import Asked
from emulator.reading.counting import PromptCount
from emulator.rendering.renderer import Header
from emulator.serving.generation import Generation
from emulator.settings import Settings
from emulator.state import State
from emulator.timing.pace import Pace
from emulator.timing.plan import GenerationPlan, due_each
from emulator.transport.exchange import Exchange
from schemas import EmulationHeaders
from tests.support.reference import cpu_s, here_s, least

START_S = 1000.0
TTFT_S, ITL_S = 0.5, 0.1


def pace(batch_size: int = 1) -> Pace:
    """Return what watches a stream of 20 tokens that begins at `START_S`."""
    plan = GenerationPlan(20, "stop", TTFT_S, ITL_S, sse_batch_size=batch_size)
    return Pace(plan, START_S, batch_size, keep_gaps=True)


def watched(*writes: tuple[float, int], batch_size: int = 1) -> Pace:
    """Return what has seen writes: seconds after the start, and how many events left in each."""
    watch = pace(batch_size)
    for elapsed_s, events in writes:
        watch.mark(START_S + elapsed_s, events)
    return watch


def ms(seconds: float | None) -> float | None:
    """Return milliseconds, rounded to hide how floats add up."""
    return None if seconds is None else round(seconds * 1000, 6)


def gaps_ms(watch: Pace) -> list[float | None]:
    """Return the median, the 99th percentile and the largest of the gaps."""
    return [
        ms(watch.gap_percentile_s(50)),
        ms(watch.gap_percentile_s(99)),
        ms(watch.largest_gap_s),
    ]


def test_nothing_has_left() -> None:
    """Before the first event there are no figures, and before the second no gaps."""
    before, one = pace(), watched((0.5, 1))
    assert (before.events, before.mean_itl_s, before.gap_percentile_s(99)) == (0, None, None)
    assert (one.events, one.mean_itl_s, one.gap_percentile_s(99)) == (1, None, None)


def test_in_time() -> None:
    """Tokens that leave when they are due have no lag, and the gaps that were asked for."""
    watch = watched((0.5, 1), (0.6, 1), (0.7, 1))
    assert (ms(watch.first_s), ms(watch.mean_itl_s)) == (500, 100)
    assert gaps_ms(watch) == [100, 100, 100]
    assert (ms(watch.worst_lag_s), ms(watch.itl_lag_s)) == (0, 0)


@pytest.mark.parametrize("late", range(4))
def test_worst_lag_of_any_token(late: int) -> None:
    """The worst lag is that of the latest token, wherever it is; those after it are in time."""
    lags_s = [0.07 if index == late else 0.01 for index in range(4)]
    watch = watched(*((0.5 + 0.1 * i + lag_s, 1) for i, lag_s in enumerate(lags_s)))
    assert ms(watch.worst_lag_s) == 70
    assert ms(watch.itl_lag_s) == (60 if late else 0)


def test_tokens_that_leave_together() -> None:
    """Tokens that leave together have gaps of 0, and the lag of the first of them."""
    watch = watched((0.5, 1), (0.85, 3), (0.9, 1))
    assert [ms(gap_s) for gap_s in sorted(watch.gaps_s or ())] == [0, 0, 50, 350]
    assert (ms(watch.mean_itl_s), watch.events) == (100, 5)
    assert ms(watch.worst_lag_s) == ms(watch.itl_lag_s) == 250
    assert gaps_ms(watch) == [0, 350, 350]


def test_batches() -> None:
    """Of batches the mean is for each token, and gaps and lags are those of the events."""
    watch = watched((0.5, 1), (1.02, 1), (1.5, 1), batch_size=5)
    assert ms(watch.mean_itl_s) == 100
    assert gaps_ms(watch) == [480, 520, 520]
    assert ms(watch.worst_lag_s) == ms(watch.itl_lag_s) == 20


def test_held_back() -> None:
    """Tokens that are held back are neither late nor early: what counts is when they leave."""
    watch = pace()
    for elapsed_s, events, left in [(0.5, 1, []), (0.62, 1, [0]), (0.95, 3, [1, 2]), (1.0, 1, [])]:
        watch.mark(START_S + elapsed_s, events, left)
    assert (ms(watch.first_due_s), ms(watch.first_s)) == (600, 620)
    assert [ms(gap_s) for gap_s in watch.gaps_s or ()] == [330, 0]
    assert (watch.events, watch.passed) == (3, 6)
    assert ms(watch.mean_itl_s) == 110  # 330 ms for the three tokens after the first
    assert (ms(watch.worst_lag_s), ms(watch.itl_lag_s)) == (150, 130)


def test_slow_client() -> None:
    """Time in which the client does not read is no lag, and what comes on top of it is one."""
    watch = watched((0.5, 1))
    watch.block(START_S + 0.5, START_S + 0.82)  # three more tokens came due
    watch.mark(START_S + 0.83, 3)
    assert (ms(watch.blocked_s), gaps_ms(watch)) == (320, [0, 330, 330])
    assert ms(watch.worst_lag_s) == ms(watch.itl_lag_s) == 10
    watch.mark(START_S + 0.95, 1)
    assert ms(watch.worst_lag_s) == 50


def figures(watch: Pace) -> list[object]:
    """Return all that a pace tells."""
    names = ("events", "passed", "first_s", "first_due_s", "largest_gap_s", "worst_lag_s")
    others = [watch.itl_lag_s, watch.mean_itl_s, watch.blocked_s, sorted(watch.gaps_s or ())]
    return [getattr(watch, name) for name in names] + others


Write = tuple[float, int, list[int] | None]


@st.composite
def writes(draw: st.DrawFn) -> Write:
    """Draw a write: the time since the one before, its events, and which of them leave."""
    events = draw(st.integers(1, 5))
    left = st.lists(st.integers(0, events - 1), unique=True).map(sorted)
    return draw(st.floats(0, 0.2)), events, draw(st.none() | left)


@given(st.lists(writes(), min_size=1, max_size=60), st.integers(1, 60), st.floats(0.001, 0.3))
def test_figures_do_not_depend_on_when_they_are_settled(
    drawn: list[Write], every: int, blocked_s: float
) -> None:
    """Events may be noted one by one or together, and settled at once, or many at a time."""
    together, one_by_one = pace(), pace()
    now_s = START_S + TTFT_S
    for number, (after_s, events, left) in enumerate(drawn):
        now_s += after_s
        together.mark(now_s, events, left)
        for event in range(events):
            if left is None:
                one_by_one.note(now_s)
            else:
                one_by_one.mark(now_s, 1, [0] if event in left else [])
        if number % every == 0:
            one_by_one.settle()
        if number == len(drawn) // 2:
            one_by_one.block(now_s, now_s + blocked_s)
            together.block(now_s, now_s + blocked_s)
            now_s += blocked_s
    one_by_one.settle()
    assert figures(one_by_one) == figures(together)


def test_percentiles() -> None:
    """Percentiles are by nearest rank, so that the largest of 200 gaps is above the 99th."""
    sizes_s: Sequence[float] = random.Random(1).sample(
        [index / 1000 for index in range(1, 201)], 200
    )
    left_s = [0.5 + sum(sizes_s[:index]) for index in range(201)]
    assert gaps_ms(watched(*((elapsed_s, 1) for elapsed_s in left_s))) == [100, 198, 200]


def test_percentile_of_the_longest_stream_is_quick() -> None:
    """The percentile of 131,071 gaps keeps the other streams waiting for less than 8 ms."""
    watch, most_s = pace(), here_s(0.008)
    watch.gaps_s.extend(random.random() for _ in range(131_071))  # type: ignore[union-attr]

    assert least(lambda: cpu_s(lambda: watch.gap_percentile_s(99)), below=most_s) < most_s


async def nothing() -> dict[str, Any]:
    """Receive nothing."""
    return {}


def test_report() -> None:
    """The report says what was seen, and how that compares with what was asked."""
    plan = GenerationPlan(400, "stop", TTFT_S, ITL_S, sse_batch_size=2)
    start_s = time.monotonic() - 50
    exchange = Exchange({"type": "http", "headers": []}, nothing, State(Settings()))
    exchange.start_s = start_s
    exchange.asked = Asked(EmulationHeaders(**{"X-EMULATION-REPORT": True}), None, {})
    generation = Generation(
        exchange,
        Ask("m", stream=True),
        plan,
        [Answer(0, [Segment([])], "stop", 400)],
        ChatRenderer(Header("", 0, "", ""), include_usage=False),
        PromptCount(0),
        "",
    )
    for event in range(200):
        late_s = 0.012 if event == 0 else 0.05 if event == 100 else 0.03 if event > 150 else 0
        generation.pace.mark(start_s + TTFT_S + event * 2 * ITL_S + late_s, 1)
    report = json.loads(generation.report())
    assert report["ttft_ms"] == {"asked": 500, "actual": 512}
    assert report["itl_ms"] == {
        "asked": 100,
        "mean": pytest.approx(100 + 18 / 398, abs=0.001),
        "asked_gap": 200,
        "p99": 230,
        "max": 250,
    }
    assert report["total_ms"] == {"asked": 40_400, "actual": pytest.approx(50_000, abs=1000)}
    assert report["worst_lag_ms"] == 50


@given(
    ttft_s=st.floats(0, 600),
    itl_s=st.floats(0, 60),
    hidden=st.integers(0, 1000),
    first=st.integers(0, 1000),
    stride=st.integers(1, 10),
)
def test_due_times_are_the_same_one_by_one(
    ttft_s: float, itl_s: float, hidden: int, first: int, stride: int
) -> None:
    """All due times at once are those of each token, to the last bit; drawn ones too."""
    plan = GenerationPlan(20, "stop", ttft_s, itl_s, reasoning_tokens=hidden, hidden_tokens=hidden)
    tokens = range(first, first + 50 * stride, stride)
    assert due_each(plan, tokens).tolist() == [plan.due_s(token) for token in tokens]
    drawn = plan.timed_at([index / 7 for index in range(hidden + tokens[-1] + 1)])
    assert due_each(drawn, tokens).tolist() == [drawn.due_s(token) for token in tokens]
