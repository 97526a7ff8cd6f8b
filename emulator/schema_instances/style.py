"""How instances use the freedom that a schema leaves."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Style:
    """What instances look like where a schema allows more than one thing.

    Args:
        fills_optional: Whether objects near the root have their optional properties.
        whole_numbers: Whether a ``number`` is whole, unless bounds or a step forbid it.
        is_ascii: Whether strings are English, else words in many scripts.
    """

    fills_optional: bool = True
    whole_numbers: bool = True
    is_ascii: bool = True


PLAIN = Style()
