"""Grammars of custom tools: texts that a regular expression, or a grammar of Lark, allows.

Lark itself only reads texts, and expands alternatives into rules without a bound; the grammars come
from clients. So its notation is read here, as far as the ``MAX_`` constants go.
"""

from emulator.grammars.errors import GrammarError
from emulator.grammars.grammar import Grammar, read_grammar

__all__ = ["Grammar", "GrammarError", "read_grammar"]
