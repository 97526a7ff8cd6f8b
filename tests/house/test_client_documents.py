"""The pages about clients held against the code: the body's object, refusals, recipes."""

import json
import re
from pathlib import Path

import pytest

from emulator.contract.absent import ABSENT
from emulator.emulation.header_fields import (
    FAULT_NAMES,
    HEADERS_BY_FIELD,
    body_headers,
    check_headers,
)
from tests.apis.completions.test_completions import REFUSED as LEGACY
from tests.apis.test_refusals import REFUSED, RESPONSES
from tests.clients.parts import PARTS, Part
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


def test_table_of_absent_endpoints_is_the_codes() -> None:
    """The table has every endpoint that is not here, and what OpenAI has there."""
    rows = table(page("docs/compatibility.md").text, "path", "what OpenAI has there")
    assert [(names(path)[0].removesuffix("{id}"), what) for path, what in rows] == [*ABSENT.items()]


def versions(part: Part) -> dict[str, str]:
    """Return the versions that the files of a part name, by package."""
    text = "".join((part.here / pin).read_text() for pin in part.pins if "lock" not in pin)
    found = re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)
    found += re.findall(r'"([\w@/.-]+)": "([\d.]+)"', text)
    found += re.findall(r"(\S+) v([\d.]+)$", text, re.MULTILINE)
    found += re.findall(r"<artifactId>([\w.-]+)</artifactId>\s*<version>([\d.]+)", text)
    found += re.findall(r'^([\w-]+) = \{ version = "=([\d.]+)', text, re.MULTILINE)
    return {name: version.rstrip(".") for name, version in found}


def test_table_of_clients_is_the_parts() -> None:
    """The table has every part, and each client in the version that the part has."""
    rows = table(page("docs/compatibility.md").text, "part", "clients", "tried")
    assert {names(part)[0] for part, *_ in rows} == set(PARTS)
    for part, clients, *_ in rows:
        pinned = versions(PARTS[names(part)[0]])
        shown = re.findall(r"`([^`]+)` ([\d.]+\d)", clients)
        assert shown
        for name, version in shown:
            (full,) = {name} & set(pinned) or {one for one in pinned if one.endswith(f"/{name}")}
            assert (name, pinned[full]) == (name, version)


def test_recipes_name_the_vocabulary() -> None:
    """The file that a recipe reads is a vocabulary of this repository, the one that it says."""
    (code,) = page("docs/recipes.md").blocks("py")
    (named,) = re.findall(r"tiktoken_cache/\w+", code)
    assert (Path(__file__).parents[2] / named).stat().st_size > 3_000_000
