"""Continuous batching: which sequences are in each step, and how long it takes.

The caller keeps the time: it says when a step starts, and is told when the step ends. An ordinary
step costs a few sums, however many sequences decode: each gets one token a step, so that the steps
in which it needs a block and in which it ends are known when it begins to decode.
"""

import math
import random
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from emulator.engine.cache import BlockPool
from emulator.engine.config import EngineConfig


class OverloadError(Exception):
    """The queue is full."""


class TooLongError(Exception):
    """A sequence has more tokens than the cache."""


class State(Enum):
    """The state of a sequence."""

    NEW = "new"
    WAITING = "waiting"
    PREFILLING = "prefilling"
    DECODING = "decoding"
    DONE = "done"
    LEFT = "left"


@dataclass(slots=True, eq=False)
class EngineSequence:
    """A prompt and its answer in an engine.

    Args:
        prompt_tokens: At least 1.
        output_tokens: At least 1.
        arrival_s: The instant of arrival; no step that starts earlier has it.
        keys: A key for each full block of the prompt, under which other sequences find it.
    """

    prompt_tokens: int
    output_tokens: int
    arrival_s: float = 0.0
    keys: Sequence[Hashable] = ()
    state: State = field(default=State.NEW, init=False)
    queued_s: float = field(default=0.0, init=False)  # arrival, and the request's overhead
    admitted_s: float | None = field(default=None, init=False)  # for the first time
    first_token_s: float | None = field(default=None, init=False)
    finished_s: float | None = field(default=None, init=False)
    cached_tokens: int = field(default=0, init=False)  # of the prompt, at the first admission
    preemptions: int = field(default=0, init=False)
    _given: int = field(default=0, init=False)  # tokens, before the step `_decoding_since`
    _decoding_since: int = field(default=0, init=False)
    _finish_step: int = field(default=0, init=False)
    _prefill_left: int = field(default=0, init=False)
    _private_blocks: int = field(default=0, init=False)
    _shared: list[Hashable] = field(default_factory=list, init=False)
    _publishes: int = field(default=0, init=False)  # the first of `keys` not yet published


S = TypeVar("S", bound=EngineSequence)


@dataclass(slots=True)
class Step(Generic[S]):
    """One step of the engine.

    ``advanced`` has the sequences that get a token at its end: those that decode, then those in
    ``prefilled``, for which it is the first since their admission. ``finished`` has those that get
    their last token, once the step has ended.
    """

    start_s: float
    end_s: float
    prefill_tokens: int
    context_tokens: int
    sequences: int
    advanced: list[S]
    prefilled: list[S]
    admitted: list[S]
    preempted: list[S]
    finished: list[S] = field(default_factory=list)


