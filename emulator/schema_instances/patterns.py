"""Making texts that match a regular expression; the library rstr has no budget."""

import random
import re
import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from itertools import count
from typing import Any, TypeAlias

import regex

from .limits import MAX_PATTERN, MAX_PATTERN_GROUPS, MAX_PATTERN_KEPT, MAX_PATTERN_LITERAL

# Python's parser of regular expressions, as there is no public one; it has no types.
sre: Any = import_module("re._parser")

Tree: TypeAlias = Any  # a result of re's parser

_compiled = count(1)  # patterns so far


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression, for writing and matching texts."""

    tree: Tree
    compiled: regex.Pattern[str]
    _pools: dict[tuple[int, bool], list[str]] = field(default_factory=dict)  # by class of the tree

    @property
    def shortest(self) -> int:
        """The length of the shortest text that matches."""
        return int(self.tree.getwidth()[0])

    def write(
        self, rng: random.Random, slack: int, *, eager: bool, spend: Callable[[], None]
    ) -> str:
        """Return a text that matches, except for look-around and word borders.

        Args:
            rng: Decides all choices.
            slack: The most characters that repeats add to the shortest text.
            eager: Repeat as often as `slack` allows, and prefer plain letters.
            spend: Called for each item of the pattern; raises an error beyond the budget.
        """
        return _Writer(rng, slack, eager, spend, self._pools).write(self.tree)

    def matches(self, text: str, timeout_s: float) -> bool:
        """Return whether the pattern is found in `text`.

        Raises:
            TimeoutError: It takes longer than `timeout_s`.
        """
        return self.compiled.search(text, timeout=timeout_s) is not None


def parse_pattern(pattern: str) -> Pattern:
    """Parse a regular expression; short ones are cached.

    Raises:
        ValueError: It is not understood, or exceeds the limits.
    """
    return _kept(pattern) if len(pattern) <= MAX_PATTERN_KEPT else _parse(pattern)


def _parse(pattern: str) -> Pattern:
    limit = ValueError(
        f"the pattern is above the limits of {MAX_PATTERN} characters once unrolled, "
        f"{MAX_PATTERN_GROUPS} groups or {MAX_PATTERN_LITERAL} plain characters in a row"
    )
    if len(pattern) > MAX_PATTERN or pattern.count("(") > MAX_PATTERN_GROUPS:
        raise limit
    try:
        tree = sre.parse(_as_python(pattern))
        if _unrolled(tree) > MAX_PATTERN or _longest_literal(tree) > MAX_PATTERN_LITERAL:
            raise limit
        return Pattern(tree, _compile(pattern))
    except (re.error, regex.error, OverflowError) as error:
        raise ValueError(f"the pattern is not understood: {error}") from None


_kept = lru_cache(maxsize=256)(_parse)  # a few MB


def _compile(pattern: str) -> regex.Pattern[str]:
    """Compile `pattern`, without leaving anything in regex's caches."""
    if next(_compiled) % 500 == 0:
        regex.purge()  # it keeps the pattern's text even without its cache
    return regex.compile(pattern, cache_pattern=False)


