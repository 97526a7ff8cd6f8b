"""The engine on an event loop: tokens handed out when they are due, in simulated time."""

import asyncio
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry, Histogram

from benchmarks.engine.simulation import Simulation
from emulator.engine import metrics as engine_metrics
from emulator.engine.config import EngineConfig
from emulator.engine.metrics import EngineMetrics, Metrics
from emulator.engine.runner import EngineFailure, EngineRunner, TimedSequence, wake_at_once
from emulator.engine.scheduler import OverloadError, Scheduler, State, Step
from emulator.engine.times import TokenTimes
from emulator.metrics import Tally
from emulator.timing.clock import Waiter
from tests.engine.test_engine import HOUR_S, ROUND, poisson, prompt
from tests.support.reference import here_s, least
from tests.support.simulated.loop import run_simulated, wait_until


def runner_of(**changes: object) -> EngineRunner:
    """Return an engine of round numbers, but for these keys, on the running loop."""
    config = EngineConfig.model_validate(ROUND.model_dump(exclude={"max_model_len"}) | changes)
    return EngineRunner(Scheduler(config), wait_until)


async def reached(sequence: TimedSequence, tokens: int) -> None:
    """Wait until a sequence has that many tokens."""
    if len(sequence.due_s) < tokens:
        waiter = asyncio.get_running_loop().create_future()
        sequence.wake(waiter, tokens)
        await waiter


async def read(sequence: TimedSequence) -> list[float]:
    """Take a sequence's tokens one by one, and return when each came, in ms."""
    seen_ms = []
    for token in range(1, sequence.output_tokens + 1):
        await reached(sequence, token)
        seen_ms.append(asyncio.get_running_loop().time() * 1000)
    return seen_ms


# --------------------------------------------------------------------------------------
# Times
# --------------------------------------------------------------------------------------


def test_tokens_come_when_they_are_due() -> None:
    """Each token is handed out at the end of its step, and says so."""

    async def main() -> None:
        runner = runner_of()
        first, second = TimedSequence(100, 3), TimedSequence(100, 1)
        runner.submit([first])
        runner.submit([second])
        first_ms, second_ms = await asyncio.gather(read(first), read(second))
        assert first_ms == pytest.approx([32, 43, 54])
        assert second_ms == pytest.approx([32])
        assert [due_s * 1000 for due_s in first.due_s] == pytest.approx([32, 43, 54])

    run_simulated(main())


def test_an_idle_engine_starts_when_a_request_arrives() -> None:
    """After a pause the first step starts with the arrival, however late that is submitted."""

    async def main() -> None:
        runner = runner_of()
        runner.submit([earlier := TimedSequence(100, 1)])
        await reached(earlier, 1)
        await asyncio.sleep(1)
        now_s = asyncio.get_running_loop().time()
        runner.submit([later := TimedSequence(100, 2, arrival_s=now_s - 0.005)])
        assert await read(later) == pytest.approx([(now_s + 0.016) * 1000, (now_s + 0.027) * 1000])

    run_simulated(main())


def test_late_steps_do_not_drift() -> None:
    """Steps that are seen late end when they were due, and what they owe comes at once."""

    async def main() -> None:
        runner = runner_of()
        loop = asyncio.get_running_loop()
        held_up = True

        async def late(instant_s: float) -> None:
            await wait_until(max(instant_s, 1.0 if held_up else 0.0))

        runner._wait_until = late
        runner.submit([sequence := TimedSequence(100, 200)])
        await reached(sequence, 50)
        assert loop.time() == 1.0
        held_up = False
        await reached(sequence, 200)
        expected_s = [0.021 + 0.011 * token for token in range(200)]
        assert list(sequence.due_s) == pytest.approx(expected_s)
        assert loop.time() == pytest.approx(expected_s[-1])

    run_simulated(main())


