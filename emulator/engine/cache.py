"""The blocks of an engine's KV cache, which prompts with a common prefix share."""

from collections.abc import Hashable, Iterable, Sequence


def prompt_keys(token_ids: Sequence[int], block_size: int) -> list[Hashable]:
    """Return a key for each full block of a prompt; equal keys mean equal prompts up to its end.

    A key is the hash of the block's token ids and of the key before it.

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
    """Return a unique key for each full block of a prompt.

    The choices of one request share these blocks, even if the engine caches no prefixes.
    """
    owner = object()
    return [(owner, index) for index in range(prompt_tokens // block_size)]


class BlockPool:
    """The owners of all blocks.

    A block is free, or private to one sequence, or shared under a key, if it is a full block of a
    prompt. With prefix caching a shared block without owners is idle, until it is found again or
    evicted (least recently used first); without, it is free.

    Args:
        blocks: The number of blocks.
        keeps_prefixes: Whether the engine caches prefixes.
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
        """The number of blocks that can be taken: free or idle."""
        return self._free + len(self._idle)

    @property
    def held(self) -> int:
        """The number of blocks that sequences own."""
        return self._private + len(self._holders)

    @property
    def idle(self) -> int:
        """The number of shared blocks without owners."""
        return len(self._idle)

    def __contains__(self, key: Hashable) -> bool:
        """Return whether there is a shared block under a key."""
        return key in self._holders or key in self._idle

    def find(self, keys: Iterable[Hashable]) -> tuple[int, int]:
        """Return the length of the longest prefix of `keys` that is shared, and its idle blocks."""
        found = idle = 0
        for key in keys:
            if key in self._idle:
                idle += 1
            elif key not in self._holders:
                break
            found += 1
        return found, idle

    def share(self, keys: Iterable[Hashable]) -> None:
        """Become an owner of shared blocks."""
        for key in keys:
            self._idle.pop(key, None)
            self._holders[key] = self._holders.get(key, 0) + 1

    def take(self, blocks: int) -> bool:
        """Take private blocks; return False, and take none, if there are too few."""
        if blocks > self.available:
            return False
        for _ in range(blocks - self._free):
            del self._idle[next(iter(self._idle))]
            self._free += 1
        self._free -= blocks
        self._private += blocks
        return True

    def publish(self, key: Hashable) -> bool:
        """Turn a private block into a shared one; return False if the key exists already."""
        if key in self:
            return False
        self._private -= 1
        self._holders[key] = 1
        return True

    def forget(self) -> None:
        """Free all shared blocks that nobody holds."""
        self._free += len(self._idle)
        self._idle.clear()

    def release(self, private: int, shared: Sequence[Hashable]) -> None:
        """Release a sequence's blocks, such that the end of a prompt is evicted before its start.

        Args:
            private: The number of its private blocks.
            shared: The keys of its shared blocks, in the order of the prompt.
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
