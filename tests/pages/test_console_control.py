"""What a person does on the page to try and to change a server, in a real browser."""

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.control.conftest import Controller
from tests.pages.conftest import AXE, KEY, VIEWS, Tab
from tests.support.server import PLAIN, Server, args, eventually, running_server
from tests.support.wire import CHAT_PATH, chat

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

# A machine that is busy elsewhere is late now and then.
TRIES = 6
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def status_of(server: Server, model: str) -> int:
    """Return the status that a chat of a model gets."""
    body = {**chat(model=model), "emulation": {"output_length": 1, "ttft_ms": 0}}
    return PLAIN.post(f"{server.url}{CHAT_PATH}", json=body).status_code


def in_ms(text: str) -> float:
    """Return the number of a time that the page shows."""
    return float(text.removesuffix(" ms").replace(",", ""))


def sent(page: "Page") -> list[list[float]]:
    """Send the request; return the rows of what was asked, left and arrived, in ms."""
    page.get_by_role("button", name="Send").click()
    page.get_by_text("30 tokens, complete").wait_for()
    rows = page.locator("tbody tr").filter(has_text=re.compile("first token|gap between|last"))
    return [[in_ms(cell) for cell in row.locator("td").all_text_contents()] for row in rows.all()]


def is_close(rows: list[list[float]]) -> bool:
    """Tell whether what was asked, left and arrived are within 20 ms of each other."""
    return len(rows) == 4 and all(max(row) - min(row) < 20 for row in rows)


def test_try_it_shows_asked_left_and_arrived(tab: Tab, watched: Server) -> None:
    """A stream of 50 ms from the browser: what was asked, left and arrived are within 20 ms."""
    page = tab.open(watched.url, "try")
    page.get_by_label("TTFT, ms, as a number").fill("200")
    page.get_by_label("ITL, ms, as a number").fill("50")
    assert any(is_close(sent(page)) for _ in range(TRIES))
    assert page.locator("figure.tokens line.arrived").count() == 30
    assert "-H 'X-TTFT-MS: 200'" in page.locator("pre").first.inner_text()


def test_try_it_shows_a_fault(tab: Tab, watched: Server) -> None:
    """A fault at a token is seen in the browser as a client sees it."""
    page = tab.open(watched.url, "try")
    page.get_by_label("Fault", exact=True).select_option("close")
    page.get_by_label("Fault at token").fill("3")
    page.get_by_role("button", name="Send").click()
    page.get_by_text(re.compile(r"Status 200, 3 tokens, the connection was cut")).wait_for()


def test_slider_changes_streams(tab: Tab, watched: Server, control: Controller) -> None:
    """A slider moved by keyboard changes the gaps of the next request; Undo takes it back."""
    page = tab.open(watched.url, "control")
    slider = page.get_by_label("itl_ms, as a slider")
    slider.focus()
    page.keyboard.press("End")
    page.get_by_text("itl_ms changed. Applied by 2 of 2").wait_for()
    assert control.status["settings"]["itl_ms"] == 300
    body = {**chat(), "emulation": {"emulation_report": True, "output_length": 3, "ttft_ms": 0}}
    told = PLAIN.post(f"{watched.url}{CHAT_PATH}", json=body).json()["emulation"]
    assert told["total_ms"]["asked"] == 600
    page.get_by_text("itl_ms = 300").wait_for()
    page.get_by_role("button", name="Undo itl_ms").click()
    assert eventually(lambda: control.status["settings"]["itl_ms"] == 50)


def test_every_third_request_of_a_model_fails(
    tab: Tab, watched: Server, control: Controller
) -> None:
    """The form of a new rule makes every third request of one model fail, and it is taken away."""
    page = tab.open(watched.url, "control")
    page.get_by_role("button", name="New rule").click()
    page.get_by_label("Name", exact=True).fill("third")
    page.get_by_label("Model (* for any text)").fill("gpt-third")
    page.get_by_label("Only each nth request, n").fill("3")
    page.get_by_role("button", name="Put in force").click()
    page.get_by_text("model gpt-third (every third): fails: status 503").wait_for()
    assert [status_of(watched, "gpt-third") for _ in range(6)] == [200, 200, 503] * 2
    page.get_by_label("Switch third").click()
    page.get_by_text("third is off").wait_for()
    assert [status_of(watched, "gpt-third") for _ in range(3)] == [200] * 3
    page.get_by_role("button", name="Remove third").click()
    page.get_by_text("There is none").wait_for()
    assert control.status["rules"] == []


def test_field_that_is_wrong_is_marked(tab: Tab, watched: Server, control: Controller) -> None:
    """What the server says against a rule stands beside it, and the field is marked."""
    page = tab.open(watched.url, "control")
    page.get_by_role("button", name="New rule").click()
    page.get_by_label("Probability").fill("2")
    page.get_by_role("button", name="Put in force").click()
    page.get_by_text("Invalid 'probability'").wait_for()
    assert page.get_by_label("Probability").get_attribute("aria-invalid") == "true"
    assert control.status["rules"] == []


