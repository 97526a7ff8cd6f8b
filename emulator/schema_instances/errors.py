"""What is wrong with a schema, and where."""

from typing import TypeAlias

MAX_SHOWN = 300  # characters of a path, or of a client's text, in a message

Path: TypeAlias = tuple[str | int, ...]


class SchemaError(ValueError):
    """A schema cannot be satisfied, is not understood, or asks for more than the limits."""

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(message)
        self.message = message
        self.steps = path

    @property
    def path(self) -> str:
        """Where the fault is, for instance ``properties.age``; empty for the schema itself."""
        return shown(".".join(map(str, self.steps)))

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.steps else self.message


class UnsatisfiableError(SchemaError):
    """Nothing is valid here; another alternative may still serve."""


def shown(text: str) -> str:
    """Return `text` for a message, cut where it is longer than ``MAX_SHOWN``."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
