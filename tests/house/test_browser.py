"""What a real browser makes of the pages and of answers to pages of other origins."""

import html
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.server import Server
from tests.support.wire import DONE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT_S = 300.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs the program chromium"),
]

# It reads a stream piece by piece, and sends home what it has seen; until then it has not loaded.
PAGE = """<!doctype html>
<img src="/wait">
<script>
async function run() {
  const answer = await fetch("%s/v1/chat/completions", {
    method: "POST",
    headers: {"Content-Type": "application/json", "Authorization": "Bearer dummy",
              "X-ITL-MS": "20", "X-OUTPUT-LENGTH": "10"},
    body: JSON.stringify({model: "gpt-4", stream: true, messages: [{role: "user", content: "a"}]}),
  });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  const pieces = [];
  for (let part; !(part = await reader.read()).done;) pieces.push(part.value);
  const refused = await fetch("%s/v1/nothing");
  return {status: answer.status, pieces, id: answer.headers.get("x-request-id"),
          refused: (await refused.json()).error.message};
}
run().catch(error => ({error: String(error)}))
     .then(seen => fetch("/seen", {method: "POST", body: JSON.stringify(seen)}));
</script>
"""


class Site(ThreadingHTTPServer):
    """A site of another origin: it serves one page, and keeps what that sends home."""

    def __init__(self, page: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.page = page.encode()
        self.seen: dict[str, Any] = {}
        self.is_done = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        if self.path == "/wait":
            self.server.is_done.wait(TIMEOUT_S)
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.server.page)

    def do_POST(self) -> None:
        self.server.seen = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.server.is_done.set()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def running_site(page: str) -> Iterator[Site]:
    """Serve a page while the body runs."""
    with Site(page) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        try:
            yield site
        finally:
            site.shutdown()
            thread.join()


def browse(folder: Path, url: str, *flags: str) -> str:
    """Return what a page has become in a browser that has never been used."""
    shown = subprocess.run(  # noqa: S603 - our own command line
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, "--dump-dom", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=TIMEOUT_S,
        check=True,
    )
    return html.unescape(shown.stdout.decode())


def hosts_asked(net_log: Path) -> set[str]:
    """Return the hosts that pages of this machine asked, as the browser's network log says.

    The browser asks its maker's hosts too, for no page.
    """
    log = json.loads(net_log.read_text())
    kind = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    started = [event.get("params", {}) for event in log["events"] if event["type"] == kind]
    return {
        httpx.URL(params["url"]).netloc.decode()
        for params in started
        if params.get("network_isolation_key", "").startswith("http://127.0.0.1 ")
    }


def test_page_of_another_origin_reads_a_stream(server: Server, tmp_path: Path) -> None:
    """A page of another origin reads a stream piece by piece, its headers, and an error."""
    with running_site(PAGE % (server.url, server.url)) as site:
        url = f"http://127.0.0.1:{site.server_port}/"
        browse(tmp_path, url)
    assert "error" not in site.seen
    assert site.seen["status"] == 200
    assert site.seen["id"].startswith("req_")
    assert len(site.seen["pieces"]) > 1
    assert "".join(site.seen["pieces"]).endswith(f"data: {DONE}\n\n")
    assert site.seen["refused"] == "Invalid URL (GET /v1/nothing)"


@pytest.mark.parametrize(("path", "says"), [("/", "base URL"), ("/docs", "swagger-ui")])
def test_pages_ask_no_other_host(server: Server, tmp_path: Path, path: str, says: str) -> None:
    """The browser's own log of the page at the root, and of the API's, names no other host."""
    net_log = tmp_path / "net.json"
    page = browse(tmp_path, server.url + path, f"--log-net-log={net_log}")
    assert says in page
    assert hosts_asked(net_log) == {server.url.removeprefix("http://")}


def test_log_tells_other_hosts(tmp_path: Path) -> None:
    """The browser's log names another host that a page does ask."""
    net_log = tmp_path / "net.json"
    with running_site('<img src="http://tracker.invalid/pixel">') as site:
        own = f"127.0.0.1:{site.server_port}"
        browse(tmp_path, f"http://{own}/", f"--log-net-log={net_log}")
    assert hosts_asked(net_log) == {own, "tracker.invalid"}
