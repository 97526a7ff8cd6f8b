"""Continuous batching in steps: which sequences get a token at the end of which step, and when.

Nothing here reads a clock or waits: the caller says when a step starts, and is told when it ends.
All that an ordinary step costs is a few sums, however many sequences decode in it: they all get
one token each, so that what a sequence needs, and when, is known when it begins to decode.
"""

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from emulator.engine.cache import BlockPool
from emulator.engine.config import EngineConfig


class OverloadError(Exception):
    """As many sequences wait as may."""


class TooLongError(Exception):
    """A sequence would not fit into the cache even if it were alone."""


class State(Enum):
    """Where a sequence is."""

    NEW = "new"
    WAITING = "waiting"
    PREFILLING = "prefilling"
    DECODING = "decoding"
    DONE = "done"
    LEFT = "left"


class EngineSequence:
    """One prompt and the answer to it on their way through an engine.

    Args:
        prompt_tokens: At least 1.
        output_tokens: At least 1.
        arrival_s: When it arrives; it is in no step that starts earlier.
        keys: One for each full block of the prompt, by which other sequences find it.
    """

    __slots__ = (
        "_decoding_since",
        "_finish_step",
        "_given",
        "_prefill_left",
        "_private_blocks",
        "_publishes",
        "_shared",
        "admitted_s",
        "arrival_s",
        "cached_tokens",
        "finished_s",
        "first_token_s",
        "keys",
        "output_tokens",
        "preemptions",
        "prompt_tokens",
        "state",
    )

    def __init__(
        self,
        prompt_tokens: int,
        output_tokens: int,
        arrival_s: float = 0.0,
        keys: Sequence[Hashable] = (),
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.arrival_s = arrival_s
        self.keys = keys
        self.state = State.NEW
        self.admitted_s: float | None = None  # for the first time
        self.first_token_s: float | None = None
        self.finished_s: float | None = None
        self.cached_tokens = 0  # of the prompt, found when it was first admitted
        self.preemptions = 0
        self._given = 0  # tokens, before the step `_decoding_since`
        self._decoding_since = 0
        self._finish_step = 0
        self._prefill_left = 0
        self._private_blocks = 0
        self._shared: list[Hashable] = []
        self._publishes = 0  # the first of `keys` that is not yet its own to publish


S = TypeVar("S", bound=EngineSequence)


@dataclass(slots=True)
class Step(Generic[S]):
    """One step of the engine.

    ``advanced`` are the sequences that get a token at its end, first those that decode; for those
    in ``prefilled`` it is the first, or the first after a preemption. ``finished`` are those that
    it is the last for; it is filled when the step ends.
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

    `start_step` and `end_step` are called in turn; `submit` and `leave` at any time. What each
    sequence still needs is kept by the step in which it needs it:

    * ``_decoders`` get one token in each step, in order of admission. That none of them is ever
      left out follows from the budget: a sequence is admitted only while some is left, so that no
      more run than the budget has tokens; and at most one, the one admitted last, has a prefill
      that is not done.
    * ``_growing[i]`` are those that need one more block in each step whose number is i, modulo the
      block size.
    * ``_finishing[i]`` are those that are done at the end of step i, if nothing comes between.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
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
    # What comes and goes
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
        for sequence in sequences:
            sequence.state = State.WAITING
            self.waiting.append(sequence)

    def leave(self, sequence: S) -> None:
        """Take a sequence out of queue, batch and cache when the next step starts."""
        self._leaving.append(sequence)

    @property
    def next_start_s(self) -> float | None:
        """When the next step starts: None if there is nothing to do."""
        if self.running:
            return self.end_s
        if self.waiting:
            return max(self.end_s, self.waiting[0].arrival_s)
        return None

    def tokens_of(self, sequence: S) -> int:
        """Return how many tokens a sequence has got."""
        if sequence.state is State.DECODING:
            return sequence._given + self._number - sequence._decoding_since
        return sequence._given

    # ------------------------------------------------------------------------------
    # Steps
    # ------------------------------------------------------------------------------

    def start_step(self, start_s: float) -> Step[S] | None:
        """Start a step with what has arrived by `start_s`; return None if that is nothing."""
        self._let_leave()
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
        end_s = start_s + self.config.step_s(budget - left, len(self.running), self._context_tokens)
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
        """End the step: hand out its tokens, and let those that are done leave."""
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
        """Whether the first in the queue is admitted now."""
        if not self.waiting or len(self.running) >= self.config.max_num_seqs:
            return False
        sequence = self.waiting[0]
        if sequence.arrival_s > start_s:
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
        """Return the keys of blocks that a sequence need not prefill: never its last token's."""
        tokens = sequence.prompt_tokens + sequence._given
        return sequence.keys[: (tokens - 1) // self.config.block_size]

    def _blocks(self, sequence: S) -> int:
        """Return how many blocks the prefill of a sequence needs."""
        return -(-(sequence.prompt_tokens + sequence._given) // self.config.block_size)

    def _prefill(self, sequence: S, budget: int, prefilled: list[S]) -> int:
        """Prefill as much of a sequence as the budget has tokens, and return how much that is."""
        chunk = min(sequence._prefill_left, budget)
        sequence._prefill_left -= chunk
        self._publish(sequence)
        if sequence._prefill_left:
            self._unfinished_prefill = sequence
        else:
            self._unfinished_prefill = None
            prefilled.append(sequence)
        return chunk

    def _publish(self, sequence: S) -> None:
        """Let other sequences find the full blocks of a prompt that are prefilled."""
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
        # Its context in this step has one token more than was prefilled: if the blocks of that
        # are full it needs another one now, else when they are.
        block_size = self.config.block_size
        self._growing[(self._number - prefilled) % block_size][sequence] = None
        self._finishing.setdefault(sequence._finish_step, []).append(sequence)

    def _grow(self, sequence: S, preempted: list[S]) -> None:
        """Take one more block for a sequence that decodes; preempt others, or itself, for it."""
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
        """Take a sequence out of the batch and the cache."""
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
