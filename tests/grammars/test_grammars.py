"""Texts by grammars: what Lark reads of them, and what is refused."""

import random
import re
from contextlib import suppress

import lark
import pytest

from emulator.grammars import GrammarError, read_grammar
from emulator.grammars.errors import MAX_GRAMMAR, MAX_NESTED, MAX_WRITTEN
from tests.support.reference import cpu_s, least

# Codex's tool `exec`, as its client sends it.
EXEC = r"""
start: pragma_source | plain_source
pragma_source: PRAGMA_LINE NEWLINE SOURCE
plain_source: SOURCE

PRAGMA_LINE: /[ \t]*\/\/ @exec:[^\r\n]*/
NEWLINE: /\r?\n/
SOURCE: /[\s\S]+/
"""
# The patches of Codex, with lines that are not empty, which Lark's parser wants.
PATCH = r"""
start: begin_patch hunk+ end_patch
begin_patch: "*** Begin Patch" LF
end_patch: "*** End Patch" LF?

hunk: add_hunk | delete_hunk | update_hunk
add_hunk: "*** Add File: " filename LF add_line+
delete_hunk: "*** Delete File: " filename LF
update_hunk: "*** Update File: " filename LF change_move? change?

filename: /(.+)/
add_line: "+" /(.+)/ LF -> line

change_move: "*** Move to: " filename LF
change: (change_context | change_line)+ eof_line?
change_context: ("@@" | "@@ " /(.+)/) LF
change_line: ("+" | "-" | " ") /(.+)/ LF
eof_line: "*** End of File" LF

%import common.LF
"""
GRAMMARS = {
    "patch": PATCH,
    "sums": """
        ?start: sum
        ?sum: product | sum "+" product -> add | sum "-" product -> sub  // left recursion
        ?product: atom | product "*" atom | product "/" atom
        ?atom: NUMBER | "-" atom | "(" sum ")"
        %import common.NUMBER
        %import common.WS_INLINE
        %ignore WS_INLINE
        """,
    "query": r"""
        start: "select"i column ("," column)* "from"i NAME [where] ";"
        column: NAME | "*"
        where: "where"i NAME ("=" | "<>") (ESCAPED_STRING | INT)
        NAME.2: /[a-z_][a-z0-9_]{2,8}/i
        %import common (ESCAPED_STRING, INT)
        %ignore /\s+/
        """,
    "json": r"""
        ?start: value
        ?value: object | array | string | SIGNED_NUMBER -> number | "true" | "false" | "null"
        array: "[" [value ("," value)*] "]"
        object: "{" [pair ("," pair)*] "}"
        pair: string ":" value
        string: ESCAPED_STRING
        %import common.ESCAPED_STRING
        %import common.SIGNED_NUMBER
        %import common.WS
        %ignore WS
        """,
    "ranges and counts": """
        start: HEX~3 "-" LOW~2..4 ("x" | "y")~2 # a comment
        HEX: "0".."9" | "A".."F"
        LOW: "a".."f"
        """,
    "terminals of terminals": r"""
        start: (DATE "\\n")+ "\\x41\\u00e9"
        DATE: YEAR "-" MONTH
        YEAR: DIGIT~4
        MONTH: "0" "1".."9" | "1" ("0" | "1" | "2")
        %import common.DIGIT
        """,
    "alternatives on lines": """
        start: one
             | two

             | three
        one: "1"
        two: "2"
        three: "3"
        """,
}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", GRAMMARS)
def test_lark_reads_what_is_written(kind: str, seed: int) -> None:
    """Each text is one that Lark's own parser takes, and a seed makes it again."""
    definition = GRAMMARS[kind]
    text = read_grammar("lark", definition).write(random.Random(seed))
    lark.Lark(definition).parse(text)
    assert read_grammar("lark", definition).write(random.Random(seed)) == text


@pytest.mark.parametrize("kind", GRAMMARS)
def test_texts_differ(kind: str) -> None:
    """Other seeds make other texts."""
    grammar = read_grammar("lark", GRAMMARS[kind])
    assert len({grammar.write(random.Random(seed)) for seed in range(24)}) > 2


@pytest.mark.parametrize(
    "pattern",
    [r"[A-Z]{3}-\d{4}", r"(?i:yes|no)", r"^\w+@\w+\.org$", r"(a|b)+c?", r"(\d)\1", r"[^a-z]{4}"],
)
def test_patterns_match_as_a_whole(pattern: str) -> None:
    """A text by a regular expression matches it from its start to its end."""
    grammar = read_grammar("regex", pattern)
    assert not grammar.takes_any_text
    for seed in range(8):
        assert re.fullmatch(pattern, grammar.write(random.Random(seed)))


