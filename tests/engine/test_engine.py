"""The engine's model against times computed on paper, and against queueing theory."""

import math
import random
from collections.abc import Hashable, Iterator, Sequence

import pytest

from benchmarks.engine.simulation import Simulation
from emulator.engine.cache import private_keys, prompt_keys
from emulator.engine.config import EngineConfig
from emulator.engine.scheduler import EngineSequence, OverloadError, Scheduler, Step, TooLongError

ROUND = EngineConfig(
    source="round numbers",
    step_base_ms=10,
    step_per_prefill_token_ms=0.1,
    step_per_sequence_ms=1,
    step_per_context_token_ms=0,
    max_num_seqs=8,
    max_num_batched_tokens=1000,
    kv_blocks=1000,
    block_size=10,
)


class Seen(EngineSequence):
    """A sequence that remembers when it got its tokens, in ms."""

    __slots__ = ("due_ms",)

    def __init__(
        self,
        prompt_tokens: int,
        output_tokens: int,
        arrival_ms: float = 0.0,
        keys: Sequence[Hashable] = (),
    ) -> None:
        super().__init__(prompt_tokens, output_tokens, arrival_ms / 1000, keys)
        self.due_ms: list[float] = []


def engine(**changes: object) -> Scheduler[Seen]:
    """Return an engine of round numbers, but for these keys."""
    return Scheduler(
        EngineConfig.model_validate(ROUND.model_dump(exclude={"max_model_len"}) | changes)
    )


def note(step: Step[Seen]) -> None:
    """Let the sequences of a step remember it."""
    for sequence in step.advanced:
        sequence.due_ms.append(step.end_s * 1000)


def run(scheduler: Scheduler[Seen], *sequences: Seen) -> list[Step[Seen]]:
    """Run sequences that are requests of their own to their end."""
    steps = list(Simulation(scheduler).run([sequence] for sequence in sequences))
    for step in steps:
        note(step)
    return steps


def prompt(*parts: tuple[str, int]) -> list[Hashable]:
    """Return the keys of a prompt that is made of named parts, each of some tokens."""
    ids = [hash((name, index)) for name, tokens in parts for index in range(tokens)]
    return prompt_keys(ids, ROUND.block_size)


# --------------------------------------------------------------------------------------
# Steps
# --------------------------------------------------------------------------------------


def test_one_sequence_alone() -> None:
    """A prompt of 500 takes a step of 10 + 50 + 1 ms, each token after it one of 10 + 1 ms."""
    sequence = Seen(500, 4, arrival_ms=5)
    run(engine(), sequence)
    assert sequence.due_ms == pytest.approx([66, 77, 88, 99])


def test_context_takes_time() -> None:
    """A decode's context is the prompt and what was generated so far."""
    sequence = Seen(100, 3)
    run(engine(step_per_context_token_ms=0.5), sequence)
    assert sequence.due_ms == pytest.approx([21, 21 + 11 + 50.5, 21 + 11 + 50.5 + 11 + 51])


def test_prefill_in_chunks() -> None:
    """A prompt above the budget is prefilled in chunks: 400, 400 and 200 tokens of 1,000."""
    sequence = Seen(1000, 2)
    steps = run(engine(max_num_batched_tokens=400), sequence)
    assert [step.prefill_tokens for step in steps] == [400, 400, 200, 0]
    assert sequence.due_ms == pytest.approx([51 + 51 + 31, 51 + 51 + 31 + 11])


def test_decodes_come_before_prefill() -> None:
    """The sequence that decodes takes 1 token of the budget, the next prompt what is left."""
    first, second = Seen(300, 4), Seen(500, 1, arrival_ms=1)
    steps = run(engine(max_num_batched_tokens=300), first, second)
    assert [step.prefill_tokens for step in steps] == [300, 299, 201, 0]
    assert [step.sequences for step in steps] == [1, 2, 2, 1]
    # 10 + 30 + 1, then 10 + 29.9 + 2, then 10 + 20.1 + 2, then 10 + 1
    assert first.due_ms == pytest.approx([41, 82.9, 115, 126])
    assert second.due_ms == pytest.approx([115])


def test_two_prompts_share_a_step() -> None:
    """What one prompt leaves of the budget goes to the next, which goes on in the next step."""
    sequences = [Seen(600, 1), Seen(600, 1), Seen(600, 1)]
    steps = run(engine(), *sequences)
    assert [step.prefill_tokens for step in steps] == [1000, 800]
    assert [s.due_ms[0] for s in sequences] == pytest.approx([112, 204, 204])


