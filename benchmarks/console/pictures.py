"""Pictures of the page for docs/console.md, taken in Chromium under a real load.

python -m benchmarks.console.pictures [--into docs] [--seconds 90] [--all]
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.console.load import RULES, SETTINGS, send, under_load
from benchmarks.kit.server import emulator, serving, stop_servers_on_sigterm

MOST_BYTES = 200_000
HEIGHTS = {"live": 1120, "requests": 900, "try": 900, "control": 1000}


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=Path("docs"), help="the folder")
    parser.add_argument("--seconds", type=float, default=90, help="how long the load is on before")
    parser.add_argument("--all", action="store_true", help="dark and narrow ones too, to look at")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("needs the program chromium")
    stop_servers_on_sigterm()
    with (
        serving("emulator", emulator(2, ["rpm=2000"])) as server,
        sync_playwright() as playwright,
    ):
        url = f"http://localhost:{server.port}"
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        send(url, "PATCH", "/emulator/settings", SETTINGS)
        with under_load(url):
            pages = {
                (scheme, width): opened(browser, url, scheme, width)
                for scheme in (("light", "dark") if options.all else ("light",))
                for width in ((1280, 400) if options.all else (1280,))
            }
            time.sleep(options.seconds / 3)
            send(url, "POST", "/emulator/marks", {"text": "faults on"})
            send(url, "PUT", "/emulator/rules", {"rules": RULES})
            time.sleep(options.seconds * 2 / 3)
            for (scheme, width), page in pages.items():
                for view in HEIGHTS:
                    file = options.into / f"console-{view}-{scheme}-{width}.png"
                    take(page, view, file)
                    print(f"{file}: {file.stat().st_size / 1000:.0f} KB")
        browser.close()


def opened(browser: Browser, url: str, scheme: str, width: int) -> Page:
    """Return the page, opened in a tab of its own."""
    page = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
    ).new_page()
    page.goto(f"{url}/#live")
    return page


def take(page: Page, view: str, file: Path) -> None:
    """Show a part of the page as a person would, and take its picture."""
    page.evaluate("view => { location.hash = view; }", view)
    page.wait_for_timeout(1500)
    if view == "try":
        page.get_by_role("button", name="Send").click()
        page.get_by_text("tokens, complete").wait_for()
    if view == "requests" and not page.locator("tr.opened").count():
        row = page.locator("tr.opens").filter(has_text="200").first
        row.locator("button").click()
        page.locator("tr.opened table").first.wait_for()
    width = page.viewport_size["width"] if page.viewport_size else 1280
    clip = {"x": 0, "y": 0, "width": width, "height": HEIGHTS[view]}
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=file, full_page=True, clip=clip)  # type: ignore[arg-type, unused-ignore]


if __name__ == "__main__":
    main()