@pytest.mark.slow
def test_an_hour_of_load() -> None:
    """Under an hour's load each of 9,000 requests gets its tokens as the simulation says."""

    def load() -> list[TimedSequence]:
        rng = random.Random(7)
        return [
            TimedSequence(rng.randint(1, 400), rng.randint(1, 40), at_s)
            for at_s in poisson(9_000 / HOUR_S, HOUR_S, 11)
        ]

    alone = load()
    for step in Simulation(Scheduler[TimedSequence](ROUND)).run([s] for s in alone):
        for sequence in step.advanced:
            sequence.due_s.append(step.end_s)

    async def main() -> list[TimedSequence]:
        runner = runner_of()
        readers = []
        sequences = load()
        for sequence in sequences:
            await wait_until(sequence.arrival_s)
            runner.submit([sequence])
            readers.append(asyncio.create_task(reached(sequence, sequence.output_tokens)))
        await asyncio.gather(*readers)
        return sequences

    driven = run_simulated(main())
    assert len(driven) > 8_000
    assert [s.due_s for s in driven] == [s.due_s for s in alone]


# --------------------------------------------------------------------------------------
# Waking
# --------------------------------------------------------------------------------------


def test_one_wake_up_for_each_step() -> None:
    """Whoever waits for several tokens is woken once, when the last of them has come."""
    woken: list[int] = []

    def wake(waiters: Sequence[Waiter]) -> None:
        woken.append(len(waiters))
        wake_at_once(waiters)

    async def main() -> None:
        runner = EngineRunner(Scheduler(ROUND), wait_until, wake=wake)
        runner.submit([one_by_one := TimedSequence(10, 4)])
        runner.submit([at_once := TimedSequence(10, 4)])
        await asyncio.gather(read(one_by_one), reached(at_once, 4))

    run_simulated(main())
    assert woken == [1, 1, 1, 2]


def test_who_leaves_makes_room() -> None:
    """A reader that is cancelled leaves at the next step, and whoever waits behind it is served."""

    async def main() -> None:
        runner = runner_of(max_num_seqs=1)
        runner.submit([gone := TimedSequence(100, 100)])
        runner.submit([waiting := TimedSequence(100, 1)])
        reader = asyncio.create_task(read(gone))
        await wait_until(0.030)
        reader.cancel()
        runner.leave(gone)
        await reached(waiting, 1)
        assert gone.state is State.LEFT
        # 21 ms, the step of 11 ms that was under way, and then the other prompt's 21 ms
        assert asyncio.get_running_loop().time() * 1000 == pytest.approx(21 + 11 + 21)

    run_simulated(main())


def test_refusals_reach_the_caller() -> None:
    """A request that finds the queue full is refused, and those before it are served."""

    async def main() -> None:
        runner = runner_of(max_waiting=1, max_num_seqs=1)
        runner.submit([served := TimedSequence(10, 1)])
        with pytest.raises(OverloadError):
            runner.submit([TimedSequence(10, 1)])
        await reached(served, 1)

    run_simulated(main())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_fault_of_the_engine_fails_those_that_wait() -> None:
    """When the engine stops for a fault of its own nobody waits for ever."""

    def fail(_: Step[TimedSequence]) -> None:
        raise ArithmeticError("a fault")

    async def main() -> None:
        runner = EngineRunner(Scheduler(ROUND), wait_until, observe=fail)
        runner.submit([sequence := TimedSequence(10, 4)])
        with pytest.raises(EngineFailure):
            await reached(sequence, 4)

    run_simulated(main())


def test_the_work_of_a_step() -> None:
    """A step of 2,000 sequences, each of which is awaited, takes under 3 ms of CPU."""
    steps = 20
    config = ROUND.model_copy(
        update={"max_num_seqs": 2000, "max_num_batched_tokens": 4000, "kv_blocks": 1_000_000}
    )

    async def main() -> float:
        scheduler = Scheduler[TimedSequence](config)
        tally = Tally()
        told = EngineMetrics(
            scheduler, tally, "0", Metrics(config.max_model_len, CollectorRegistry())
        )
        runner = EngineRunner(scheduler, wait_until, observe=told.see)
        sequences = [TimedSequence(1, steps + 1, model="m") for _ in range(2000)]
        runner.submit(sequences)
        scheduler.start_step(0)
        runner._hand_out(scheduler.end_step())
        loop = asyncio.get_running_loop()
        took_s = 0.0
        for _ in range(steps):
            for sequence in sequences:  # as `reached` does
                sequence._wanted = len(sequence.due_s) + 1
                sequence._waiter = loop.create_future()
            began_s = time.thread_time()
            step = scheduler.start_step(scheduler.end_s)
            runner._hand_out(scheduler.end_step())
            assert step is not None
            told.see(step)
            took_s += time.thread_time() - began_s
        tally.flush()
        assert len(sequences[0].due_s) == steps + 1
        return took_s / steps

    most_s = here_s(0.003)
    assert least(lambda: run_simulated(main()), below=most_s) < most_s


