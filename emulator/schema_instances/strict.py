"""OpenAI's strict mode: its rules for schemas, in OpenAI's words."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from .errors import shown
from .limits import MAX_STRICT_SCHEMAS

Context: TypeAlias = tuple[str, ...]
_Trail: TypeAlias = "tuple[_Trail, str] | None"  # a context as a linked list


# The keywords with schemas inside, in the order in which they are checked.
_KEYWORDS = (
    "properties",
    "items",
    "prefixItems",
    "anyOf",
    "oneOf",
    "allOf",
    "$defs",
    "definitions",
)


class StrictFault(NamedTuple):
    """A violation of strict mode, and its place."""

    context: Context
    reason: str

    def __str__(self) -> str:
        return f"In context={self.context}, {self.reason}"


def strict_fault(schema: object) -> StrictFault | None:
    """Return the first fault of `schema` that OpenAI refuses with ``strict: true``, if any.

    Each object must have ``additionalProperties: false`` and require all its properties. Outer
    objects are checked before inner ones, and definitions last.

    Args:
        schema: A JSON schema, whose invalid parts are ignored.

    >>> str(strict_fault({"type": "object", "properties": {}}))
    "In context=(), 'additionalProperties' is required to be supplied and to be false."
    """
    stack: list[tuple[Any, _Trail]] = [(schema, None)]
    seen = 0
    while stack:
        part, trail = stack.pop()
        seen += 1
        if seen > MAX_STRICT_SCHEMAS:
            reason = f"there are more than {MAX_STRICT_SCHEMAS} schemas, the limit of strict mode."
            return StrictFault((), reason)
        if not isinstance(part, Mapping):
            continue
        if reason := _fault(part):
            return StrictFault(_context(trail), reason)
        stack += reversed(list(islice(_inside(part, trail), MAX_STRICT_SCHEMAS)))
    return None


def _fault(schema: Mapping[str, Any]) -> str:
    properties, kind = schema.get("properties"), schema.get("type", "")
    is_object = "object" in kind if isinstance(kind, str | list) else False
    if not is_object and not ("type" not in schema and isinstance(properties, Mapping)):
        return ""
    if schema.get("additionalProperties") is not False:
        return "'additionalProperties' is required to be supplied and to be false."
    listed = schema.get("required")
    required = (
        {name for name in listed if isinstance(name, str)} if isinstance(listed, list) else ()
    )
    names = properties if isinstance(properties, Mapping) else ()
    if (first := next((name for name in names if name not in required), None)) is not None:
        return (
            "'required' is required to be supplied and to be an array including every key in "
            f"properties. Missing '{shown(first)}'."
        )
    return ""


def _inside(schema: Mapping[str, Any], trail: _Trail) -> Iterator[tuple[Any, _Trail]]:
    """Yield the inner schemas with their trails."""
    for keyword in _KEYWORDS:
        found, over = schema.get(keyword), (trail, keyword)
        if keyword == "items" and not isinstance(found, list):
            yield found, over
        elif isinstance(found, Mapping):
            yield from ((inner, (over, name)) for name, inner in found.items())
        elif isinstance(found, list):
            yield from ((inner, (over, str(index))) for index, inner in enumerate(found))


def _context(trail: _Trail) -> Context:
    steps: list[str] = []
    while trail is not None:
        trail, step = trail
        steps.append(shown(step))
    return tuple(reversed(steps))
