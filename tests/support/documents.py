"""The README, SECURITY.md and docs/, taken apart: prose, tables, code, commands, links."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.support.server import REPOSITORY

PROGRAMS = re.compile(r"(pytest|(python|bentoml|locust|docker|kubectl|git|pip) .+)$")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ASSIGNMENT = re.compile(r"[A-Z_]+=")


@dataclass(frozen=True)
class Page:
    """A page in Markdown."""

    path: Path

    @property
    def name(self) -> str:
        """The path from the root of the repository."""
        return self.path.relative_to(REPOSITORY).as_posix()

    @cached_property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text()

    @cached_property
    def prose(self) -> str:
        """What is in no block of code."""
        return _FENCE.sub("", self.text)

    def blocks(self, language: str) -> list[str]:
        """Return the blocks of code in a language; "" is that of output."""
        return [code for tag, code in _FENCE.findall(self.text) if tag == language]

    def section(self, title: str) -> str:
        """Return what stands under a heading, to the next one of any level.

        Raises:
            KeyError: The page has no such heading.
        """
        parts = re.split(r"^#+ (.+)$", self.prose, flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True))[title]

    @property
    def anchors(self) -> set[str]:
        """What a link can name after ``#``: the headings, as GitHub writes them in addresses."""
        titles = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    @property
    def links(self) -> list[str]:
        """The targets of links and pictures within the repository."""
        targets = re.findall(r"\]\(([^)\s]+)\)", self.prose)
        return [target for target in targets if not re.match(r"\w+:", target)]

    @property
    def commands(self) -> Iterator[list[str]]:
        """The words of each command line, those between backticks in a paragraph included."""
        for block in self.blocks("bash"):
            for line in block.replace("\\\n", " ").splitlines():
                yield from _split(line)
        for code in names(self.prose):
            if PROGRAMS.match(code):
                yield from _split(code)


def _split(line: str) -> Iterator[list[str]]:
    """Return the commands of a line, which ``&&`` joins, without the variables before them."""
    words = shlex.split(line.replace("<", "").replace(">", ""), comments=True)
    while words:
        end = words.index("&&") if "&&" in words else len(words)
        command, words = words[:end], words[end + 1 :]
        while command and _ASSIGNMENT.match(command[0]):
            command = command[1:]
        yield command


def pages() -> list[Page]:
    """Return README.md, SECURITY.md and the pages of docs/."""
    roots = [REPOSITORY / "README.md", REPOSITORY / "SECURITY.md"]
    return [*map(Page, roots), *map(Page, sorted((REPOSITORY / "docs").glob("*.md")))]


def page(name: str) -> Page:
    """Return a page by its path from the root of the repository."""
    return Page(REPOSITORY / name)


def table(text: str, *header: str) -> list[list[str]]:
    """Return the cells of the rows below the one row that starts with these cells.

    Raises:
        ValueError: No table or more than one starts so.
    """
    rows = [_cells(line) if line.startswith("|") else [] for line in text.splitlines()]
    (start,) = (i for i, cells in enumerate(rows) if cells[: len(header)] == list(header))
    body = rows[start + 2 :]
    return body[: body.index([])] if [] in body else body


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def names(text: str) -> list[str]:
    """Return what stands between backticks."""
    return re.findall(r"`([^`\n]+)`", text)