# --------------------------------------------------------------------------------------
# Times of a request
# --------------------------------------------------------------------------------------


def test_choices_share_a_clock() -> None:
    """A token of several choices is due when the last that have it got it; longer ones go on."""

    async def main() -> None:
        runner = runner_of(max_num_seqs=1)
        choices = [TimedSequence(100, 2), TimedSequence(100, 3, is_first_choice=False)]
        runner.submit(choices)
        times = TokenTimes(runner, choices, start_s=0)
        assert (len(times), times[0]) == (0, math.inf)
        await times.sleep_until(times[0])
        # The second begins when the first is done: 21 + 11 ms, then 21 ms of its own.
        assert asyncio.get_running_loop().time() * 1000 == pytest.approx(53)
        assert len(times) == 1
        assert times[0] * 1000 == pytest.approx(53)
        assert times[2] == math.inf
        await times.sleep_until(times[2])
        assert [times[i] * 1000 for i in range(3)] == pytest.approx([53, 64, 75])
        assert len(times) == 3
        assert times.mean_itl_s(hidden_tokens=0) * 1000 == pytest.approx(11)
        assert times.prompt_tokens == 100

    run_simulated(main())


def test_a_token_that_has_come_is_not_waited_for() -> None:
    """Who asked before a token came, and waits afterwards, goes on at once."""

    async def main() -> None:
        runner = runner_of()
        runner.submit([sequence := TimedSequence(100, 3)])
        times = TokenTimes(runner, [sequence], start_s=0)
        asked = times[0]
        await wait_until(0.025)
        await asyncio.wait_for(times.sleep_until(asked), 0.001)

    run_simulated(main())


# --------------------------------------------------------------------------------------
# Metrics
# --------------------------------------------------------------------------------------


@dataclass
class Told:
    """An engine whose metrics are in a registry of their own."""

    config: EngineConfig
    models: Sequence[str] = ()
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        scheduler = Scheduler[TimedSequence](self.config)
        self.metrics = EngineMetrics(
            scheduler,
            self.tally,
            "0",
            Metrics(self.config.max_model_len, self.registry),
            self.models,
        )
        self.runner = EngineRunner(scheduler, wait_until, observe=self.metrics.see)

    def value(self, name: str, model: str = "m", **labels: str) -> float | None:
        """Return a metric's value."""
        labels = {"model_name": model, "engine": "0", **labels}
        return self.registry.get_sample_value(f"vllm:{name}", labels)


def test_metrics_tell_what_was_done() -> None:
    """Requests, tokens, prefix hits and times are counted as the sequences had them."""

    async def main() -> Told:
        told = Told(ROUND.model_copy(update={"prefix_caching": True}))
        keys = prompt(("same", 100))
        first = TimedSequence(100, 3, 0, keys, model="m", finish_reason="tool_calls")
        told.runner.submit([first])
        await reached(first, 3)
        again = [
            TimedSequence(100, 2, first.due_s[-1], keys, model="m", is_first_choice=choice == 0)
            for choice in range(2)
        ]
        told.runner.submit(again)
        await reached(again[1], 2)
        told.tally.flush()
        return told

    told = run_simulated(main())
    assert told.value("prompt_tokens_total") == 200
    assert told.value("generation_tokens_total") == 3 + 2 * 2
    assert told.value("request_success_total", finished_reason="stop") == 1
    assert told.value("request_success_total", finished_reason="length") == 2
    assert told.value("prefix_cache_queries_total") == 300
    assert told.value("prefix_cache_hits_total") == 180
    assert told.value("time_to_first_token_seconds_count") == 3
    # 10 + 10 + 1 for the first; two times 10 tokens and 2 sequences for the others
    assert told.value("time_to_first_token_seconds_sum") == pytest.approx(0.021 + 2 * 0.014)
    assert told.value("inter_token_latency_seconds_count") == 2 + 2
    assert told.value("inter_token_latency_seconds_sum") == pytest.approx(2 * 0.011 + 2 * 0.012)
    assert told.value("e2e_request_latency_seconds_sum") == pytest.approx(0.043 + 2 * 0.026)
    assert told.value("request_queue_time_seconds_sum") == pytest.approx(0, abs=1e-9)


