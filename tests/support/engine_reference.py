"""The engine's model told once more, sequence by sequence and block by block, to compare with.

It follows the text of the model word by word, and is slow.
"""

from dataclasses import dataclass, field

from emulator.engine.config import EngineConfig


@dataclass(eq=False)
class Block:
    """A block of the cache; ``prefix`` are the tokens of the prompt up to its end."""

    prefix: tuple[object, ...] | None = None
    holders: int = 0
    used: int = 0


@dataclass(eq=False)
class Job:
    """One sequence: its prompt's token ids, how many tokens it gets, and when it arrives."""

    prompt: tuple[object, ...]
    output_tokens: int
    arrival_s: float
    leaves_at_step: int | None = None
    generated: int = 0
    prefilled: int = 0
    blocks: list[Block] = field(default_factory=list)
    due_s: list[float] = field(default_factory=list)
    cached_tokens: int | None = None

    @property
    def context(self) -> int:
        """Prompt and generated tokens."""
        return len(self.prompt) + self.generated

    @property
    def decodes(self) -> bool:
        """Whether its prefill is done."""
        return self.prefilled == self.context


class Reference:
    """The engine of the issue's text."""

    def __init__(self, config: EngineConfig, jobs: list[Job]) -> None:
        self.config = config
        self.coming = sorted(jobs, key=lambda job: job.arrival_s)
        self.waiting: list[Job] = []
        self.running: list[Job] = []
        self.blocks = [Block() for _ in range(config.kv_blocks)]
        self.steps = 0
        self.uses = 0
        self.preempted: list[Job] = []
        self.decoding: list[Job] = []
        self.prefill_squares = 0

    def find(self, prefix: tuple[object, ...]) -> Block | None:
        """Return the block that holds the end of a prefix."""
        return next((block for block in self.blocks if block.prefix == prefix), None)

    def hits(self, job: Job) -> list[Block]:
        """Return the blocks that a job finds: never all of its tokens."""
        found: list[Block] = []
        size = self.config.block_size
        for end in range(size, len(job.prompt) + 1, size):
            block = self.find(job.prompt[:end])
            if block is None or end > job.context - 1:
                break
            found.append(block)
        return found

    def take(self) -> Block | None:
        """Return a block that nobody holds: an empty one, or else the least recently used."""
        free = [block for block in self.blocks if not block.holders]
        if not free:
            return None
        block = min(free, key=lambda block: (block.prefix is not None, block.used))
        block.prefix = None
        return block

    def hold(self, job: Job, block: Block) -> None:
        """Give a block to a job."""
        block.holders += 1
        job.blocks.append(block)

    def free(self, job: Job) -> None:
        """Take all blocks from a job; the last of a prompt are evicted first."""
        for block in reversed(job.blocks):
            block.holders -= 1
            if not block.holders:
                self.uses += 1
                block.used = self.uses
                if not self.config.prefix_caching:
                    block.prefix = None
        job.blocks = []

    def decode(self, job: Job) -> bool:
        """Find the block for a decode; return False if the job itself was preempted for it."""
        while len(job.blocks) * self.config.block_size < job.context:
            block = self.take()
            if block is not None:
                self.hold(job, block)
                continue
            victim = self.running.pop()
            self.free(victim)
            victim.prefilled = 0
            self.waiting.insert(0, victim)
            self.preempted.append(victim)
            if victim is job:
                return False
        return True

    def prefill(self, job: Job, budget: int) -> int:
        """Prefill a chunk, whose full blocks can then be found."""
        chunk = min(job.context - job.prefilled, budget)
        self.prefill_squares -= job.prefilled**2
        job.prefilled += chunk
        self.prefill_squares += job.prefilled**2
        size = self.config.block_size
        for index in range(min(job.prefilled, len(job.prompt)) // size):
            prefix = job.prompt[: (index + 1) * size]
            if self.find(prefix) is None:
                job.blocks[index].prefix = prefix
        return chunk

    def admit(self, job: Job) -> bool:
        """Give a job the blocks of its prompt, if the cache has room."""
        hits = self.hits(job)
        needed = -(-job.context // self.config.block_size) - len(hits)
        room = sum(not block.holders and block not in hits for block in self.blocks)
        if needed > room:
            return False
        for block in hits:
            self.hold(job, block)
        for _ in range(needed):
            taken = self.take()
            assert taken is not None
            self.hold(job, taken)
        job.prefilled = len(hits) * self.config.block_size
        if job.cached_tokens is None:
            job.cached_tokens = job.prefilled
        return True

    def leave(self) -> None:
        """Let those go whose client has gone away."""
        for job in [*self.running, *self.waiting]:
            if job.leaves_at_step is not None and self.steps >= job.leaves_at_step:
                self.free(job)
                (self.running if job in self.running else self.waiting).remove(job)

    def schedule_running(self) -> int:
        """Give those that run their part of the budget, and return what is left of it."""
        budget = self.config.max_num_batched_tokens
        for job in list(self.running):
            if job not in self.running or not budget:
                continue
            if not job.decodes:
                budget -= self.prefill(job, budget)
            elif self.decode(job):
                self.decoding.append(job)
                budget -= 1
        return budget

    def schedule_waiting(self, budget: int) -> int:
        """Admit those that wait, and return what is left of the budget."""
        while self.waiting and len(self.running) < self.config.max_num_seqs and budget:
            if not self.admit(self.waiting[0]):
                break
            self.running.append(self.waiting.pop(0))
            budget -= self.prefill(self.running[-1], budget)
        return budget

    def step(self, start_s: float) -> float | None:
        """Run a step and return its end; None if there is nothing to do."""
        self.leave()
        self.decoding, self.preempted, self.prefill_squares = [], [], 0
        left = self.schedule_waiting(self.schedule_running())
        if not self.running:
            return None
        assert left >= 0
        prefill = self.config.max_num_batched_tokens - left - len(self.decoding)
        context = sum(job.context for job in self.decoding)
        # Every one that runs is in the step: nobody is left without a token of the budget.
        step_s = self.config.step_s(prefill, len(self.running), context, self.prefill_squares)
        end_s = start_s + step_s
        for job in [job for job in self.running if job.decodes]:
            job.generated += 1
            job.prefilled = job.context
            job.due_s.append(end_s)
            if job.generated == job.output_tokens:
                self.running.remove(job)
                self.free(job)
        self.steps += 1
        return end_s

    def run(self) -> None:
        """Run until nothing is left."""
        now_s, overhead_s = float("-inf"), self.config.request_overhead_ms / 1000
        while self.coming or self.waiting or self.running:
            if not self.running and not self.waiting:
                now_s = max(now_s, self.coming[0].arrival_s + overhead_s)
            while self.coming and self.coming[0].arrival_s + overhead_s <= now_s:
                self.waiting.append(self.coming.pop(0))
            end_s = self.step(now_s)
            if end_s is not None:
                now_s = end_s
