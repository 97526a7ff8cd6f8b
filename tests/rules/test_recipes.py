"""The page about rules: its recipes hold, on a server of two workers, through openai-python."""

import re
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from conftest import sdk_client
from emulator.rules.model import Match, Scripted
from emulator.rules.reading import read_rules
from emulator.rules.templates import NAMES
from emulator.settings import Settings
from tests.support.documents import names, page, table
from tests.support.server import Server

PAGE = page("docs/rules.md")
_RECIPES = PAGE.text.partition("## Ten recipes")[2]
RECIPES = dict(re.findall(r"^### (.+?)$.*?^```py\n(.*?)^```$", _RECIPES, re.MULTILINE | re.DOTALL))


@pytest.fixture
def client(ruled: Server) -> Iterator[openai.OpenAI]:
    """Yield the official client of the server with the page's rules."""
    with sdk_client(ruled.url) as opened:
        yield opened


def test_there_are_ten() -> None:
    """The page has the recipes that it promises, each with its rules and its code."""
    assert len(RECIPES) == 10 == _RECIPES.count("### ") == _RECIPES.count("```yaml")


@pytest.mark.parametrize("title", RECIPES)
def test_recipe_holds(title: str, client: openai.OpenAI) -> None:
    """What a recipe asserts is so."""
    exec(compile(RECIPES[title], f"docs/rules.md {title}", "exec"), {"client": client})  # noqa: S102 - our own page


def test_example_is_read(tmp_path: Path) -> None:
    """The file that the page begins with is one of rules."""
    file = tmp_path / "rules.yaml"
    file.write_text(PAGE.blocks("yaml")[0])
    rules = read_rules(file, Settings(), {})
    assert [rule.name for rule in rules.rules] == [
        "weather-tool",
        "weather-answer",
        "busy",
        "fast-mini",
    ]
    assert rules.warnings == ()


def test_tables_have_every_field() -> None:
    """The page's tables have every field of a match, of an answer and of templates."""

    def shown(*columns: str) -> set[str]:
        return {name for row in table(PAGE.text, *columns) for name in names(row[0])}

    assert shown("field", "what it looks at") == set(Match.model_fields)
    answers = {field.alias or name for name, field in Scripted.model_fields.items()}
    assert shown("field", "holds") == answers
    assert shown("name", "is") == set(NAMES)
