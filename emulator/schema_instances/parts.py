"""Schemas with their paths, single or several for one value."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import JsonValue

from .errors import Path, UnsatisfiableError

Schema: TypeAlias = Mapping[str, Any] | bool
Json: TypeAlias = Any  # parsed JSON
Part: TypeAlias = tuple[Schema, Path]
ObjectPart: TypeAlias = tuple[Mapping[str, Any], Path]  # a schema that is no boolean
# Makes a value for the parts, at a depth of the instance and a level of recursion.
Make: TypeAlias = Callable[[Sequence[Part], int, int], JsonValue]


@dataclass(frozen=True, slots=True)
class Spot:
    """The schemas that one value must satisfy, after references and allOf."""

    parts: list[ObjectPart]

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def path(self) -> Path:
        """The path of the first schema."""
        return self.parts[0][1] if self.parts else ()

    @property
    def schemas(self) -> Iterator[Mapping[str, Any]]:
        """The schemas without their paths."""
        return (schema for schema, _ in self.parts)

    def having(self, *keywords: str) -> list[ObjectPart]:
        """Return the schemas with one of `keywords`."""
        return [part for part in self.parts if not part[0].keys().isdisjoint(keywords)]

    def counts(self, lowest: str, highest: str) -> tuple[int, int]:
        """Return the tightest values of a minimum and a maximum.

        Raises:
            UnsatisfiableError: The lowest count is above the highest.
        """
        low = max([int(schema[lowest]) for schema, _ in self.parts if lowest in schema], default=0)
        high = min([int(s[highest]) for s, _ in self.parts if highest in s], default=2**63)
        if low > high:
            raise UnsatisfiableError(f"{lowest} {low} is above {highest} {high}", self.path)
        return low, high


def listed(schema: Mapping[str, Any], path: Path, keyword: str) -> Iterator[Part]:
    """Yield the schemas in the list of a keyword, for instance those of anyOf."""
    return ((part, (*path, keyword, i)) for i, part in enumerate(schema.get(keyword, ())))


def item_parts(schema: Mapping[str, Any], path: Path, index: int) -> list[Part]:
    """Return the schemas for the item at `index`."""
    prefix = schema.get("prefixItems", ())
    if index < len(prefix):
        return [(prefix[index], (*path, "prefixItems", index))]
    return [(schema["items"], (*path, "items"))] if "items" in schema else []
