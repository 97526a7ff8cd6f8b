"""The page on control held against the code: its commands are sent, its tables are whole."""

import json
import re
import subprocess

import pytest

from emulator.control.changes.alterations import ALL
from emulator.control.changes.live_settings import EngineSettings, LiveSettings
from tests.control.conftest import Controller
from tests.support.documents import names, page, table

PAGE = page("docs/control.md")
CURLS = [words for words in PAGE.commands if words[0] == "curl"]


def test_every_command_of_the_page_does_what_it_says(control: Controller) -> None:
    """The page's requests, sent by curl in their order, are all answered with 200."""
    assert len(CURLS) > 10
    for words in CURLS:
        command = [word.replace("http://localhost:3000", control.server.url) for word in words]
        sent = subprocess.run(  # noqa: S603 - our own command line
            [*command, "--silent", "--write-out", "\n%{http_code}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        body, _, status = sent.stdout.rpartition("\n")
        assert status == "200", (words, body)
        assert "revision" in json.loads(body)


def test_table_of_requests_is_all_there_is(control: Controller) -> None:
    """The table has every operation, and the document describes each."""
    rows = table(PAGE.text, "request", "what it does")
    # What stands for an id in a path is named for the reader.
    named = {
        tuple(re.sub(r"\{\w+\}", "{name}", name).split()) for row in rows for name in names(row[0])
    }
    paths = control.http("GET", "/openapi.json").json()["paths"]
    assert named == {
        (method.upper(), path)
        for path, item in paths.items()
        if path.startswith("/emulator")
        for method in item
    }


def test_the_page_names_every_setting_that_can_change() -> None:
    """What can change is what the page says, of the engine too."""
    section = PAGE.section("Settings that can change")
    before, _, engine = section.partition("- `engine`")
    found = set(names(before)) | {"engine"}
    assert found - {"/readyz"} == set(LiveSettings.model_fields)
    assert set(EngineSettings.model_fields) <= set(names(engine))


def test_the_page_names_all_that_can_be_reset() -> None:
    """The table of reset has every level."""
    rows = table(PAGE.text, "`what`", "goes back to")
    assert sorted(name for row in rows for name in names(row[0])) == sorted(ALL)


@pytest.mark.parametrize("name", ["ramp", "square", "sine"])
def test_the_page_names_the_fields_of_each_wave(control: Controller, name: str) -> None:
    """The table of forms has the fields of each."""
    schemas = control.http("GET", "/openapi.json").json()["components"]["schemas"]
    fields = set(schemas[name.capitalize()]["properties"]) - {"form", "of", "at_s"}
    rows = table(PAGE.text, "`form`", "fields")
    assert {row[0]: set(re.findall(r"`(\w+)`", row[1])) for row in rows}[f"`{name}`"] == fields
