"""A grammar as a tree: what each rule and terminal is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Literal:
    """A text as it stands."""

    text: str


@dataclass(frozen=True, slots=True)
class Regex:
    """What a regular expression matches."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A rule or a terminal, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Sequenced:
    """Parts one after the other."""

    parts: Sequence["Node"]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several parts."""

    parts: Sequence["Node"]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part from `low` to `high` times; None for any number."""

    part: "Node"
    low: int
    high: int | None


Node: TypeAlias = Literal | Regex | Reference | Sequenced | Choice | Repeat


@dataclass(frozen=True, slots=True)
class Definitions:
    """The rules and terminals of a grammar, and what may stand between its terminals."""

    named: Mapping[str, Node]
    ignored: Sequence[Node]