def test_rules_are_moved(tab: Tab, watched: Server, control: Controller) -> None:
    """Rules change their places by buttons."""
    control.put_rules({"name": "a", "ttft_ms": 1}, {"name": "b", "ttft_ms": 2})
    page = tab.open(watched.url, "control")
    page.get_by_role("button", name="Down a").click()
    page.get_by_text("a moved.").wait_for()
    assert [rule["name"] for rule in control.status["rules"]] == ["b", "a"]


def test_schedule_begins_and_ends(tab: Tab, watched: Server, control: Controller) -> None:
    """A wave with its curve is begun, holds without the page, and is ended."""
    page = tab.open(watched.url, "control")
    page.get_by_text("A new one").click()
    assert page.get_by_role("img", name="sine of itl_ms").is_visible()
    page.get_by_role("button", name="Begin").click()
    page.get_by_text("It has begun.").wait_for()
    assert eventually(lambda: control.status["settings"]["itl_ms"] != 50)
    page.get_by_role("button", name="End it").click()
    assert eventually(lambda: control.status["schedule"]["schedule"] is None)


def test_reset_goes_back(tab: Tab, watched: Server, control: Controller) -> None:
    """Reset by kind says what it will undo, and undoes that alone."""
    control.patch(ttft_ms=7, itl_ms=8)
    control.put_rules({"name": "kept", "ttft_ms": 1})
    page = tab.open(watched.url, "control")
    page.get_by_text("2 that differ go back").wait_for()
    page.get_by_role("checkbox", name="rules", exact=True).uncheck()
    page.get_by_role("button", name="Go back to the start").click()
    assert eventually(lambda: control.status["changed"] == {})
    assert [rule["name"] for rule in control.status["rules"]] == ["kept"]


def test_hostile_names_are_text(tab: Tab, watched: Server, control: Controller) -> None:
    """HTML in the texts of rules, and what is longer than a line, is shown as text and not run."""
    control.put_rules(
        {"name": "x" * 64, "match": {"model": "m" * 256}, "answer": {"text": HOSTILE}},
        {"name": "html", "match": {"model": HOSTILE}, "ttft_ms": 1},
    )
    page = tab.open(watched.url, "control")
    page.get_by_text("<img src=x onerror", exact=False).first.wait_for()
    assert page.locator("main img, main script").count() == 0
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_key_opens_control(chromium: "Browser") -> None:
    """Without the key the page says how to set one; a wrong one is told, the right one is kept."""
    with running_server(*args(workers=1, control="key", control_key=KEY)) as server:
        tab = Tab(chromium)
        page = tab.open(server.url, "control")
        page.get_by_text("Control is for who controls this server").wait_for()
        page.get_by_label("Key of control, kept for this tab").fill("no-such-key-at-all-äö")
        page.get_by_role("button", name="Open").click()
        page.get_by_text("That is not the key.").wait_for()
        page.get_by_label("Key of control, kept for this tab").fill(KEY)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Settings").wait_for()
        page.reload()
        page.get_by_role("heading", name="Settings").wait_for()
        assert tab.complaints == []
        tab.close()


def test_control_that_is_off_is_told(chromium: "Browser") -> None:
    """Where control is off the page says so, and Try it works."""
    with running_server(*args(workers=1, control="off")) as server:
        tab = Tab(chromium)
        page = tab.open(server.url, "control")
        page.get_by_text("Control is off on this server").wait_for()
        tab.open(server.url, "try")
        page.get_by_role("button", name="Send").click()
        page.get_by_text("30 tokens, complete").wait_for()
        assert tab.complaints == []
        tab.close()


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_for_everybody(
    chromium: "Browser", watched: Server, control: Controller, width: int, scheme: str
) -> None:
    """axe-core finds nothing serious in any part of the page, and none is wider than the window."""
    control.put_rules({"name": "a", "match": {"model": "b"}, "ttft_ms": 1})
    control.patch(itl_ms=40)
    tab = Tab(chromium, width, scheme)
    found = []
    for view in VIEWS:
        page = tab.open(watched.url, view)
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
        if AXE.exists():
            page.evaluate(AXE.read_text())
            result = page.evaluate("axe.run()")
            found += [
                (view, each["id"], [node["html"] for node in each["nodes"]][:3])
                for each in result["violations"]
                if each["impact"] in ("serious", "critical")
            ]
    tab.close()
    assert found == [], json.dumps(found, indent=1)
    if not AXE.exists():
        pytest.skip("needs axe.min.js of axe-core, at the path in AXE_CORE")
