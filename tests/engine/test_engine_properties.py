"""What holds for every engine and every load, found by trying thousands of both."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.engine.cache import private_keys, prompt_keys
from emulator.engine.config import EngineConfig
from emulator.engine.runner import TimedSequence
from emulator.engine.scheduler import Scheduler, State
from tests.support.engine_reference import Job, Reference

configs = st.builds(
    EngineConfig,
    source=st.just("drawn"),
    step_base_ms=st.sampled_from([1.0, 7.0]),
    step_per_prefill_token_ms=st.sampled_from([0.0, 0.5]),
    step_per_sequence_ms=st.sampled_from([0.0, 1.0]),
    step_per_context_token_ms=st.sampled_from([0.0, 0.25]),
    step_per_prefill_token_squared_ms=st.sampled_from([0.0, 0.0625]),
    request_overhead_ms=st.sampled_from([0.0, 5.0]),
    max_num_seqs=st.integers(1, 6),
    max_num_batched_tokens=st.integers(1, 30),
    kv_blocks=st.integers(4, 16),
    block_size=st.integers(1, 6),
    prefix_caching=st.booleans(),
)
# A prompt is a part of one of two texts, so that many begin alike, and an end of its own.
prompts = st.tuples(st.sampled_from("ab"), st.integers(0, 20), st.integers(1, 4))
loads = st.lists(
    st.tuples(
        prompts,
        st.integers(1, 20),
        st.sampled_from([0, 1, 3, 10, 40]),
        st.none() | st.integers(0, 20),
    ),
    min_size=1,
    max_size=12,
)

# A busy machine is no fault of the model's.
MANY = settings(max_examples=100, deadline=None)


class Both:
    """One load for the engine and for the reference, request by request."""

    def __init__(self, config: EngineConfig, load: Sequence[Any]) -> None:
        self.config = config
        self.scheduler: Scheduler[TimedSequence] = Scheduler(config)
        self.jobs: list[Job] = []
        self.sequences: list[TimedSequence] = []
        arrival_s = 0.0
        for index, ((text, shared, own), output_tokens, gap_ms, leaves_at_step) in enumerate(load):
            arrival_s += gap_ms / 1000
            ids = [hash((text, i)) for i in range(shared)] + [hash((index, i)) for i in range(own)]
            if len(ids) + output_tokens > config.max_model_len:
                continue
            size = config.block_size
            keys = prompt_keys(ids, size) if config.prefix_caching else private_keys(len(ids), size)
            known = ids if config.prefix_caching else [(index, token) for token in ids]
            self.jobs.append(Job(tuple(known), output_tokens, arrival_s, leaves_at_step))
            self.sequences.append(TimedSequence(len(ids), output_tokens, arrival_s, keys))

    def run(self) -> None:
        """Run the engine; check at each step what must hold at all times."""
        coming = list(self.sequences)
        steps = 0
        while coming or self.scheduler.next_start_s is not None:
            start_s = self.scheduler.next_start_s
            if start_s is None:
                start_s = max(self.scheduler.end_s, coming[0].arrival_s)
            while coming and coming[0].arrival_s <= start_s:
                self.scheduler.submit([coming.pop(0)])
            for job, sequence in zip(self.jobs, self.sequences, strict=True):
                leaves = job.leaves_at_step is not None and job.leaves_at_step <= steps
                if leaves and sequence.state not in (State.NEW, State.DONE, State.LEFT):
                    self.scheduler.leave(sequence)
            step = self.scheduler.start_step(start_s)
            self.check_blocks()
            if step is None:
                continue
            decoding = len(step.advanced) - len(step.prefilled)
            assert decoding + step.prefill_tokens <= self.config.max_num_batched_tokens
            assert step.sequences <= self.config.max_num_seqs
            for sequence in self.scheduler.end_step().advanced:
                sequence.due_s.append(step.end_s)
            self.check_blocks()
            steps += 1

    def check_blocks(self) -> None:
        """No block is lost and none is held twice."""
        pool = self.scheduler.pool
        assert pool.held + pool.available == pool.blocks
        running = self.scheduler.running
        assert pool._private == sum(sequence._private_blocks for sequence in running)
        holders = [key for sequence in running for key in sequence._shared]
        assert sum(pool._holders.values()) == len(holders)
        assert set(pool._holders) == set(holders)
        assert not set(pool._holders) & set(pool._idle)


@given(configs, loads)
@MANY
def test_the_model_is_the_one_of_the_text(config: EngineConfig, load: Sequence[Any]) -> None:
    """Every token of every sequence comes when the slow reference says, preemptions and all."""
    both = Both(config, load)
    both.run()
    Reference(config, both.jobs).run()
    assert [list(s.due_s) for s in both.sequences] == [pytest.approx(j.due_s) for j in both.jobs]
    served = [(s, j) for s, j in zip(both.sequences, both.jobs, strict=True) if s.admitted_s]
    if config.prefix_caching:
        assert [s.cached_tokens for s, _ in served] == [j.cached_tokens for _, j in served]


@given(configs, loads)
@MANY
def test_no_sequence_starves(config: EngineConfig, load: Sequence[Any]) -> None:
    """Whoever stays gets all tokens, and at the end the cache is nobody's."""
    both = Both(config, load)
    both.run()
    for job, sequence in zip(both.jobs, both.sequences, strict=True):
        assert sequence.state in (State.DONE, State.LEFT)
        assert sequence.state is State.DONE or job.leaves_at_step is not None
        assert sequence.state is State.LEFT or len(sequence.due_s) == job.output_tokens
    pool = both.scheduler.pool
    assert pool.held == 0
    assert config.prefix_caching or pool.idle == 0


@given(configs, loads)
@MANY
def test_first_come_first_served(config: EngineConfig, load: Sequence[Any]) -> None:
    """Sequences are admitted for the first time in the order in which they arrived."""
    both = Both(config, load)
    both.run()
    admitted_s = [s.admitted_s for s in both.sequences if s.admitted_s is not None]
    assert admitted_s == sorted(admitted_s)
    stayed = [s for s in both.sequences if s.state is State.DONE and not s.preemptions]
    first_s = [s.first_token_s for s in stayed if s.first_token_s is not None]
    assert first_s == sorted(first_s)


@given(configs, loads)
@MANY
def test_tokens_are_counted(config: EngineConfig, load: Sequence[Any]) -> None:
    """The engine's own count of a sequence's tokens is that of what was handed out."""
    both = Both(config, load)
    both.run()
    assert [both.scheduler.tokens_of(s) for s in both.sequences] == [
        len(s.due_s) for s in both.sequences
    ]