def test_no_more_run_than_may() -> None:
    """With max_num_seqs 2 the third waits until one of the others is done."""
    sequences = [Seen(10, 2), Seen(10, 3), Seen(10, 1)]
    run(engine(max_num_seqs=2), *sequences)
    # 10 + 2 + 2; 12; then the third's prompt beside the second's last token
    assert [s.due_ms for s in sequences] == [
        pytest.approx([14, 26]),
        pytest.approx([14, 26, 39]),
        pytest.approx([39]),
    ]


def test_arrivals_wait_for_the_end_of_a_step() -> None:
    """What arrives during a step is in the next one; an idle engine starts when it arrives."""
    sequences = [Seen(100, 1), Seen(100, 1, 1), Seen(100, 1, 20.9), Seen(100, 1, 100)]
    run(engine(), *sequences)
    assert [s.due_ms for s in sequences] == [
        pytest.approx([21]),
        pytest.approx([21 + 32]),
        pytest.approx([21 + 32]),
        pytest.approx([121]),
    ]


def test_an_arrival_after_the_start_is_not_in_the_step() -> None:
    """A sequence that is submitted late is in no step that started before it arrived."""
    scheduler = engine()
    early, late = Seen(100, 1), Seen(100, 1, arrival_ms=30)
    scheduler.submit([early])
    scheduler.submit([late])
    assert scheduler.next_start_s == 0
    scheduler.start_step(0)
    assert scheduler.end_step().advanced == [early]
    assert scheduler.next_start_s == pytest.approx(0.030)


def test_sixty_four_at_once() -> None:
    """64 prompts of 1,000 on the bundled round numbers come in the order that paper says."""
    config = ROUND.model_copy(update={"max_num_seqs": 64, "max_num_batched_tokens": 2000})
    config = config.model_copy(update={"kv_blocks": 10_000})
    sequences = [Seen(1000, 50) for _ in range(64)]
    steps = run(Scheduler(config), *sequences)
    # Of 2,000 tokens those that decode take one each: 2 prompts, then 1,998 tokens of prompts, ...
    left, prompts, decoding = 64_000, [], 0
    while left:
        prompts.append(min(2000 - decoding, left))
        left -= prompts[-1]
        decoding = sum(prompts) // 1000
    assert [step.prefill_tokens for step in steps][: len(prompts)] == prompts
    end_ms = 0.0
    for index, tokens in enumerate(prompts):
        sequences_in_step = math.ceil(sum(prompts[: index + 1]) / 1000)
        end_ms += 10 + 0.1 * tokens + sequences_in_step
        assert steps[index].end_s * 1000 == pytest.approx(end_ms)
    assert sequences[-1].due_ms[0] == pytest.approx(end_ms)
    assert all(len(sequence.due_ms) == 50 for sequence in sequences)


# --------------------------------------------------------------------------------------
# Cache
# --------------------------------------------------------------------------------------


def test_a_full_cache_holds_prompts_back() -> None:
    """A prompt waits until the cache has room for all of it, and others wait behind it."""
    first, large, small = Seen(60, 3), Seen(50, 1), Seen(10, 1)
    steps = run(engine(kv_blocks=10), first, large, small)
    assert [step.admitted for step in steps] == [[first], [], [], [large, small]]
    assert large.due_ms == pytest.approx([17 + 11 + 11 + 18])


def test_preemption() -> None:
    """If a decode finds no block, the last admitted is prefilled again later, tokens and all."""
    first, second = Seen(20, 12), Seen(20, 5)
    steps = run(engine(kv_blocks=5), first, second)
    # Both hold 2 blocks. To decode at 21 tokens of context each needs a third: the first takes the
    # last one, and the second preempts itself.
    assert steps[1].preempted == [second]
    assert (first.preemptions, second.preemptions) == (0, 1)
    # 10 + 4 + 2, then 10 steps of the first alone; its 11th needs a 4th block: 3 + 1 of 5.
    assert first.due_ms == pytest.approx([16, *(16 + 11 * n for n in range(1, 12))])
    # The first has all it needs at 4 blocks; 21 tokens need 3, so that the second waits for it.
    assert steps[12].admitted == [second]
    assert steps[12].prefill_tokens == 21
    end_ms = first.due_ms[-1] + 10 + 2.1 + 1
    assert second.due_ms == pytest.approx([16, end_ms, end_ms + 11, end_ms + 22, end_ms + 33])


def test_the_preempted_go_to_the_head_of_the_queue() -> None:
    """Those that were preempted come back in their old order, and before those that waited."""
    sequences = [Seen(19, 40), Seen(19, 8), Seen(19, 8), Seen(5, 1)]
    steps = run(engine(kv_blocks=7, max_num_seqs=3), *sequences)
    preempted = [s for step in steps for s in step.preempted]
    assert preempted[:1] == [sequences[2]]
    returns = [s for step in steps[1:] for s in step.admitted]
    assert returns.index(sequences[2]) < returns.index(sequences[3])
    assert all(len(s.due_ms) == s.output_tokens for s in sequences)


