"""The terms of a step that are off by default, against times computed on paper."""

import asyncio
import random
import statistics
import time

import pytest
from prometheus_client import CollectorRegistry

from benchmarks.engine.simulation import Simulation
from emulator.engine.config import EngineConfig
from emulator.engine.metrics import EngineMetrics, Metrics
from emulator.engine.runner import EngineRunner, TimedSequence
from emulator.engine.scheduler import EngineSequence, Scheduler
from emulator.metrics import Tally
from tests.engine.test_engine import ROUND, Seen, engine, prompt, run
from tests.engine.test_engine_runner import read, runner_of
from tests.support.reference import here_s, least
from tests.support.simulated.loop import run_simulated, wait_until


def test_a_quadratic_prefill() -> None:
    """A prompt of 500 takes 10 + 50 + 1 ms and 0.001 * 500^2 ms, each token after it 11 ms."""
    sequence = Seen(500, 3)
    run(engine(step_per_prefill_token_squared_ms=0.001), sequence)
    assert sequence.due_ms == pytest.approx([311, 322, 333])


def test_chunks_take_what_the_whole_prompt_takes() -> None:
    """Each chunk costs the square of its end less that of its beginning: 160, 480 and 360 ms."""
    sequence = Seen(1000, 1)
    scheduler = engine(step_per_prefill_token_squared_ms=0.001, max_num_batched_tokens=400)
    steps = run(scheduler, sequence)
    took_ms = [(step.end_s - step.start_s) * 1000 for step in steps]
    assert took_ms == pytest.approx([51 + 160, 51 + 480, 31 + 360])


def test_prompts_of_one_step_do_not_multiply() -> None:
    """Two prompts of 100 in a step cost 2 * 100^2, not 200^2."""
    sequences = [Seen(100, 1), Seen(100, 1)]
    run(engine(step_per_prefill_token_squared_ms=0.001), *sequences)
    assert sequences[0].due_ms == pytest.approx([10 + 20 + 2 + 20])


def test_a_cached_prefix_is_where_the_chunk_begins() -> None:
    """Of 105 tokens 80 are found, so that the rest costs 105^2 - 80^2."""
    first = Seen(100, 1, keys=prompt(("system", 80), ("one", 20)))
    second = Seen(105, 1, 1000, prompt(("system", 80), ("two", 25)))
    run(engine(prefix_caching=True, step_per_prefill_token_squared_ms=0.001), first, second)
    assert second.due_ms == pytest.approx([1000 + 10 + 2.5 + 1 + 4.625])


def test_a_bend_of_the_batch() -> None:
    """Up to 2 sequences cost 1 ms each, the third and fourth 3 ms each."""
    sequences = [Seen(10, tokens) for tokens in (4, 4, 3, 2)]
    run(engine(batch_bend=2, step_per_sequence_above_ms=3), *sequences)
    # 10 + 4 + 2 + 6; 10 + 2 + 6; 10 + 2 + 3; 10 + 2
    assert sequences[0].due_ms == pytest.approx([22, 40, 55, 67])


def test_the_overhead_of_a_request() -> None:
    """A request can be admitted 6 ms after it arrived; an idle engine starts then."""
    sequence = Seen(500, 2, arrival_ms=5)
    run(engine(request_overhead_ms=6), sequence)
    assert sequence.due_ms == pytest.approx([5 + 6 + 61, 5 + 6 + 61 + 11])
    assert sequence.admitted_s == pytest.approx(0.011)


def test_the_overhead_keeps_a_request_out_of_a_step() -> None:
    """Of two that come during a step the one whose overhead ends after it misses the next one."""
    sequences = [Seen(100, 1), Seen(100, 1, 20.5), Seen(100, 1, 22)]
    run(engine(request_overhead_ms=6), *sequences)
    assert [s.due_ms for s in sequences] == [
        pytest.approx([6 + 21]),
        pytest.approx([27 + 21]),
        pytest.approx([48 + 21]),
    ]


def test_the_overhead_counts_once_for_all_choices() -> None:
    """The choices of a request are there together when its overhead is over."""
    choices = [Seen(100, 1), Seen(100, 1)]
    scheduler = engine(request_overhead_ms=6)
    (step,) = Simulation(scheduler).run([choices])
    assert step.admitted == choices
    assert step.end_s == pytest.approx(0.006 + 0.032)


