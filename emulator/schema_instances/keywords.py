"""The keywords of JSON schema, and their valid values."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from .errors import Path, SchemaError
from .limits import MAX_MERGED, MAX_NUMBER
from .values import TYPES, is_number

# Ignoring these would change the meaning of references, or of other keywords.
_UNSUPPORTED = {"$dynamicRef", "$recursiveRef", "unevaluatedItems", "unevaluatedProperties"}


def is_schema(value: object) -> bool:
    """Return whether `value` looks like a schema."""
    return isinstance(value, Mapping | bool)


def kinds(schema: Mapping[str, Any]) -> Sequence[str]:
    """Return the types that `schema` allows."""
    found = schema.get("type", TYPES)
    return [found] if isinstance(found, str) else found


def check_keywords(schema: Mapping[str, Any], path: Path) -> None:
    """Check the keywords of `schema`, not of the schemas inside.

    Raises:
        SchemaError: A keyword is not supported, or has an invalid value.
    """
    for keyword, value in schema.items():
        if keyword in _UNSUPPORTED:
            raise SchemaError("this keyword is not supported", (*path, keyword))
        expected, is_right = _KEYWORDS.get(keyword, ("", None))
        if is_right and not is_right(value):
            raise SchemaError(f"expected {expected}", (*path, keyword))


def weight(schema: Mapping[str, Any]) -> int:
    """Return the number of members of the keywords of `schema`, as a measure of its cost."""
    found = len(schema)
    for keyword in _WITH_MEMBERS:
        found += len(schema.get(keyword, ()))
    for names in schema.get("dependentRequired", {}).values():
        found += len(names)
    return found


def _is_count(value: object) -> bool:
    return isinstance(value, int | float) and is_number(value) and value >= 0 and value % 1 == 0


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_type(value: object) -> bool:
    names = value if isinstance(value, list) else [value]
    return 0 < len(names) <= len(TYPES) and all(name in TYPES for name in names)


def _is_map(value: object, item: Callable[[object], bool]) -> bool:
    return isinstance(value, Mapping) and all(map(item, value.values()))


def _is_list(value: object) -> bool:
    return isinstance(value, list) and 0 < len(value) <= MAX_MERGED and all(map(is_schema, value))


_BOUND = (f"a number of at most {MAX_NUMBER:.2g}, as a double holds", is_number)
_COUNT = ("an integer of at least 0", _is_count)
_ONE = ("a schema", is_schema)
_MAP = ("an object of schemas", partial(_is_map, item=is_schema))
_LIST = (f"a list of 1 to {MAX_MERGED} schemas", _is_list)
_STRING = ("a string", lambda value: isinstance(value, str))

_KEYWORDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "type": (f"one or a list of {', '.join(TYPES)}", _is_type),
    "$ref": _STRING,
    "pattern": _STRING,
    "format": _STRING,
    "enum": ("a list that is not empty", lambda value: isinstance(value, list) and bool(value)),
    "uniqueItems": ("a boolean", lambda value: isinstance(value, bool)),
    "multipleOf": (
        f"a number above 0 and of at most {MAX_NUMBER:.2g}, as a double holds",
        lambda value: is_number(value) and value > 0,
    ),
    "required": ("a list of strings", _is_names),
    "dependentRequired": ("lists of strings", partial(_is_map, item=_is_names)),
}
_KEYWORDS |= {"minimum": _BOUND, "exclusiveMinimum": _BOUND}
_KEYWORDS |= {"maximum": _BOUND, "exclusiveMaximum": _BOUND}
_KEYWORDS |= {"minLength": _COUNT, "minItems": _COUNT, "minProperties": _COUNT}
_KEYWORDS |= {"maxLength": _COUNT, "maxItems": _COUNT, "maxProperties": _COUNT}
_KEYWORDS |= {"contains": _ONE, "minContains": _COUNT, "maxContains": _COUNT}
_KEYWORDS |= {"items": _ONE, "additionalProperties": _ONE, "propertyNames": _ONE}
_KEYWORDS |= {"not": _ONE, "if": _ONE, "then": _ONE, "else": _ONE}
_KEYWORDS |= {"properties": _MAP, "patternProperties": _MAP, "dependentSchemas": _MAP}
_KEYWORDS |= {"allOf": _LIST, "anyOf": _LIST, "oneOf": _LIST, "prefixItems": _LIST}

_WITH_MEMBERS = (
    *("properties", "required", "patternProperties", "dependentSchemas", "dependentRequired"),
    *("allOf", "anyOf", "oneOf", "prefixItems"),
)
