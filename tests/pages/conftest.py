"""A browser for the page, and what it must not do: ask others, log errors, break the policy."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.control.conftest import Controller
from tests.support.server import Server, args, eventually, running_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
KEY = "a-key-of-thirty-two-characters-x"
# axe.min.js of the package axe-core on npm: .ci/run installs it.
AXE = Path(os.environ.get("AXE_CORE", "/nowhere/axe.min.js"))


@pytest.fixture(scope="package")
def watched(local_only: None) -> Iterator[Server]:  # noqa: ARG001 - skips
    """Yield a server of two workers that only these tests change."""
    with running_server(*args(workers=2)) as server:
        controller = Controller(server)
        assert eventually(lambda: controller.status["workers"]["count"] == 2)
        yield server


@pytest.fixture
def control(watched: Server) -> Iterator[Controller]:
    """Yield what changes that server; after the test it is as it was at its start."""
    controller = Controller(watched)
    yield controller
    controller.reset()


@pytest.fixture(scope="package")
def chromium() -> "Iterator[Browser]":
    """Yield Debian's Chromium, driven by playwright."""
    if CHROMIUM is None:
        pytest.skip("needs the program chromium")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("needs the package playwright: pip install -r tests/pages/requirements.txt")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - optional

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Tab:
    """One tab of a browser that has never been used.

    ``hosts`` are those that it asked, ``complaints`` what it logged as errors.

    Args:
        browser: The browser.
        width: Its width in pixels.
        scheme: light or dark.
    """

    def __init__(self, browser: "Browser", width: int = 1280, scheme: str = "light") -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
            ignore_https_errors=True,
        )
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        self.page.on("request", self._asked)
        self.page.on("console", self._logged)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))

    def _asked(self, request: "Request") -> None:
        url = httpx.URL(request.url)
        if url.scheme in ("http", "https"):
            self.hosts.add(url.netloc.decode())

    def _logged(self, message: "ConsoleMessage") -> None:
        # That a request was refused is logged by the browser, whatever the page makes of it.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def open(self, url: str, view: str) -> "Page":
        """Show a part of the page."""
        self.page.goto(f"{url}/#{view}")
        self.page.get_by_role("link", name=VIEWS[view], exact=True).wait_for()
        return self.page

    def close(self) -> None:
        """Close it."""
        self.context.close()


VIEWS = {
    "live": "Live",
    "requests": "Requests",
    "try": "Try it",
    "control": "Control",
    "report": "Report",
}


@pytest.fixture
def tab(chromium: "Browser", watched: Server) -> Iterator[Tab]:
    """Yield a tab; it must have asked that server alone, and logged no error."""
    opened = Tab(chromium)
    yield opened
    opened.close()
    assert opened.hosts <= {watched.url.removeprefix("http://")}
    assert opened.complaints == []