def test_a_shared_prefix_is_not_prefilled() -> None:
    """Of a prompt that begins like an earlier one only what differs is prefilled."""
    first = Seen(100, 2, keys=prompt(("system", 80), ("one", 20)))
    second = Seen(105, 1, 1000, prompt(("system", 80), ("two", 25)))
    steps = run(engine(prefix_caching=True), first, second)
    assert (first.cached_tokens, second.cached_tokens) == (0, 80)
    assert [step.prefill_tokens for step in steps] == [100, 0, 25]
    assert second.due_ms == pytest.approx([1000 + 10 + 2.5 + 1])


def test_the_last_token_is_prefilled_always() -> None:
    """Of a prompt that is known to its last token, the last block is prefilled nevertheless."""
    again = prompt(("same", 100))
    first, second = Seen(100, 1, keys=again), Seen(100, 1, 500, again)
    steps = run(engine(prefix_caching=True), first, second)
    assert second.cached_tokens == 90
    assert [step.prefill_tokens for step in steps] == [100, 10]


def test_a_prefix_is_shared_while_it_is_in_use() -> None:
    """Two sequences that run hold the blocks of their common prefix once."""
    first = Seen(100, 30, keys=prompt(("system", 90), ("one", 10)))
    second = Seen(100, 30, 1, prompt(("system", 90), ("two", 10)))
    scheduler = engine(prefix_caching=True, kv_blocks=20)
    run_steps = Simulation(scheduler).run([[first], [second]])
    next(run_steps)
    next(run_steps)
    assert scheduler.pool.held == 12  # 9 in common, and of each the end and its first token's


def test_the_least_recently_used_prefix_is_evicted() -> None:
    """When the cache is full the prefix goes that was not asked for the longest, from its end."""
    keys = {name: prompt((name, 50)) for name in "abc"}
    order = ["a", "b", "a", "c", "a", "b"]
    sequences = [Seen(50, 1, 1000 * at, keys[name]) for at, name in enumerate(order)]
    run(engine(prefix_caching=True, kv_blocks=11), *sequences)
    # a and b fill 10 of 11 blocks; c takes the free one and the last 4 of b, a stays.
    assert [s.cached_tokens for s in sequences] == [0, 0, 40, 0, 40, 10]


def test_without_prefix_caching_nothing_stays() -> None:
    """Without prefix_caching a prompt that comes again is prefilled again."""
    again = prompt(("same", 100))
    steps = run(engine(), Seen(100, 1, keys=again), Seen(100, 1, 500, again))
    assert [step.prefill_tokens for step in steps] == [100, 100]


@pytest.mark.parametrize("caching", [False, True])
def test_choices_share_their_prompt(caching: bool) -> None:
    """The choices of a request prefill its full blocks once, and each its own end."""
    keys = private_keys(105, 10)
    choices = [Seen(105, 3, keys=keys) for _ in range(3)]
    scheduler = engine(prefix_caching=caching)
    steps = list(Simulation(scheduler).run([choices]))
    assert [step.prefill_tokens for step in steps] == [105 + 5 + 5, 0, 0]
    assert steps[0].sequences == 3
    assert scheduler.pool.held == 0
    assert scheduler.pool.idle == (10 if caching else 0)


def test_a_prompt_left_half_way_is_not_found() -> None:
    """Of a client that leaves during its prefill only the prefilled blocks stay."""
    scheduler = engine(prefix_caching=True, max_num_batched_tokens=45)
    keys = prompt(("long", 200))
    gone, again = Seen(200, 1, keys=keys), Seen(200, 1, keys=keys)
    scheduler.submit([gone])
    scheduler.start_step(0)
    scheduler.end_step()
    scheduler.leave(gone)
    scheduler.submit([again])
    assert scheduler.start_step(1) is not None
    assert again.cached_tokens == 40


# --------------------------------------------------------------------------------------
# Refusals and clients that leave
# --------------------------------------------------------------------------------------


def test_max_waiting() -> None:
    """With as many waiting as may the next is refused; those that run do not count."""
    scheduler = engine(max_num_seqs=1, max_waiting=2)
    scheduler.submit([Seen(10, 5)])
    scheduler.start_step(0)
    scheduler.submit([Seen(10, 5)])
    scheduler.submit([Seen(10, 5)])
    with pytest.raises(OverloadError):
        scheduler.submit([Seen(10, 5)])


def test_too_long_for_the_cache() -> None:
    """A sequence is refused that would never fit into the cache; one that just fits is served."""
    scheduler = engine(kv_blocks=5)
    with pytest.raises(TooLongError, match="50 tokens, but prompt and answer are 51"):
        scheduler.submit([Seen(41, 10)])
    fits = Seen(40, 10)
    run(scheduler, fits)
    assert len(fits.due_ms) == 10


