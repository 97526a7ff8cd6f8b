"""The blocks of an engine's cache: counted, shared by prompts that begin alike, and evicted."""

from collections.abc import Hashable, Iterable, Sequence


def prompt_keys(token_ids: Sequence[int], block_size: int) -> list[Hashable]:
    """Return a key for each full block of a prompt: equal keys are equal prompts up to there.

    Each is the hash of the block's token ids and of the key before it. It takes 0.5 us for a block.

    >>> one, other = prompt_keys([1, 2, 3, 4], 2), prompt_keys([1, 2, 9, 9], 2)
    >>> one[0] == other[0], one[1] == other[1]
    (True, False)
    """
    keys: list[Hashable] = []
    key = 0
    for start in range(0, len(token_ids) - block_size + 1, block_size):
        key = hash((key, *token_ids[start : start + block_size]))
        keys.append(key)
    return keys


def private_keys(prompt_tokens: int, block_size: int) -> list[Hashable]:
    """Return a key for each full block of a prompt that no other prompt shares.

    The choices of one request share these blocks, whether or not the engine caches prefixes.
    """
    owner = object()
    return [(owner, index) for index in range(prompt_tokens // block_size)]


class BlockPool:
    """Who holds the blocks.

    A block is free, or private to one sequence, or shared: it has a key then, and the full block
    of a prompt in it. A shared block that nobody holds is idle if the engine caches prefixes, until
    it is found again or evicted, the least recently used first; else it is free.

    Args:
        blocks: How many blocks there are.
        keeps_prefixes: Whether shared blocks stay that nobody holds.
    """

    def __init__(self, blocks: int, *, keeps_prefixes: bool) -> None:
        self.blocks = blocks
        self._free = blocks
        self._private = 0
        self._holders: dict[Hashable, int] = {}
        self._idle: dict[Hashable, None] = {}
        self._keeps_prefixes = keeps_prefixes

    @property
    def available(self) -> int:
        """The blocks that can be taken: the free and the idle."""
        return self._free + len(self._idle)

    @property
    def held(self) -> int:
        """The blocks that sequences hold."""
        return self._private + len(self._holders)

    @property
    def idle(self) -> int:
        """The shared blocks that nobody holds."""
        return len(self._idle)

    def find(self, keys: Iterable[Hashable]) -> tuple[int, int]:
        """Return how many blocks are found up to the first that is not, and how many are idle."""
        found = idle = 0
        for key in keys:
            if key in self._idle:
                idle += 1
            elif key not in self._holders:
                break
            found += 1
        return found, idle

    def share(self, keys: Iterable[Hashable]) -> None:
        """Hold blocks that were found."""
        for key in keys:
            self._idle.pop(key, None)
            self._holders[key] = self._holders.get(key, 0) + 1

    def take(self, blocks: int) -> bool:
        """Hold that many blocks as private ones: all of them, or none and return False."""
        if blocks > self.available:
            return False
        for _ in range(blocks - self._free):
            del self._idle[next(iter(self._idle))]
            self._free += 1
        self._free -= blocks
        self._private += blocks
        return True

    def publish(self, key: Hashable) -> bool:
        """Turn a private block into a shared one; return False if another has this key already."""
        if key in self._holders or key in self._idle:
            return False
        self._private -= 1
        self._holders[key] = 1
        return True

    def forget(self) -> None:
        """Free all shared blocks that nobody holds."""
        self._free += len(self._idle)
        self._idle.clear()

    def release(self, private: int, shared: Sequence[Hashable]) -> None:
        """Give back a sequence's blocks, so that the end of a prompt is evicted before its start.

        Args:
            private: How many private ones it holds.
            shared: The keys of the shared ones that it holds, in the order of the prompt.
        """
        self._private -= private
        self._free += private
        for key in reversed(shared):
            holders = self._holders[key] - 1
            if holders:
                self._holders[key] = holders
                continue
            del self._holders[key]
            if self._keeps_prefixes:
                self._idle[key] = None
            else:
                self._free += 1
