"""The limits of the embedding models."""

MAX_INPUTS = 2048
MAX_TOKENS_OF_AN_INPUT = 8192
MAX_TOKENS_OF_ALL_INPUTS = 300_000

_DIMENSIONS = {"text-embedding-3-large": 3072}
_DEFAULT_DIMENSIONS = 1536
_OF_ONE_LENGTH = "text-embedding-ada-002"


def most_dimensions(model: str) -> int:
    """Return the length of a model's vectors, which a request may shorten.

    >>> most_dimensions("text-embedding-3-large"), most_dimensions("openai/my-model")
    (3072, 1536)
    """
    return _DIMENSIONS.get(model.rpartition("/")[2], _DEFAULT_DIMENSIONS)


def takes_dimensions(model: str) -> bool:
    """Return whether a request may shorten the vectors of a model."""
    return model.rpartition("/")[2] != _OF_ONE_LENGTH