def test_gauges_tell_who_runs_and_who_waits() -> None:
    """The gauges follow the queue and the cache, and are 0 when all is done."""

    async def main() -> None:
        told = Told(ROUND.model_copy(update={"max_num_seqs": 2}), models=["m"])
        assert told.value("num_requests_waiting") == 0
        sequences = [TimedSequence(100, 20, model="m") for _ in range(5)]
        for sequence in sequences:
            told.runner.submit([sequence])
        await wait_until(0.1)
        assert told.value("num_requests_running") == 2
        assert told.value("num_requests_waiting") == 3
        assert told.value("kv_cache_usage_perc") == pytest.approx(0.022)
        await reached(sequences[-1], 20)
        await asyncio.sleep(0.1)
        assert told.value("num_requests_running") == 0
        assert told.value("kv_cache_usage_perc") == 0

    run_simulated(main())


def test_preemptions_are_counted() -> None:
    """A preemption counts, and the wait for the next token is an inter-token latency."""

    async def main() -> Told:
        told = Told(ROUND.model_copy(update={"kv_blocks": 5}))
        sequences = [TimedSequence(20, 12, model="m"), TimedSequence(20, 5, model="m")]
        for sequence in sequences:
            told.runner.submit([sequence])
        await reached(sequences[1], 5)
        told.tally.flush()
        gaps_s = [end - begin for s in sequences for begin, end in pairwise(s.due_s)]
        assert told.value("inter_token_latency_seconds_sum") == pytest.approx(sum(gaps_s))
        return told

    told = run_simulated(main())
    assert told.value("num_preemptions_total") == 1
    assert told.value("time_to_first_token_seconds_count") == 2
    assert told.value("generation_tokens_total") == 17


def test_models_beyond_the_bound_share_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many models clients name, only so many get labels; the others are 'other'."""
    monkeypatch.setattr(engine_metrics, "MAX_MODELS", 2)

    async def main() -> Told:
        told = Told(ROUND)
        sequences = [TimedSequence(10, 2, model=model) for model in ("a", "b", "c", "d", "e" * 999)]
        for sequence in sequences:
            told.runner.submit([sequence])
        await reached(sequences[-1], 2)
        told.metrics.see_left(sequences[2])
        told.tally.flush()
        return told

    told = run_simulated(main())
    assert told.value("generation_tokens_total", "a") == 2
    assert told.value("generation_tokens_total", "c") is None
    assert told.value("generation_tokens_total", "other") == 6
    assert told.value("request_success_total", "other", finished_reason="abort") == 1
    assert told.value("num_requests_running", "other") == 0


def test_the_cache_is_described() -> None:
    """vllm:cache_config_info tells the sizes that gateways read."""
    labels = {"block_size": "10", "num_gpu_blocks": "1000", "enable_prefix_caching": "False"}
    registry = Told(ROUND).registry
    assert registry.get_sample_value("vllm:cache_config_info", {**labels, "engine": "0"}) == 1


def test_buckets_are_those_of_vllm() -> None:
    """The histograms begin, end and count as vLLM's do."""
    registry = CollectorRegistry()
    bounds = {
        name: Histogram(name, name, registry=registry, buckets=buckets)._upper_bounds
        for name, buckets in (
            ("ttft", engine_metrics.TTFT_BUCKETS_S),
            ("itl", engine_metrics.ITL_BUCKETS_S),
            ("request", engine_metrics.REQUEST_BUCKETS_S),
        )
    }
    assert {name: (b[0], b[-2], len(b) - 1) for name, b in bounds.items()} == {
        "ttft": (0.001, 2560.0, 22),
        "itl": (0.01, 80.0, 19),
        "request": (0.3, 7680.0, 21),
    }
