"""Merging the schemas for one value: $ref and allOf are followed, alternatives collected."""

import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from .document import Document
from .errors import Path, SchemaError, UnsatisfiableError
from .limits import MAX_LEVELS, MAX_MERGED
from .parts import Part, Spot, listed

Option: TypeAlias = list[Part]  # the parts of one alternative
Choice: TypeAlias = list[Option]
_References: TypeAlias = frozenset[str]


class Merger:
    """Merges parts of a document."""

    def __init__(self, document: Document, rng: random.Random) -> None:
        self._document = document
        self._rng = rng

    def merge(self, parts: Sequence[Part]) -> tuple[Spot, list[Choice]]:
        """Return the schemas that `parts` imply, and the choices between alternatives.

        Raises:
            SchemaError: A schema is invalid, or there are more than ``MAX_MERGED``.
            UnsatisfiableError: A schema is false.
        """
        spot = Spot([])
        choices: list[Choice] = []
        queue = deque((part, _References()) for part in parts)
        while queue:
            (schema, path), references = queue.popleft()
            if not isinstance(schema, Mapping):
                if not schema:
                    raise UnsatisfiableError("false allows nothing here", path)
                continue
            self._document.enter(schema, path)
            spot.parts.append((schema, path))
            check_merged(len(spot), path)
            choices += self._choices(schema, path)
            queue.extend((part, references) for part in listed(schema, path, "allOf"))
            if "$ref" in schema:
                queue.append(self._follow(schema["$ref"], (*path, "$ref"), references))
        return spot, choices

    def _follow(
        self, reference: str, path: Path, references: _References
    ) -> tuple[Part, _References]:
        if reference in references:
            raise UnsatisfiableError("$ref leads back to itself", path)
        if len(references) >= MAX_LEVELS:
            raise UnsatisfiableError(f"over {MAX_LEVELS} $ref lead to one another", path)
        return self._document.target(reference, path), references | {reference}

    def _choices(self, schema: Mapping[str, Any], path: Path) -> Iterator[Choice]:
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                self._document.budget.spend(path, len(schema[keyword]) // 8)
                choice = [[part] for part in listed(schema, path, keyword)]
                if keyword == "oneOf":
                    self._rng.shuffle(choice)
                yield choice
        if "if" in schema:
            choice = [
                [(schema["if"], (*path, "if")), *_branch(schema, path, "then")],
                _branch(schema, path, "else"),
            ]
            self._rng.shuffle(choice)
            yield choice


def check_merged(count: int, path: Path) -> None:
    """Check the number of schemas for one value.

    Raises:
        SchemaError: There are more than ``MAX_MERGED``.
    """
    if count > MAX_MERGED:
        raise SchemaError(
            f"more than the limit of {MAX_MERGED} schemas hold together for one value", path
        )


def _branch(schema: Mapping[str, Any], path: Path, keyword: str) -> Option:
    return [(schema[keyword], (*path, keyword))] if keyword in schema else []
