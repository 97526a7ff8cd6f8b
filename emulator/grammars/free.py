"""Whether a pattern matches any text in plain words."""

from typing import Any

from emulator.schema_instances.patterns import Pattern, sre

_OPPOSITES = ("DIGIT", "SPACE", "WORD")
_CONTROLS = 32  # characters before this one are in no plain text


def is_any_text(pattern: Pattern) -> bool:
    r"""Tell whether a pattern is a repeat without end of what takes every plain character.

    >>> from emulator.schema_instances.patterns import parse_pattern
    >>> [is_any_text(parse_pattern(p)) for p in (r".*", r"[\s\S]+", r"(.|\n)+", r"[a-z]+")]
    [True, True, True, False]
    """
    return _is_free(list(pattern.tree))


def _is_free(items: list[Any]) -> bool:
    items = [item for item in items if str(item[0]) != "AT"]
    if len(items) != 1:
        return False
    kind, value = str(items[0][0]), items[0][1]
    if kind == "SUBPATTERN":
        return _is_free(list(value[-1]))
    if not kind.endswith("_REPEAT"):
        return False
    low, high, inner = value
    return low <= 1 and high == sre.MAXREPEAT and _takes_all(list(inner))


def _takes_all(items: list[Any]) -> bool:
    """Tell whether one item takes every character of a plain text."""
    if len(items) != 1:
        return False
    kind, value = str(items[0][0]), items[0][1]
    if kind == "SUBPATTERN":
        return _takes_all(list(value[-1]))
    if kind == "BRANCH":
        return any(_takes_all(list(branch)) for branch in value[1])
    return kind == "ANY" or (kind == "IN" and _class_takes_all(value))


def _class_takes_all(members: list[Any]) -> bool:
    if str(members[0][0]) == "NEGATE":
        return all(str(k) == "LITERAL" and value < _CONTROLS for k, value in members[1:])
    named = {str(value).removeprefix("CATEGORY_") for k, value in members if str(k) == "CATEGORY"}
    return any({one, f"NOT_{one}"} <= named for one in _OPPOSITES)
