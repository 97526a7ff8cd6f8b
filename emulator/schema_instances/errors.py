"""Errors in schemas."""

from typing import TypeAlias

MAX_SHOWN = 300  # characters of a path, or of a client's text, in a message

Path: TypeAlias = tuple[str | int, ...]


class SchemaError(ValueError):
    """A schema cannot be satisfied, is not understood, or exceeds the limits."""

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(message)
        self.message = message
        self.steps = path

    @property
    def path(self) -> str:
        """The place of the error, such as ``properties.age``; empty for the schema itself."""
        return shown(".".join(map(str, self.steps)))

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.steps else self.message


class UnsatisfiableError(SchemaError):
    """No value satisfies this part; another alternative may be satisfiable."""


def shown(text: str) -> str:
    """Return `text` for a message, truncated to ``MAX_SHOWN``."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