def test_one_that_leaves_frees_its_place_at_the_next_step() -> None:
    """A client that leaves keeps its place in the step under way, and has none in the next."""
    scheduler = engine(max_num_seqs=1, kv_blocks=10)
    gone, waiting, gone_too = Seen(50, 9), Seen(50, 1), Seen(50, 1)
    for sequence in (gone, gone_too, waiting):
        scheduler.submit([sequence])
    scheduler.start_step(0)
    scheduler.leave(gone)
    scheduler.leave(gone_too)
    assert scheduler.pool.held == 5
    assert scheduler.end_step().advanced == [gone]
    step = scheduler.start_step(scheduler.end_s)
    assert step is not None
    assert step.admitted == [waiting]
    assert (len(scheduler.waiting), scheduler.pool.held) == (0, 5)


def test_an_engine_that_all_have_left_is_idle() -> None:
    """When every client has gone away there is no further step."""
    scheduler = engine()
    sequences = [Seen(50, 9), Seen(50, 9)]
    scheduler.submit(sequences)
    scheduler.start_step(0)
    scheduler.end_step()
    for sequence in sequences:
        scheduler.leave(sequence)
        scheduler.leave(sequence)
    assert scheduler.start_step(scheduler.end_s) is None
    assert scheduler.next_start_s is None
    assert scheduler.pool.available == scheduler.pool.blocks


# --------------------------------------------------------------------------------------
# Queueing theory
# --------------------------------------------------------------------------------------

HOUR_S = 3600.0


def poisson(rate: float, duration_s: float, seed: int) -> Iterator[float]:
    """Yield random arrivals, in seconds."""
    rng = random.Random(seed)
    at_s = rng.expovariate(rate)
    while at_s < duration_s:
        yield at_s
        at_s += rng.expovariate(rate)


def test_throughput_at_saturation() -> None:
    """With more waiting than can run, B sequences get B tokens each step(B)."""
    scheduler: Scheduler[EngineSequence] = Scheduler(
        ROUND.model_copy(update={"step_per_prefill_token_ms": 0})
    )
    steps = list(Simulation(scheduler).run([EngineSequence(10, 200)] for _ in range(400)))
    full = [step for step in steps if step.sequences == 8]
    tokens = sum(len(step.advanced) for step in full)
    took_s = sum(step.end_s - step.start_s for step in full)
    assert tokens / took_s == pytest.approx(8 / 0.018, rel=1e-9)
    assert len(full) > 0.99 * len(steps)


def test_littles_law() -> None:
    """Over an hour the mean number in the engine is the arrival rate times the mean time in it."""
    rng = random.Random(3)
    scheduler = engine(max_num_seqs=20, kv_blocks=2000)
    sequences = [
        Seen(rng.randint(1, 400), rng.randint(1, 100), at_s * 1000)
        for at_s in poisson(9, HOUR_S, 2)
    ]
    coming = iter(sequences)
    arriving = next(coming, None)
    area_s = 0.0
    for step in Simulation(scheduler).run([sequence] for sequence in sequences):
        # Who is in the step and who waits are there as long as it takes; who comes, from then on.
        area_s += (step.sequences + len(scheduler.waiting)) * (step.end_s - step.start_s)
        while arriving is not None and arriving.arrival_s <= step.end_s:
            if arriving.arrival_s > step.start_s:
                area_s += step.end_s - arriving.arrival_s
            arriving = next(coming, None)
    times_s = [s.finished_s - s.arrival_s for s in sequences if s.finished_s is not None]
    assert len(times_s) == len(sequences) > 30_000
    mean_number = area_s / scheduler.end_s
    assert mean_number > 15
    rate = len(sequences) / scheduler.end_s
    assert mean_number == pytest.approx(rate * sum(times_s) / len(times_s), rel=0.01)


def test_wait_is_that_of_m_d_1() -> None:
    """One at a time, all alike and at random times: the mean wait is rho S / (2 (1 - rho))."""
    scheduler: Scheduler[EngineSequence] = Scheduler(
        ROUND.model_copy(update={"max_num_seqs": 1, "max_waiting": 1_000_000})
    )
    service_s = scheduler.config.step_s(90, 1, 0)
    assert service_s == pytest.approx(0.020)
    rho = 0.6
    sequences = [EngineSequence(90, 1, at_s) for at_s in poisson(rho / service_s, HOUR_S, 5)]
    for _ in Simulation(scheduler).run([sequence] for sequence in sequences):
        pass
    waits_s = [s.admitted_s - s.arrival_s for s in sequences if s.admitted_s is not None]
    assert len(waits_s) == len(sequences) > 100_000
    expected_s = rho * service_s / (2 * (1 - rho))
    assert sum(waits_s) / len(waits_s) == pytest.approx(expected_s, rel=0.02)
