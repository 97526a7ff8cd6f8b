"""Ids of responses and of their items: the end tells whether OpenAI would have stored them."""

_STORED = "5afe"
_UNSTORED = "1057"


def id_end(*, stored: bool) -> str:
    """Return the last digits of a response's id."""
    return _STORED if stored else _UNSTORED


def item_id(prefix: str, digits: str, index: int) -> str:
    """Return the id of an item, made of the digits of its response's; it has the same end."""
    return f"{prefix}{digits[:-8]}{index:04x}{digits[-4:]}"


def says_unstored(given_id: str) -> bool:
    """Tell whether an id of a response or of an item says that it was not stored."""
    return given_id.endswith(_UNSTORED)


def as_stored(given_id: str) -> str:
    """Return an id that says that the same was stored."""
    return given_id[: -len(_STORED)] + _STORED