class _Writer:
    def __init__(
        self,
        rng: random.Random,
        slack: int,
        eager: bool,
        spend: Callable[[], None],
        pools: dict[tuple[int, bool], list[str]],
    ) -> None:
        self._rng = rng
        self._slack = slack  # characters that repeats may still add
        self._eager = eager
        self._spend = spend
        self._pools = pools
        self._groups: dict[int, str] = {}
        mixed = string.ascii_letters + string.digits + "!@#$%&*-_."
        self._any = string.ascii_lowercase if eager else mixed

    def write(self, tree: Tree) -> str:
        return "".join(self._item(str(kind), value) for kind, value in tree)

    def _item(self, kind: str, value: Tree) -> str:
        self._spend()
        if kind.endswith("_REPEAT"):
            return self._repeat(*value)
        if kind == "SUBPATTERN":
            self._groups[value[0]] = text = self.write(value[3])
            return text
        if kind == "BRANCH":
            return self.write(self._rng.choice(value[1]))
        if kind == "ATOMIC_GROUP":
            return self.write(value)
        if kind == "GROUPREF":
            return self._groups.get(value, "")
        return self._character(kind, value)

    def _repeat(self, low: int, high: int, tree: Tree) -> str:
        width = max(1, tree.getwidth()[0])
        more = min(int(high) - low, self._slack // width)
        more = more if self._eager else self._rng.randint(0, more)
        self._slack -= more * width
        return "".join(self.write(tree) for _ in range(low + more))

    def _character(self, kind: str, value: Tree) -> str:
        if kind == "LITERAL":
            return chr(value)
        if kind == "ANY":
            return self._rng.choice(self._any)
        if kind == "NOT_LITERAL":
            return self._rng.choice(self._any.replace(chr(value), ""))
        return self._one_of(value) if kind == "IN" else ""

    def _one_of(self, members: Tree) -> str:
        if str(members[0][0]) == "NEGATE":
            return self._rng.choice(self._pool(members, members[1:], is_wanted=False) or [""])
        member = self._rng.choice(members)
        kind, value = member
        if str(kind) == "RANGE":
            return chr(self._rng.randint(*value))
        if str(kind) == "LITERAL":
            return chr(value)
        return self._rng.choice(self._pool(member, [member], is_wanted=True))

    def _pool(self, node: Tree, members: Tree, *, is_wanted: bool) -> list[str]:
        """Return the plain characters that are, or are not, among the members of a class."""
        key = (id(node), self._eager)
        if key not in self._pools:
            every = self._any + string.digits + string.punctuation + " _-"
            found = {c for member in members for c in _in_member(every, member)}
            self._pools[key] = [c for c in every if (c in found) is is_wanted]
        return self._pools[key]


# ECMAScript's syntax that Python's parser lacks; classes become their ASCII characters.
_ECMA = re.compile(r"\\p\{(\w+)\}|\(\?<(?=\w)|\\.|[\[\]]", re.DOTALL)
_UNICODE_CLASSES = {
    **dict.fromkeys(("L", "Letter", "Alphabetic"), "A-Za-z"),
    **dict.fromkeys(("Lu", "Uppercase_Letter", "Uppercase"), "A-Z"),
    **dict.fromkeys(("Ll", "Lowercase_Letter", "Lowercase"), "a-z"),
    **dict.fromkeys(("N", "Number", "Nd", "Decimal_Number"), "0-9"),
    **dict.fromkeys(("P", "Punctuation"), "!#%&*,./:;?@"),
}


def _as_python(pattern: str) -> str:
    """Translate an ECMAScript pattern into Python's syntax."""
    in_class = False

    def known(match: re.Match[str]) -> str:
        nonlocal in_class
        text = match[0]
        if text in "[]":
            in_class = text == "["
        elif match[1] in _UNICODE_CLASSES:
            members = _UNICODE_CLASSES[match[1]]
            return members if in_class else f"[{members}]"
        elif text == "(?<" and not in_class:
            return "(?P<"
        return text

    return _ECMA.sub(known, pattern)


def _unrolled(tree: Tree) -> int:
    """Return the number of items of a pattern with its repeats expanded, as for compiling."""
    size = 0
    for kind, value in tree:
        if str(kind).endswith("_REPEAT"):
            low, high, inner = value
            times = high if isinstance(high, int) and high < sre.MAXREPEAT else low + 1
            size += _unrolled(inner) * times
        elif str(kind) == "BRANCH":
            size += sum(map(_unrolled, value[1]))
        elif str(kind) in ("SUBPATTERN", "ASSERT", "ASSERT_NOT", "ATOMIC_GROUP"):
            size += _unrolled(value if str(kind) == "ATOMIC_GROUP" else value[-1])
        size += 1
    return size


def _longest_literal(tree: Tree) -> int:
    """Return the length of the longest literal, across groups."""
    return max(map(len, re.findall("L+", "".join(_outline(tree)))), default=0)


def _outline(tree: Tree) -> Iterator[str]:
    """Yield an L for each literal character of a pattern, and a dot where a literal ends."""
    for kind, value in tree:
        if str(kind) in ("LITERAL", "AT"):
            yield "L"
        elif str(kind) == "SUBPATTERN":
            yield from _outline(value[-1])
        elif str(kind) == "BRANCH":
            for branch in value[1]:
                yield from (".", *_outline(branch), ".")
        elif str(kind) == "ATOMIC_GROUP":
            yield from _outline(value)
        elif str(kind) in ("ASSERT", "ASSERT_NOT"):
            yield from (".", *_outline(value[-1]), ".")
        elif str(kind).endswith("_REPEAT"):
            inner = "".join(_outline(value[2]))
            yield inner * value[0] if value[0] == value[1] else f".{inner}."
        else:
            yield "."


_CLASSES: dict[str, Callable[[str], bool]] = {
    "DIGIT": str.isdigit,
    "SPACE": str.isspace,
    "WORD": lambda c: c.isalnum() or c == "_",
}


def _in_member(characters: str, member: Tree) -> Iterable[str]:
    """Return the `characters` that a literal, range or class within [...] matches."""
    kind, value = str(member[0]), member[1]
    if kind == "LITERAL":
        return chr(value)
    if kind == "RANGE":
        return (c for c in characters if value[0] <= ord(c) <= value[1])
    name = str(value).removeprefix("CATEGORY_").removeprefix("UNI_")
    is_in, wanted = _CLASSES[name.removeprefix("NOT_")], not name.startswith("NOT_")
    return (c for c in characters if is_in(c) is wanted)
