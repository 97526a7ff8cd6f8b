"""What a person sees on the page while a load is on, in a real browser."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.control.conftest import Controller
from tests.pages.conftest import Tab
from tests.support.server import PLAIN, Server, args, eventually, running_server
from tests.support.wire import CHAT_PATH, chat

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=alert(1)>"


def ask(server: Server, model: str = "gpt-4", **emulation: object) -> int:
    """Send one chat; return its status."""
    told = {"output_length": 5, "ttft_ms": 20, "itl_ms": 10, **emulation}
    body = {**chat(model=model, stream=True), "emulation": told}
    return PLAIN.post(f"{server.url}{CHAT_PATH}", json=body).status_code


@contextmanager
def under_load(server: Server, clients: int = 4) -> Iterator[None]:
    """Have clients ask for streams while the body runs."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            ask(server)

    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def figure(page: "Page", title: str, name: str) -> float:
    """Return the latest value of a series of a chart."""
    chart = page.locator("figure.chart", has=page.get_by_role("heading", name=title, exact=True))
    series = chart.locator(".legend span", has_text=name).first
    text = series.locator("b").inner_text().replace(",", "")
    return 0.0 if text == "-" else float(text)


def wait_for(page: "Page", title: str, name: str) -> None:
    """Return when a series of a chart is above 0."""

    def is_there() -> bool:
        page.wait_for_timeout(200)
        return figure(page, title, name) > 0

    assert eventually(is_there, 20), (title, name)


def test_charts_move_under_load(tab: Tab, watched: Server, control: Controller) -> None:
    """Under load the sentence judges the tokens, charts move, and models have histograms."""
    control.reset("journal")
    page = tab.open(watched.url, "live")
    with under_load(watched):
        page.get_by_text(re.compile("^(On time|Late)")).first.wait_for()
        wait_for(page, "Tokens", "tokens")
        wait_for(page, "Requests", "2xx")
        before = page.locator("path.series").first.get_attribute("d")
        page.wait_for_function(
            "before => document.querySelector('path.series').getAttribute('d') !== before",
            arg=before,
        )
        page.get_by_role("heading", name="gpt-4", exact=True).wait_for()
    page.get_by_text("Idle: no tokens").wait_for()


def test_fault_is_seen_everywhere(tab: Tab, watched: Server, control: Controller) -> None:
    """A fault that is switched on is seen by the client, in counts and in the journal."""
    page = tab.open(watched.url, "control")
    page.get_by_role("button", name="New rule").click()
    page.get_by_label("Name", exact=True).fill("broken")
    page.get_by_label("Model (* for any text)").fill("gpt-broken")
    page.get_by_label("Only each nth request, n").fill("")
    page.get_by_role("button", name="Put in force").click()
    page.get_by_text("broken is in force").wait_for()
    tab.open(watched.url, "live")
    page.wait_for_timeout(1500)
    assert ask(watched, "gpt-broken") == 503
    page.get_by_role("cell", name="broken", exact=True).wait_for()
    tab.open(watched.url, "requests")
    row = page.get_by_role("row").filter(has_text="gpt-broken").first
    row.wait_for()
    assert "503" in row.inner_text()
    assert "broken" in row.inner_text()
    assert control.status["rules"][0]["name"] == "broken"


def test_request_says_why_it_took_so_long(tab: Tab, watched: Server, control: Controller) -> None:
    """A row opens what was asked, what decided it, and its tokens, due and left."""
    control.put_rules({"name": "slow", "match": {"model": "gpt-slow"}, "ttft_ms": 300})
    body = {**chat(model="gpt-slow", stream=True), "emulation": {"output_length": 4}}
    PLAIN.post(f"{watched.url}{CHAT_PATH}", json=body, headers={"X-ITL-MS": "40"})
    page = tab.open(watched.url, "requests")
    page.get_by_label("Model", exact=True).fill("gpt-slow")
    page.get_by_role("row").filter(has_text="gpt-slow").first.locator("button").click()
    page.get_by_text(re.compile("300 ms were asked for the first token and 120 ms")).wait_for()
    for source in ("rule slow.ttft_ms", "header X-ITL-MS", "body emulation.output_length"):
        page.get_by_role("cell", name=source, exact=True).wait_for()
    assert page.locator("figure.tokens line.due").count() == 4
    assert page.locator("figure.tokens line.left").count() == 4


