"""Reading YAML files into pydantic models, with errors that name file, line and field."""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import yaml  # type: ignore[import-untyped]  # ships no types
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from emulator.settings import ConfigError

MAX_FAULTS_TOLD = 5
MAX_SHOWN = 128  # characters of a value in a message

Content = TypeVar("Content")
# The path of keys and indices to a value, such as ("rules", 3, "match").
Place: TypeAlias = Sequence[int | str]
Schema: TypeAlias = dict[str, Any]


class Document(Generic[Content]):
    """A YAML file with its validated ``content``.

    Args:
        path: The file.
        shape: The type of the content. An empty file is a model without any field.
        secret: The names of fields whose values must not be in messages.
        name: Returns the name that messages use for an entry of a list, by the entry and its index.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or has other content.
    """

    def __init__(
        self,
        path: Path,
        shape: type[Content] | TypeAdapter[Content],
        *,
        secret: Collection[str] = (),
        name: Callable[[object, int], str] | None = None,
    ) -> None:
        self._path = path
        self._secret = frozenset(secret)
        self._root: yaml.Node | None = None
        data = self._read()
        self._name = name and partial(_name_in, data, name)
        if data is None and isinstance(shape, type) and issubclass(shape, BaseModel):
            data = {}
        adapter = shape if isinstance(shape, TypeAdapter) else TypeAdapter(shape)
        try:
            self.content: Content = adapter.validate_python(data)
        except ValidationError as error:
            faults = explained(error, adapter, self._secret)[:MAX_FAULTS_TOLD]
            told = "; ".join(self._located(*fault) for fault in faults)
            raise ConfigError(f"{path}, {told}") from None

    def error(self, place: Place, problem: str) -> ConfigError:
        """Return an error about the value at `place`."""
        return ConfigError(f"{self._path}, {self._located(place, problem)}")

    def _read(self) -> object:
        """Return the content as plain objects, None if the file is empty."""
        try:
            loader = _Loader(self._path.read_text(encoding="utf-8"))
            self._root = loader.get_single_node()
            return None if self._root is None else loader.construct_document(self._root)
        except OSError as error:
            raise ConfigError(f"{self._path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{self._path}: expected text in UTF-8") from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            problem = error.problem or "expected YAML"
            if self._secret:  # the quotation may be a part of one
                problem = re.sub(r"'[^']*'|\"[^\"]*\"", "...", problem)
            raise ConfigError(f"{self._path}, line {line}: {problem}") from None
        except yaml.YAMLError:
            raise ConfigError(f"{self._path}: expected YAML, but got unprintable text") from None
        except RecursionError:
            raise ConfigError(f"{self._path}: expected YAML that is nested less deeply") from None

    def _located(self, place: Place, problem: str) -> str:
        """Return a problem with its line and field; an index at the root is left to the line."""
        line, node = 1, self._root
        for part in place:
            found = next((entry for entry in _entries(node) if entry[0] == str(part)), None)
            if found is None:
                break
            _, mark, node = found
            line = mark.start_mark.line + 1
        first = place[0] if place else None
        is_listed = isinstance(first, int)
        name = self._name(first) if self._name and isinstance(first, int) else ""
        field = ".".join(map(str, place[1:] if is_listed else place))
        return ": ".join(filter(None, (f"line {line}", name, field, problem)))


def _name_in(data: object, name: Callable[[object, int], str], index: int) -> str:
    return name(data[index], index) if isinstance(data, list) and index < len(data) else ""


def explained(
    error: ValidationError, adapter: TypeAdapter[Any], secret: Collection[str] = ()
) -> list[tuple[Place, str]]:
    """Return where some data is not what an adapter asks for, and what is wrong there."""
    return [_explained(fault, adapter, secret) for fault in error.errors(include_url=False)]


def _explained(
    fault: ErrorDetails, adapter: TypeAdapter[Any], secret: Collection[str]
) -> tuple[Place, str]:
    place, value = tuple(fault["loc"]), fault["input"]
    got = _got(value) if set(secret).isdisjoint(place) else ""
    match fault["type"]:
        case "missing":
            problem = "it is missing"
        case "extra_forbidden":
            problem = _unknown(str(place[-1]), fields_at(adapter.json_schema(), place[:-1]))
        case "model_type" | "dict_type":
            problem = f"expected fields with values{got}"
        case "tuple_type" | "list_type":
            problem = f"expected a list{got}"
        case "too_long" if isinstance(value, list):
            place = (*place, fault["ctx"]["max_length"])
            problem = f"expected at most {place[-1]} entries, but got {len(value)}"
        case _:
            problem = fault["msg"].removeprefix("Value error, ")
            if not isinstance(value, dict | list):
                problem += got
    return place, problem


def _got(value: object) -> str:
    names = {dict: "fields with values", list: "a list", type(None): "nothing"}
    return f", but got {names.get(type(value)) or f'{value!r:.{MAX_SHOWN}}'}"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # its package ships no types
    """SafeLoader that rejects duplicate keys, and reports the line of invalid scalars."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        """Compose a mapping."""
        node = super().compose_mapping_node(anchor)
        names: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in names:
                raise yaml.MarkedYAMLError(
                    problem=f"{name}: it is there twice", problem_mark=key.start_mark
                )
            names.add(name)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        """Construct a plain object."""
        try:
            return super().construct_object(node, deep)
        except ValueError as error:  # for instance of the timestamp 2026-13-01
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from None


def _entries(node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """Yield the key or index of each entry, the node where it begins, and its value."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield str(key.value), key, value
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield str(index), value, value


# --------------------------------------------------------------------------------------
# Unknown fields
# --------------------------------------------------------------------------------------


def _unknown(name: str, fields: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, fields, n=1)
    guess = f"did you mean {nearest[0]}? There are" if nearest else "there are"
    return f"there is no such field; {guess} {', '.join(fields)}"


def fields_at(schema: Schema, place: Place) -> list[str]:
    """Return the names of the fields that a JSON Schema has at a place."""
    found = [*_alternatives(schema, schema)]
    for part in place:
        children = [
            node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part)
            for node in found
        ]
        deeper = [each for child in children if child for each in _alternatives(schema, child)]
        found = deeper or found  # a union's tag is in no schema
    return [*dict.fromkeys(name for node in found for name in node.get("properties", ()))]


def _alternatives(root: Schema, node: Schema) -> Iterable[Schema]:
    """Yield a schema, what it refers to, and its alternatives."""
    yield node
    if "$ref" in node:
        yield from _alternatives(root, root["$defs"][node["$ref"].rpartition("/")[2]])
    for each in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from _alternatives(root, each)