def test_the_overhead_on_an_event_loop() -> None:
    """A step is made up when it starts, not when the overhead begins: one read late is in it."""

    async def main() -> None:
        runner = runner_of(request_overhead_ms=6)
        first, second, later = TimedSequence(100, 2), TimedSequence(100, 2), TimedSequence(100, 1)
        later.arrival_s = 0.001
        runner.submit([first])
        await wait_until(0.003)
        runner.submit([second])
        runner.submit([later])
        assert await read(first) == pytest.approx([6 + 32, 6 + 32 + 23])
        assert [list(s.due_s) for s in (second, later)] == [
            pytest.approx([0.038, 0.061]),
            pytest.approx([0.061]),
        ]

    run_simulated(main())


def durations_s(config: EngineConfig, seed: int, steps: int) -> list[float]:
    """Return how long the steps of one long answer take."""
    scheduler = Scheduler[EngineSequence](config, seed)
    ran = Simulation(scheduler).run([[EngineSequence(10, steps)]])
    return [step.end_s - step.start_s for step in ran]


def test_the_spread_of_steps() -> None:
    """The factor has the mean 1, the given coefficient of variation, and a lognormal's median."""
    config = ROUND.model_copy(update={"step_per_prefill_token_ms": 0, "step_cv": 0.5})
    config = config.model_copy(update={"kv_blocks": 10_000, "max_model_len": 100_000})
    factors = [took_s / 0.011 for took_s in durations_s(config, seed=1, steps=50_000)]
    assert statistics.fmean(factors) == pytest.approx(1, rel=0.01)
    assert statistics.pstdev(factors) == pytest.approx(0.5, rel=0.03)
    assert statistics.median(factors) == pytest.approx(1 / (1 + 0.5**2) ** 0.5, rel=0.01)


def test_the_spread_repeats() -> None:
    """Two runs with one seed take the same times to the last bit, with another seed others."""
    config = ROUND.model_copy(update={"step_cv": 0.2})
    first, again, other = (durations_s(config, seed, 100) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_all_terms_at_once() -> None:
    """A step with every term takes their sum: a + b P + q S + c at the bend, c' above, d K."""
    config = ROUND.model_copy(
        update={
            "step_per_prefill_token_squared_ms": 0.5,
            "batch_bend": 3,
            "step_per_sequence_above_ms": 0.25,
            "step_per_context_token_ms": 0.01,
        }
    )
    took_s = config.step_s(20, sequences=7, context_tokens=300, prefill_squares=400)
    assert took_s == pytest.approx((10 + 2 + 200 + 3 * 1 + 4 * 0.25 + 3) / 1000)


def test_the_work_of_a_step_with_all_terms() -> None:
    """With 256 that run and 2,000 that wait a step takes under 3 ms of CPU, its metrics included.

    Each of its sequences is awaited; some end and others are admitted; the gauges, which are set
    every 50 ms, are set at each step of 8 ms here.
    """
    terms = {
        "step_base_ms": 8,
        "step_per_context_token_ms": 0.0001,
        "step_per_prefill_token_squared_ms": 0.00001,
        "batch_bend": 128,
        "step_per_sequence_above_ms": 0.002,
        "step_cv": 0.1,
        "request_overhead_ms": 6,
        "max_num_seqs": 256,
        "max_num_batched_tokens": 2048,
        "kv_blocks": 100_000,
        "prefix_caching": True,
    }
    config, steps = ROUND.model_copy(update=terms), 40
    keys = [prompt(("system", 100), (str(number), 100)) for number in range(2400)]

    async def main() -> float:
        scheduler = Scheduler[TimedSequence](config)
        tally = Tally()
        told = EngineMetrics(
            scheduler, tally, "0", Metrics(config.max_model_len, CollectorRegistry())
        )
        runner = EngineRunner(scheduler, wait_until, observe=told.see)
        rng = random.Random(9)
        runner.submit(
            [TimedSequence(200, rng.randint(60, 180), 0.0, each, model="m") for each in keys]
        )
        loop = asyncio.get_running_loop()
        took_s = 0.0
        for number in range(60 + steps):
            for sequence in scheduler.running:
                sequence.wake(loop.create_future(), 1)
            began_s = time.thread_time()
            step = scheduler.start_step(scheduler.next_start_s or 0)
            assert step is not None
            runner._hand_out(scheduler.end_step())
            told.see(step)
            told.set_gauges()
            if number >= 60:
                assert step.sequences == 256
                took_s += time.thread_time() - began_s
        assert len(scheduler.waiting) > 2000
        return took_s / steps

    most_s = here_s(0.003)
    assert least(lambda: run_simulated(main()), below=most_s) < most_s
