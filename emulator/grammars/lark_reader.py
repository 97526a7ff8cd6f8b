"""Reads grammars in Lark's notation.

Understood are rules and terminals with priorities, aliases, alternatives, groups, ``?``, ``*``,
``+``, ``~``, strings, ranges and regular expressions with flags, ``%ignore``, and ``%import`` from
``common``. Templates, other directives and other imports are refused.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from emulator.grammars.errors import MAX_GRAMMAR, MAX_NESTED, MAX_REPEATS, GrammarError
from emulator.grammars.lark_common import COMMON
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

_TOKEN = re.compile(
    r"""
    (?P<skip>[ \t\f]+|//[^\n]*|\#[^\n]*)
    |(?P<or>(?:\s|//[^\n]*\n|\#[^\n]*\n)*\|)   # a line that begins so goes on
    |(?P<line>\s+)
    |(?P<regex>/(?!/)(?:\\.|[^/\\\n])+/[imslux]*)
    |(?P<string>"(?:\\.|[^"\\\n])*"i?)
    |(?P<range>\.\.)
    |(?P<arrow>->)
    |(?P<directive>%[a-z]+)
    |(?P<name>[!?]*_?[A-Za-z]\w*)
    |(?P<number>[+-]?\d+)
    |(?P<mark>[:()\[\]?*+~.,{}])
    """,
    re.VERBOSE,
)
_SHOWN = 40  # characters of what is not understood
_SUFFIXES = {"?": (0, 1), "*": (0, None), "+": (1, None)}
_CLOSING = {"(": ")", "[": "]"}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


def read_lark(definition: str) -> Definitions:
    """Read a grammar; its texts are those of the rule ``start``.

    Raises:
        GrammarError: It is not understood, is too long, or has no such rule.
    """
    if len(definition) > MAX_GRAMMAR:
        raise GrammarError(f"expected at most {MAX_GRAMMAR} characters, but got {len(definition)}")
    reader = _Reader(list(_tokens(definition)))
    while reader.more:
        reader.statement()
    if "start" not in reader.named:
        raise GrammarError("expected a rule named 'start', but there is none")
    return Definitions(reader.named, reader.ignored)


def _tokens(definition: str) -> Iterator[_Token]:
    at = 0
    while at < len(definition):
        found = _TOKEN.match(definition, at)
        if found is None:
            raise GrammarError(f"{definition[at : at + _SHOWN]!r} is not understood")
        at = found.end()
        kind = str(found.lastgroup)
        if kind != "skip":
            yield _Token(kind, "|" if kind == "or" else found[0])


class _Reader:
    """Reads statement after statement."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self.named: dict[str, Node] = {}
        self.ignored: list[Node] = []

    @property
    def more(self) -> bool:
        """Whether there is something else than ends of lines."""
        while self._peek("line"):
            self._at += 1
        return self._at < len(self._tokens)

    def statement(self) -> None:
        """Read a rule, a terminal or a directive.

        Raises:
            GrammarError: It is not understood.
        """
        token = self._next()
        if token.kind == "directive":
            self._directive(token.text)
            return
        name = token.text.lstrip("!?")
        if token.kind != "name":
            raise GrammarError(f"expected a rule, but got {token.text[:_SHOWN]!r}")
        if self._take("mark", "."):
            self._expect("number")
        self._expect("mark", ":")
        if name in self.named:
            raise GrammarError(f"the rule {name[:_SHOWN]!r} is defined twice")
        self.named[name] = self._choice()
        self._end_of_line()

    def _directive(self, name: str) -> None:
        if name == "%ignore":
            self.ignored.append(self._choice())
        elif name == "%import":
            self._import()
        else:
            raise GrammarError(f"{name} is not supported")
        self._end_of_line()

    def _import(self) -> None:
        module = self._expect("name").text
        if module != "common":
            raise GrammarError(f"only 'common' can be imported from, not {module[:_SHOWN]!r}")
        if self._take("mark", "."):
            name = self._expect("name").text
            alias = self._expect("name").text if self._take("arrow") else name
            self._import_one(name, alias)
            return
        self._expect("mark", "(")
        while not self._take("mark", ")"):
            name = self._expect("name").text
            self._import_one(name, name)
            self._take("mark", ",")

    def _import_one(self, name: str, alias: str) -> None:
        if name not in COMMON:
            raise GrammarError(f"common.{name[:_SHOWN]} is not supported")
        self.named[alias] = Regex(COMMON[name])

    def _choice(self) -> Node:
        """Read alternatives."""
        self._take("or")
        parts = [self._sequence()]
        while self._take("or"):
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else Choice(parts)

    def _sequence(self) -> Node:
        """Read items up to the end of an alternative, and its alias."""
        parts: list[Node] = []
        while True:
            if self._depth:
                while self._take("line"):
                    pass
            if not self._starts_item():
                break
            parts.append(self._item())
        if self._take("arrow"):
            self._expect("name")
        return parts[0] if len(parts) == 1 else Sequenced(parts)

    def _starts_item(self) -> bool:
        token = self._tokens[self._at] if self._at < len(self._tokens) else None
        return token is not None and (
            token.kind in ("regex", "string", "name") or token.text in ("(", "[")
        )

    def _item(self) -> Node:
        """Read one item and how often it stands there."""
        node = self._atom()
        token = self._tokens[self._at] if self._at < len(self._tokens) else None
        if token is not None and token.kind == "mark" and token.text in _SUFFIXES:
            self._at += 1
            return Repeat(node, *_SUFFIXES[token.text])
        if self._take("mark", "~"):
            low = high = self._count()
            if self._take("range"):
                high = self._count()
            if low > high:
                raise GrammarError(f"a repeat from {low} to {high} is none")
            return Repeat(node, low, high)
        return node

    def _count(self) -> int:
        count = int(self._expect("number").text)
        if not 0 <= count <= MAX_REPEATS:
            raise GrammarError(f"expected a repeat of at most {MAX_REPEATS}, but got {count}")
        return count

    def _atom(self) -> Node:
        token = self._next()
        if token.kind == "string":
            return self._string(token.text)
        if token.kind == "regex":
            return _regex(token.text)
        if token.kind == "name":
            if self._peek("mark", "{"):
                raise GrammarError("templates are not supported")
            return Reference(token.text.lstrip("!?"))
        self._depth += 1
        if self._depth > MAX_NESTED:
            raise GrammarError(f"it is nested deeper than {MAX_NESTED} brackets")
        inner = self._choice()
        self._expect("mark", _CLOSING[token.text])
        self._depth -= 1
        return Repeat(inner, 0, 1) if token.text == "[" else inner

    def _string(self, text: str) -> Node:
        """Return a string, or the range that begins with it."""
        first = _unquoted(text)
        if not self._take("range"):
            return Literal(first)
        last = _unquoted(self._expect("string").text)
        if len(first) != 1 or len(last) != 1 or first > last:
            raise GrammarError(f"the range {text}..{last!r} is none")
        return Regex(f"[{re.escape(first)}-{re.escape(last)}]")

    def _peek(self, kind: str, text: str | None = None) -> bool:
        if self._at == len(self._tokens):
            return False
        token = self._tokens[self._at]
        return token.kind == kind and text in (None, token.text)

    def _take(self, kind: str, text: str | None = None) -> bool:
        """Go past a token if it is of this kind, and tell whether it was."""
        found = self._peek(kind, text)
        self._at += found
        return found

    def _next(self) -> _Token:
        if self._at == len(self._tokens):
            raise GrammarError("it ends within a rule")
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, kind: str, text: str | None = None) -> _Token:
        token = self._next()
        if token.kind != kind or text not in (None, token.text):
            raise GrammarError(f"expected {text or f'a {kind}'}, but got {token.text[:_SHOWN]!r}")
        return token

    def _end_of_line(self) -> None:
        if self._at < len(self._tokens):
            self._expect("line")


def _unquoted(text: str) -> str:
    """Return what a string says; one in any case of letters is as good as it stands."""
    try:
        return str(ast.literal_eval(text.removesuffix("i")))
    except (SyntaxError, ValueError):
        raise GrammarError(f"the string {text[:_SHOWN]} is not understood") from None


def _regex(text: str) -> Regex:
    body, _, flags = text[1:].rpartition("/")
    flags = "".join(sorted(set(flags) - set("lu")))  # these say nothing to texts
    body = body.replace("\\/", "/")
    return Regex(f"(?{flags}:{body})" if flags else body)
