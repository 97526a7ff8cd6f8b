"""Texts that a grammar allows."""

import math
import random
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache

from emulator.grammars.errors import MAX_HEIGHT, MAX_STEPS, MAX_WRITTEN, GrammarError
from emulator.grammars.free import is_any_text
from emulator.grammars.lark_reader import read_lark
from emulator.grammars.nodes import (
    Choice,
    Definitions,
    Literal,
    Node,
    Reference,
    Regex,
    Repeat,
    Sequenced,
)
from emulator.schema_instances.patterns import Pattern, parse_pattern

TRIES = 32
MATCHING_S = 0.02  # for one text of a pattern
# Beyond this depth a text comes to its end as fast as it may.
EASY_DEPTH = 6
MOST_OPTIONAL = 2  # repeats beyond those that must be
SHOWN = 100  # characters of a pattern or a name in a message


class Grammar:
    """What a custom tool's input may be.

    Args:
        definitions: The rules, of which ``start`` says what a whole text is.
    """

    def __init__(self, definitions: Definitions) -> None:
        self._named = definitions.named
        self._ignored = definitions.ignored
        self._free: dict[str, bool] = {}

    @cached_property
    def takes_any_text(self) -> bool:
        """Whether a text in plain words is among those that it allows.

        Raises:
            GrammarError: It is not understood.
        """
        try:
            return self._is_free(Reference("start"))
        except RecursionError:
            raise GrammarError("it is nested too deeply") from None

    def write(self, rng: random.Random) -> str:
        """Return a text that it allows, the same for the same state of `rng`.

        Raises:
            GrammarError: It is not understood, allows none, or one takes too much.
        """
        try:
            return _Writer(self._named, self._heights, self._separator, rng).write()
        except RecursionError:
            raise GrammarError("it is nested too deeply") from None

    def _is_free(self, node: Node) -> bool:
        match node:
            case Regex(pattern=pattern):
                return is_any_text(_parsed(pattern))
            case Reference(name=name):
                if name not in self._free:
                    self._free[name] = False  # for one that leads to itself
                    self._free[name] = self._is_free(_rule(self._named, name))
                return self._free[name]
            case Choice(parts=parts):
                return any(self._is_free(part) for part in parts)
            case Sequenced(parts=parts):
                needed = [p for p in parts if not (isinstance(p, Repeat) and not p.low)]
                return len(needed) == 1 and self._is_free(needed[0])
            case Repeat(part=part, low=low) if low <= 1:
                return self._is_free(part)
            case _:
                return False

    @cached_property
    def _heights(self) -> Mapping[str, float]:
        """How many rules within rules the shortest way to the end of each rule takes."""
        heights: dict[str, float] = dict.fromkeys(self._named, math.inf)
        for _ in range(MAX_HEIGHT):
            before = dict(heights)
            for name, node in self._named.items():
                heights[name] = 1 + _height(node, before)
            if heights == before:
                break
        return heights

    @cached_property
    def _separator(self) -> str:
        """What stands between the terminals of rules: a space where that is ignored."""
        for node in self._ignored:
            for one in self._alternatives(node):
                if one == Literal(" "):
                    return " "
                if isinstance(one, Regex) and _matches(_parsed(one.pattern), " "):
                    return " "
        return ""

    def _alternatives(self, node: Node) -> Iterator[Node]:
        if isinstance(node, Choice):
            for part in node.parts:
                yield from self._alternatives(part)
        elif isinstance(node, Reference):
            yield _rule(self._named, node.name)
        elif isinstance(node, Repeat) and node.low <= 1:
            yield from self._alternatives(node.part)
        else:
            yield node