def test_rule_is_made_of_a_request(tab: Tab, watched: Server, control: Controller) -> None:
    """A rule that is made from a request would match it, and matches the next one like it."""
    control.reset("journal")
    assert ask(watched, "gpt-like[1]") == 200
    page = tab.open(watched.url, "requests")
    page.get_by_role("row").filter(has_text="gpt-like").first.locator("button").click()
    page.get_by_role("button", name="Make a rule of it").click()
    page.get_by_role("button", name="Would it match?").click()
    page.get_by_text("would match", exact=True).wait_for()
    page.get_by_label("Last user message").fill("*weather*")
    page.get_by_role("button", name="Would it match?").click()
    page.get_by_text("cannot be told", exact=True).wait_for()
    page.get_by_label("Last user message").fill("")
    page.get_by_role("button", name="Put in force").click()
    page.get_by_text("is in force").wait_for()
    assert [ask(watched, model) for model in ("gpt-like[1]", "gpt-like1")] == [503, 200]


def test_mark_is_a_line(tab: Tab, watched: Server, control: Controller) -> None:
    """A mark is a line in the charts, and hostile text of it is text."""
    assert control.status
    page = tab.open(watched.url, "control")
    page.get_by_label("What happens now").fill(HOSTILE)
    page.get_by_role("button", name="Mark", exact=True).click()
    page.get_by_text("It is in charts").wait_for()
    tab.open(watched.url, "live")
    page.locator("line.markline").first.wait_for(state="attached")
    assert page.locator("main img").count() == 0


def test_hostile_requests_are_text(tab: Tab, watched: Server, control: Controller) -> None:
    """HTML and 256 characters in models and users are shown as text, cut, in all views."""
    control.reset("journal")
    page = tab.open(watched.url, "live")
    page.wait_for_timeout(1200)
    for model in (HOSTILE, "m" * 256):
        ask(watched, model)
    page.get_by_role("heading", name=HOSTILE).wait_for()
    tab.open(watched.url, "requests")
    page.get_by_role("row").filter(has_text="<img").first.locator("button").click()
    page.get_by_role("button", name="Make a rule of it").wait_for()
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.locator("main img, main script").count() == 0


def test_report_opens_from_disk(
    tab: Tab, watched: Server, control: Controller, chromium: "Browser", tmp_path: Path
) -> None:
    """Save report gives a file that a browser without a network shows, with charts and figures."""
    control.patch(itl_ms=41)
    for model in (HOSTILE, "gpt-4"):
        ask(watched, model)
    page = tab.open(watched.url, "report")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save report").click()
    file = tmp_path / "report.html"
    waiting.value.save_as(file)
    offline = Tab(chromium)
    offline.context.set_offline(True)
    offline.page.goto(file.as_uri())
    offline.page.get_by_role("heading", name="Over time").wait_for()
    assert offline.page.locator("path.series").count() >= 4
    assert offline.page.get_by_role("cell", name="itl_ms").count() == 1
    assert offline.page.locator("img").count() == 0
    assert (offline.hosts, offline.complaints) == (set(), [])
    offline.close()


def test_server_that_restarts_is_found_again(chromium: "Browser") -> None:
    """A page says that its server is away, and goes on when there is one again."""
    tab = Tab(chromium)
    with running_server(*args(workers=1)) as server:
        page = tab.open(server.url, "live")
        page.get_by_text("Idle: no tokens").wait_for()
        port = server.address[1]
    page.get_by_text("The server is away").wait_for()
    with running_server(*args(workers=1), port=port):
        page.get_by_text("Idle: no tokens").wait_for()
    tab.close()