@pytest.mark.parametrize(
    ("syntax", "definition", "free"),
    [
        ("lark", EXEC, True),
        ("lark", 'start: TEXT "."?\nTEXT: /.+/', True),
        ("lark", "start: line\nline: start | WORD\n%import common.WORD", False),
        ("lark", PATCH, False),
        ("lark", 'start: "say: " /.+/', False),
        ("regex", r"[\s\S]*", True),
        ("regex", r"(?s)^.+$", True),
        ("regex", r"(.|\n)+", True),
        ("regex", r"[^\r\n]+", True),
        ("regex", r"[^a]+", False),
        ("regex", r".{3}", False),
        ("regex", r".+!", False),
    ],
)
def test_any_text(syntax: str, definition: str, free: bool) -> None:
    """A grammar that allows any text is known as one."""
    assert read_grammar(syntax, definition).takes_any_text is free


BAD: dict[str, tuple[str, str]] = {
    "no start": ('a: "b"', "expected a rule named 'start'"),
    "nothing": ("", "expected a rule named 'start'"),
    "a rule that is not there": ("start: nobody", "the rule 'nobody' is not defined"),
    "a rule twice": ('start: "a"\nstart: "b"', "defined twice"),
    "without end": ("start: start start", "no text comes to an end"),
    "a template": ('start: list{"a"}\nlist{x}: x', "templates are not supported"),
    "another module": ("start: A\n%import python.A", "only 'common' can be imported from"),
    "an unknown terminal": ("start: A\n%import common.A", "common.A is not supported"),
    "another directive": ("start: A\n%declare A", "%declare is not supported"),
    "a bracket that does not close": ('start: ("a"', "it ends within a rule"),
    "a sign": ("start: $", "'$' is not understood"),
    "a rule in a rule": ('start: "a" b: "c"', "expected a line, but got ':'"),
    "a range of words": ('start: "ab".."c"', "the range"),
    "too many repeats": ('start: "a"~2000', "a repeat of at most 1000"),
    "repeats that are none": ('start: "a"~3..2', "a repeat from 3 to 2 is none"),
    "a bad pattern": ("start: /(/", "the pattern is not understood"),
    "a bad string": ('start: "\\x"', "is not understood"),
    "a pattern of nothing": ("start: /a(?!a)a/", "no text was found that matches"),
    "too long": ("start: " + '"a" ' * MAX_GRAMMAR, "expected at most 16384 characters"),
    "nested too deeply": ("start: " + "(" * 60 + '"a"' + ")" * 60, "deeper than 50 brackets"),
    "a chain that is too long": (
        "start: r0\n" + "\n".join(f"r{i}: r{i + 1}" for i in range(200)) + '\nr200: "a"',
        "no text comes to an end within 80 rules",
    ),
    "too long a text": ('start: a~1000\na: b~1000\nb: "c"', "takes more than"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_refused(kind: str) -> None:
    """A grammar that cannot be followed says why."""
    definition, words = BAD[kind]
    with pytest.raises(GrammarError) as caught:
        _ = read_grammar("lark", definition).write(random.Random(1))
    assert words in str(caught.value)


HOSTILE = {
    "alternatives that would multiply": "start: " + '("a"|"b")' * 500,
    "diamonds": "start: r0\n"
    + "\n".join(f"r{i}: r{i + 1} | r{i + 1} r{i + 1}" for i in range(60))
    + '\nr60: "a"',
    "many alternatives, often": "start: a~1000\na: " + "|".join(f'"{i}"' for i in range(2500)),
    "alternatives within alternatives": "start: " + "(" * 40 + '"a"' * 300 + '|"b")' * 40 + "~1000",
    "a chain that leads nowhere": "\n".join(f"r{i}: r{i + 1}" for i in range(1500))
    + "\nstart: r0\nr1500: start",
    "a slow pattern": "start: /((((((a+)+)+)+)+)+)+b(?!)/",
    "many rules": "start: r0\n" + "\n".join(f'r{i}: "a" | r{i + 1}' for i in range(1000)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_grammars_cost_little(kind: str) -> None:
    """Whatever a grammar says, reading it and writing a text take a second at the most."""

    def read_and_write() -> None:
        with suppress(GrammarError):
            grammar = read_grammar("lark", HOSTILE[kind])
            assert not grammar.takes_any_text
            assert len(grammar.write(random.Random(1))) <= MAX_WRITTEN

    assert least(lambda: cpu_s(read_and_write), below=1) < 1


def test_brackets_up_to_the_bound_are_read() -> None:
    """As many brackets as are allowed are no fault."""
    definition = "start: " + "(" * MAX_NESTED + '"a"' + ")" * MAX_NESTED
    assert read_grammar("lark", definition).write(random.Random(1)) == "a"
