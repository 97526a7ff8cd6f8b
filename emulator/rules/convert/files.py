"""Files of fixtures, in the order in which aimock reads them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

Json: TypeAlias = Mapping[str, Any]


class UnsaidError(Exception):
    """Something of a fixture that rules cannot say.

    Args:
        field: Where it stands, from the fixture on, as ``match.model``; empty for all of it.
        why: Why rules cannot say it.
    """

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field, self.why = field, why


@dataclass(frozen=True)
class Source:
    """A fixture, and where it stands.

    Args:
        file: Its file, from the folder that was named on.
        index: Its place in that.
        data: What it holds.
    """

    file: str
    index: int
    data: Json

    def place(self, field: str) -> str:
        """Return where one of its fields stands, as a message says it."""
        dot = "." if field and not field.startswith("[") else ""
        return f"{self.file}: fixtures[{self.index}]{dot}{field}"


def sources(path: Path) -> Iterator[Source | str]:
    """Yield the fixtures of a file or a folder, and what is wrong with files that have none.

    In a folder come its own files by name, then its folders.
    """
    if not path.is_dir():
        yield from _of_file(path, path.name)
        return
    for file in _files(path):
        yield from _of_file(file, file.relative_to(path).as_posix())


def _files(folder: Path) -> Iterator[Path]:
    entries = sorted(folder.iterdir())
    yield from (entry for entry in entries if entry.is_file() and entry.suffix == ".json")
    for entry in entries:
        if entry.is_dir():
            yield from _files(entry)


def _of_file(path: Path, name: str) -> Iterator[Source | str]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        yield f"{name}: expected JSON, but: {error}"
        return
    fixtures = content.get("fixtures") if isinstance(content, dict) else None
    if not isinstance(fixtures, Sequence) or isinstance(fixtures, str):
        yield f"{name}: expected a list of fixtures, as 'fixtures'"
        return
    for key in content:
        if key != "fixtures" and not key.startswith("$"):
            yield f"{name}: {key}: it is no fixture of an LLM"
    for index, data in enumerate(fixtures):
        if not isinstance(data, dict):
            yield f"{name}: fixtures[{index}]: expected an object"
            continue
        yield Source(name, index, data)
