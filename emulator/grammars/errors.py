"""What is wrong with a grammar, and the bounds of what one may cost."""

MAX_GRAMMAR = 16_384  # characters of a definition
MAX_NESTED = 50  # brackets within brackets
MAX_HEIGHT = 80  # rules within rules until a text ends
MAX_STEPS = 20_000  # of writing one text
MAX_WRITTEN = 65_536  # characters of one text
MAX_REPEATS = 1_000  # of one item that must be there


class GrammarError(ValueError):
    """A grammar is not understood, allows no text, or asks for more than the bounds."""