class Scheduler(Generic[S]):
    """An engine's queue, batch and cache.

    `start_step` and `end_step` are called alternately; `submit` and `leave` at any time.

    * ``_decoders`` has the sequences that get a token in each step, in order of admission. The
      budget suffices for all of them: a sequence is admitted only while some budget is left, and
      at most one, the last admitted, has an unfinished prefill.
    * ``_growing[i]`` has those that need another block in each step whose number is i modulo the
      block size.
    * ``_finishing[i]`` has those that end with step i, unless they are preempted or leave.

    Args:
        config: The engine.
        seed: Of the spread of its steps: a run with the same seed has the same times.
    """

    def __init__(self, config: EngineConfig, seed: int = 0) -> None:
        self.config = config
        self._rng = random.Random(seed)
        self._prefill_squares = 0
        self.pool = BlockPool(config.kv_blocks, keeps_prefixes=config.prefix_caching)
        self.waiting: deque[S] = deque()
        self.running: dict[S, None] = {}
        self.end_s = float("-inf")
        self._leaving: list[S] = []
        self._decoders: dict[S, None] = {}
        self._unfinished_prefill: S | None = None
        self._context_tokens = 0
        self._number = 0
        self._growing: list[dict[S, None]] = [{} for _ in range(config.block_size)]
        self._finishing: dict[int, list[S]] = {}
        self._step: Step[S] | None = None

    # ------------------------------------------------------------------------------
    # Arrivals and departures
    # ------------------------------------------------------------------------------

    def submit(self, sequences: Sequence[S]) -> None:
        """Queue the choices of one request.

        Raises:
            TooLongError: One of them would never fit into the cache.
            OverloadError: ``max_waiting`` sequences wait already.
        """
        longest = max(seq.prompt_tokens + seq.output_tokens for seq in sequences)
        if longest > self.config.max_model_len:
            raise TooLongError(
                f"the engine's cache holds {self.config.max_model_len} tokens, "
                f"but prompt and answer are {longest}"
            )
        if len(self.waiting) >= self.config.max_waiting:
            raise OverloadError(f"{len(self.waiting)} sequences wait")
        overhead_s = self.config.request_overhead_ms / 1000
        for sequence in sequences:
            sequence.queued_s = sequence.arrival_s + overhead_s
            sequence.state = State.WAITING
            self.waiting.append(sequence)

    def leave(self, sequence: S) -> None:
        """Remove a sequence from queue, batch and cache at the start of the next step."""
        self._leaving.append(sequence)

    @property
    def next_start_s(self) -> float | None:
        """The start of the next step, None if there is nothing to do."""
        if self.running:
            return self.end_s
        if self.waiting:
            return max(self.end_s, self.waiting[0].queued_s)
        return None

    def tokens_of(self, sequence: S) -> int:
        """Return the number of tokens that a sequence has got."""
        if sequence.state is State.DECODING:
            return sequence._given + self._number - sequence._decoding_since
        return sequence._given

    # ------------------------------------------------------------------------------
    # Steps
    # ------------------------------------------------------------------------------

    def start_step(self, start_s: float) -> Step[S] | None:
        """Start a step with what was queued by `start_s`; return None if there is nothing."""
        self._let_leave()
        self._prefill_squares = 0
        preempted: list[S] = []
        for sequence in list(self._growing[self._number % self.config.block_size]):
            self._grow(sequence, preempted)
        prefilled: list[S] = []
        admitted: list[S] = []
        # More may run than the bound on tokens has room for once it was lowered.
        budget = max(self.config.max_num_batched_tokens - len(self._decoders), 0)
        left = budget
        if self._unfinished_prefill is not None:
            left -= self._prefill(self._unfinished_prefill, left, prefilled)
        while left and self._admits(start_s):
            sequence = self._admit(start_s)
            admitted.append(sequence)
            left -= self._prefill(sequence, left, prefilled)
        if not self.running:
            return None
        end_s = start_s + self._step_s(budget - left)
        self._step = Step(
            start_s=start_s,
            end_s=end_s,
            prefill_tokens=budget - left,
            context_tokens=self._context_tokens,
            sequences=len(self.running),
            advanced=[*self._decoders, *prefilled],
            prefilled=prefilled,
            admitted=admitted,
            preempted=preempted,
        )
        self.end_s = end_s
        return self._step

    def end_step(self) -> Step[S]:
        """End the step, and remove the sequences that are finished."""
        step = self._step
        if step is None:
            raise RuntimeError("no step has started")
        self._step = None
        for sequence in self._finishing.pop(self._number, ()):
            if sequence.state is State.DECODING and sequence._finish_step == self._number:
                step.finished.append(sequence)
        self._context_tokens += len(self._decoders)
        self._number += 1
        for sequence in step.prefilled:
            if sequence.first_token_s is None:
                sequence.first_token_s = step.end_s
            if sequence._given + 1 == sequence.output_tokens:
                sequence._given += 1
                step.finished.append(sequence)
            else:
                self._begin_to_decode(sequence)
        for sequence in step.finished:
            sequence.finished_s = step.end_s
            self._remove(sequence)
            sequence.state = State.DONE
        return step

    def _step_s(self, prefill_tokens: int) -> float:
        """Return how long the step takes, with its spread."""
        config = self.config
        step_s = config.step_s(
            prefill_tokens, len(self.running), self._context_tokens, self._prefill_squares
        )
        if not config.step_cv:
            return step_s
        # A lognormal factor has the mean exp(mu + sigma^2 / 2), which is 1 here, and the
        # coefficient of variation sqrt(exp(sigma^2) - 1).
        variance = math.log1p(config.step_cv**2)
        return step_s * self._rng.lognormvariate(-variance / 2, math.sqrt(variance))

    def _let_leave(self) -> None:
        leaving, self._leaving = self._leaving, []
        waited = False
        for sequence in leaving:
            if sequence in self.running:
                self._remove(sequence)
            if sequence.state is not State.DONE:
                waited = waited or sequence.state is State.WAITING
                sequence.state = State.LEFT
        if waited:
            self.waiting = deque(s for s in self.waiting if s.state is State.WAITING)

    # ------------------------------------------------------------------------------
    # Prefill
    # ------------------------------------------------------------------------------

    def _admits(self, start_s: float) -> bool:
        """Return whether the first in the queue is admitted now."""
        if not self.waiting or len(self.running) >= self.config.max_num_seqs:
            return False
        sequence = self.waiting[0]
        if sequence.queued_s > start_s:
            return False
        found, idle = self.pool.find(self._usable_keys(sequence))
        return self._blocks(sequence) - found <= self.pool.available - idle

    def _admit(self, start_s: float) -> S:
        sequence = self.waiting.popleft()
        keys = self._usable_keys(sequence)
        found, _ = self.pool.find(keys)
        sequence._shared = list(keys[:found])
        self.pool.share(sequence._shared)
        sequence._private_blocks = self._blocks(sequence) - found
        self.pool.take(sequence._private_blocks)
        sequence._publishes = found
        cached_tokens = found * self.config.block_size
        sequence._prefill_left = sequence.prompt_tokens + sequence._given - cached_tokens
        if sequence.admitted_s is None:
            sequence.admitted_s = start_s
            sequence.cached_tokens = cached_tokens
        sequence.state = State.PREFILLING
        self.running[sequence] = None
        return sequence

    def _usable_keys(self, sequence: S) -> Sequence[Hashable]:
        """Return the keys of blocks that a sequence need not prefill: all but its last token's."""
        tokens = sequence.prompt_tokens + sequence._given
        return sequence.keys[: (tokens - 1) // self.config.block_size]

    def _blocks(self, sequence: S) -> int:
        """Return the number of blocks that the prefill of a sequence needs."""
        return -(-(sequence.prompt_tokens + sequence._given) // self.config.block_size)

    def _prefill(self, sequence: S, budget: int, prefilled: list[S]) -> int:
        """Prefill a sequence as far as the budget allows; return the number of tokens."""
        chunk = min(sequence._prefill_left, budget)
        before = sequence.prompt_tokens + sequence._given - sequence._prefill_left
        self._prefill_squares += chunk * (2 * before + chunk)
        sequence._prefill_left -= chunk
        self._publish(sequence)
        if sequence._prefill_left:
            self._unfinished_prefill = sequence
        else:
            self._unfinished_prefill = None
            prefilled.append(sequence)
        return chunk

    def _publish(self, sequence: S) -> None:
        """Share the full blocks of a prompt that are prefilled."""
        done = sequence.prompt_tokens + sequence._given - sequence._prefill_left
        upto = min(done // self.config.block_size, len(sequence.keys))
        for key in sequence.keys[sequence._publishes : upto]:
            if self.pool.publish(key):
                sequence._private_blocks -= 1
                sequence._shared.append(key)
        sequence._publishes = max(upto, sequence._publishes)

    # ------------------------------------------------------------------------------
    # Decoding
    # ------------------------------------------------------------------------------

    def _begin_to_decode(self, sequence: S) -> None:
        prefilled = sequence.prompt_tokens + sequence._given
        sequence._given += 1
        sequence._decoding_since = self._number
        sequence._finish_step = self._number + sequence.output_tokens - sequence._given - 1
        sequence.state = State.DECODING
        self._decoders[sequence] = None
        self._context_tokens += prefilled + 1
        # Its context now has one token more than was prefilled, and needs another block as soon as
        # the blocks of the prefill are full.
        block_size = self.config.block_size
        self._growing[(self._number - prefilled) % block_size][sequence] = None
        self._finishing.setdefault(sequence._finish_step, []).append(sequence)

    def _grow(self, sequence: S, preempted: list[S]) -> None:
        """Take another block for a sequence that decodes, preempting others if needed."""
        while sequence.state is State.DECODING:
            if self.pool.take(1):
                sequence._private_blocks += 1
                return
            last = next(reversed(self.running))
            self._preempt(last)
            preempted.append(last)

    def _preempt(self, sequence: S) -> None:
        self._remove(sequence)
        sequence.state = State.WAITING
        sequence.preemptions += 1
        self.waiting.appendleft(sequence)

    def _remove(self, sequence: S) -> None:
        """Remove a sequence from batch and cache."""
        if sequence.state is State.DECODING:
            block_size = self.config.block_size
            prefilled = sequence.prompt_tokens + sequence._given - 1
            del self._growing[(sequence._decoding_since - prefilled) % block_size][sequence]
            del self._decoders[sequence]
            sequence._given = self.tokens_of(sequence)
            self._context_tokens -= sequence.prompt_tokens + sequence._given
        elif sequence is self._unfinished_prefill:
            self._unfinished_prefill = None
        del self.running[sequence]
        self.pool.release(sequence._private_blocks, sequence._shared)
        sequence._private_blocks, sequence._shared = 0, []
