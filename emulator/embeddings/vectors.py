"""Hashed bags of words: texts with common words have similar vectors."""

from binascii import b2a_base64
from typing import TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from emulator.embeddings.words import Words

Vectors: TypeAlias = NDArray[np.float32]

# The number of places of a vector for each word.
PLACES = 4

# Characters of a number as JSON, with sign and point.
_DIGITS = 12

_GOLDEN = 0x9E3779B97F4A7C15
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def bags_of_words(words: Words, model: str, dimensions: int) -> Vectors:
    """Return a row of whole numbers for each text: the sums of its words' weights at each place.

    The places and signs of a word depend only on the word and the model. No row is all zeros.
    """
    texts = len(words.counts)
    seed = np.uint64(crc32(model.encode("utf-8", "surrogatepass")) << 32)
    spread = np.arange(1, PLACES + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    mixed = _mixed((words.hashes[:, None] ^ seed) + spread)
    rows = np.repeat(np.arange(texts), words.counts)[:, None]
    places = rows * dimensions + (mixed % np.uint64(dimensions)).astype(np.int64)
    signs = 1.0 - 2.0 * (mixed >> np.uint64(63))
    values = words.weights[:, None] * signs
    sums = np.bincount(places.ravel(), values.ravel(), texts * dimensions)
    bags = sums.astype(np.float32).reshape(texts, dimensions)
    bags[~bags.any(axis=1), 0] = 1
    return bags


def _mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of hashes by the last steps of splitmix64."""
    for shift, factor in zip((30, 27), _MIX, strict=True):
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    return hashes ^ (hashes >> np.uint64(31))


def base64_rows(bags: Vectors) -> list[bytes]:
    """Return each bag, normalized, as a JSON string: base64 of little-endian 32-bit floats."""
    vectors = (bags / _lengths(bags)[:, None]).astype("<f4", copy=False)
    if vectors.shape[1] % 3:
        return [b'"%b"' % b2a_base64(vector.data, newline=False) for vector in vectors]
    # No row ends within a group of three bytes, so that all are encoded at once.
    text, size = b2a_base64(vectors.data, newline=False), vectors.shape[1] * 16 // 3
    return [b'"%b"' % text[at : at + size] for at in range(0, len(text), size)]


def json_rows(bags: Vectors) -> list[bytes]:
    """Return each bag, normalized, as a JSON array of decimals with at least nine places.

    A bag has few different numbers, each of which is formatted once.
    """
    rows = []
    for row, length in zip(bags.astype(np.int64), _lengths(bags).tolist(), strict=True):
        least, most = int(row.min()), int(row.max())
        decimals = [
            f"{value / length:.{_DIGITS}f}"[:_DIGITS] + "," for value in range(least, most + 1)
        ]
        table = np.array(decimals, dtype=f"S{_DIGITS + 1}")
        rows.append(b"[%b]" % table[row - least].tobytes()[:-1])
    return rows


def _lengths(bags: Vectors) -> Vectors:
    lengths: Vectors = np.sqrt(np.einsum("ij,ij->i", bags, bags))
    return lengths
