"""The pages about clients held against the code: the body's object, profiles, refusals, recipes."""

import json
import re
from pathlib import Path

import pytest

from emulator.emulation.header_fields import (
    FAULT_NAMES,
    HEADERS_BY_FIELD,
    body_headers,
    check_headers,
)
from emulator.emulation.profiles import read_profiles
from emulator.settings import Settings
from tests.apis.completions.test_completions import REFUSED as LEGACY
from tests.apis.test_refusals import REFUSED, RESPONSES
from tests.support.documents import names, page, table
from tests.wild.test_chat import REFUSED as WILD

_EMULATION = re.compile(r'"emulation": (\{[^}]*\})')


def test_table_of_fields_is_the_codes() -> None:
    """The table has every field of the object, beside its header; those of failures by example."""
    shown: dict[str, str] = {}
    for fields, of_row in table(page("docs/emulation.md").text, "field", "header"):
        if of_row.startswith("`"):
            shown |= zip(names(fields), names(of_row), strict=True)
        else:
            assert {HEADERS_BY_FIELD[name] for name in names(fields)} <= FAULT_NAMES
    assert shown == {
        field: header for field, header in HEADERS_BY_FIELD.items() if header not in FAULT_NAMES
    }


@pytest.mark.parametrize("name", ["docs/emulation.md", "docs/recipes.md"])
def test_objects_of_the_pages_are_taken(name: str) -> None:
    """Every object that a page shows passes the checks."""
    shown = _EMULATION.findall(page(name).text)
    objects = [json.loads(text) for text in shown if "..." not in text]
    assert objects
    for one in objects:
        assert check_headers(body_headers(one)).model_fields_set


def test_profiles_of_the_page_are_read(tmp_path: Path) -> None:
    """The page's profiles are such, and a mini model gets those of its own line."""
    (example,) = page("docs/emulation.md").blocks("yaml")
    file = tmp_path / "profiles.yaml"
    file.write_text(example)
    profiles = read_profiles(file, Settings(), {})
    ttfts = [profiles.of(model)["X-TTFT-MS"] for model in ("gpt-4o-mini-x", "gpt-4o", "o3")]
    assert ttfts == ["120", "400", "250"]


@pytest.mark.parametrize(
    ("api", "cases"),
    [
        ("chat", REFUSED | WILD),
        ("legacy completions", LEGACY),
        ("Responses", RESPONSES),
    ],
)
def test_table_of_refusals_is_the_codes(
    api: str, cases: dict[str, tuple[object, str, str | None, str]]
) -> None:
    """The tables have every refusal that the tests know, by its param and code."""

    def without_indices(param: str | None) -> str:
        return re.sub(r"\d+", "0", param or "null")

    rows = table(page("docs/refusals.md").text, api, "param", "code")
    shown = {
        (without_indices(param), code.strip("`"))
        for _, params, code in rows
        for param in names(params) or ["null"]
    }
    known = {(without_indices(param), code or "null") for _, param, code, _ in cases.values()}
    assert shown == known


def test_recipes_name_the_vocabulary() -> None:
    """The file that a recipe reads is a vocabulary of this repository, the one that it says."""
    (code,) = page("docs/recipes.md").blocks("py")
    (named,) = re.findall(r"tiktoken_cache/\w+", code)
    assert (Path(__file__).parents[2] / named).stat().st_size > 3_000_000