class _Writer:
    """Writes one text."""

    def __init__(
        self,
        named: Mapping[str, Node],
        heights: Mapping[str, float],
        separator: str,
        rng: random.Random,
    ) -> None:
        self._named = named
        self._heights = heights
        self._separator = separator
        self._rng = rng
        self._part_heights: dict[int, float] = {}
        self._steps = 0
        self._written = 0

    def write(self) -> str:
        """Return the text."""
        if self._heights["start"] > MAX_HEIGHT:
            raise GrammarError(f"no text comes to an end within {MAX_HEIGHT} rules")
        pieces = self._pieces(Reference("start"), 0, in_terminal=False)
        return self._separator.join(piece for piece in pieces if piece)

    def _pieces(self, node: Node, depth: int, *, in_terminal: bool) -> list[str]:
        """Return the terminals of a node; within a terminal they are one."""
        self._spend()
        match node:
            case Literal(text=text):
                return [self._count(text)]
            case Regex(pattern=pattern):
                return [self._count(self._matching(pattern))]
            case Reference(name=name):
                return self._named_pieces(name, depth, in_terminal=in_terminal)
            case Sequenced(parts=parts):
                parts = list(parts)
            case Choice(parts=parts):
                parts = [self._chosen(node, depth)]
            case Repeat():
                parts = [node.part] * self._times(node, depth)
        return [
            piece for part in parts for piece in self._pieces(part, depth, in_terminal=in_terminal)
        ]

    def _named_pieces(self, name: str, depth: int, *, in_terminal: bool) -> list[str]:
        is_terminal = name.lstrip("_")[:1].isupper()
        pieces = self._pieces(
            _rule(self._named, name), depth + 1, in_terminal=in_terminal or is_terminal
        )
        return ["".join(pieces)] if is_terminal and not in_terminal else pieces

    def _chosen(self, node: Choice, depth: int) -> Node:
        """Return an alternative that comes to an end, beyond the easy depth the shortest."""
        heights = [self._height(part) for part in node.parts]
        self._spend(len(heights))
        least = min(heights)
        most = least if depth > EASY_DEPTH else MAX_HEIGHT - depth
        fitting = [p for p, height in zip(node.parts, heights, strict=True) if height <= most]
        if not fitting:
            raise GrammarError(f"no text comes to an end within {MAX_HEIGHT} rules")
        return self._rng.choice(fitting)

    def _times(self, node: Repeat, depth: int) -> int:
        if depth > EASY_DEPTH or self._height(node.part) + depth > MAX_HEIGHT:
            return node.low
        most = node.low + MOST_OPTIONAL
        return self._rng.randint(node.low, most if node.high is None else min(most, node.high))

    def _matching(self, text: str) -> str:
        """Return a text that a regular expression matches as a whole."""
        pattern = _parsed(text)
        if pattern.shortest > MAX_WRITTEN:
            raise GrammarError(f"its texts are longer than {MAX_WRITTEN} characters")
        for turn in range(TRIES):
            slack = 3 * (1 + turn // 8)
            made = pattern.write(self._rng, slack, eager=turn % 2 == 0, spend=self._spend)
            if _matches(pattern, made):
                return made
        raise GrammarError(f"no text was found that matches /{text[:SHOWN]}/")

    def _height(self, node: Node) -> float:
        """Return the height of a part, which is looked at once in a text."""
        if id(node) not in self._part_heights:
            self._part_heights[id(node)] = _height(node, self._heights)
        return self._part_heights[id(node)]

    def _spend(self, steps: int = 1) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise GrammarError(f"a text takes more than {MAX_STEPS} steps")

    def _count(self, text: str) -> str:
        self._written += len(text)
        if self._written > MAX_WRITTEN:
            raise GrammarError(f"a text takes more than {MAX_WRITTEN} characters")
        return text


@lru_cache(maxsize=64)
def read_grammar(syntax: str, definition: str) -> Grammar:
    """Read a grammar; some are kept for later requests.

    Args:
        syntax: ``regex`` or ``lark``.
        definition: A regular expression that a whole text matches, or rules in Lark's notation.

    Raises:
        GrammarError: It is not understood, or above the ``MAX_`` constants.
    """
    if syntax == "regex":
        _parsed(definition)
        return Grammar(Definitions({"start": Regex(definition)}, ()))
    return Grammar(read_lark(definition))


def _parsed(pattern: str) -> Pattern:
    try:
        return parse_pattern(pattern)
    except ValueError as error:
        raise GrammarError(str(error)) from None


def _matches(pattern: Pattern, text: str) -> bool:
    """Tell whether a pattern matches a text as a whole; too slow a match is none."""
    try:
        return pattern.compiled.fullmatch(text, timeout=MATCHING_S) is not None
    except TimeoutError:
        return False


def _rule(named: Mapping[str, Node], name: str) -> Node:
    if name not in named:
        raise GrammarError(f"the rule {name[:SHOWN]!r} is not defined")
    return named[name]


def _height(node: Node, heights: Mapping[str, float]) -> float:
    """Return how many rules within rules the shortest text of a node takes."""
    match node:
        case Reference(name=name):
            return heights.get(name, 0)  # one that is not there is told when it is written
        case Sequenced(parts=parts):
            return max((_height(part, heights) for part in parts), default=0)
        case Choice(parts=parts):
            return min(_height(part, heights) for part in parts)
        case Repeat(part=part, low=low):
            return _height(part, heights) if low else 0
        case _:
            return 0
