"""The page behind nginx: below a path, with TLS, and open to who has the key alone."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.pages.conftest import KEY, Tab
from tests.support.process import free_port
from tests.support.server import Server, args, eventually, running_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
OPENSSL = shutil.which("openssl")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None or OPENSSL is None, reason="needs nginx and openssl"),
]

CONFIG = """
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/cert.pem;
    ssl_certificate_key {folder}/key.pem;
    location = /deep/emulator {{ return 301 /deep/emulator/; }}
    location /deep/emulator/ {{
      proxy_pass http://127.0.0.1:{upstream}/;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_buffering off;
    }}
  }}
}}
"""


@contextmanager
def running_nginx(folder: Path, server: Server) -> Iterator[str]:
    """Run nginx with TLS in front of a server; yield the page's address, without a last slash."""
    port = free_port()
    made = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {folder}/key.pem"
    command = [str(OPENSSL), *made.split(), "-out", f"{folder}/cert.pem"]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own command line
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, port=port, upstream=server.address[1]))
    log = folder / "nginx.log"
    directives = f"daemon off; pid {folder}/nginx.pid; error_log {log};"
    process = subprocess.Popen(  # noqa: S603 - our own command line
        [str(NGINX), "-p", str(folder), "-c", str(config), "-e", str(log), "-g", directives]
    )
    try:
        pid = folder / "nginx.pid"
        assert eventually(lambda: pid.exists() and bool(pid.read_text()), 20), log.read_text()
        yield f"https://localhost:{port}/deep/emulator"
    finally:
        process.terminate()
        process.wait(20)


def test_page_works_below_a_path_and_with_tls(chromium: "Browser", tmp_path: Path) -> None:
    """Live, Try it and, with the key, Control work below a path, and ask nothing outside of it."""
    with (
        running_server(*args(workers=1, control_key=KEY)) as server,
        running_nginx(tmp_path, server) as url,
    ):
        tab = Tab(chromium)
        asked: list[str] = []
        tab.page.on("request", lambda request: asked.append(request.url))
        page = tab.page
        page.goto(url)
        page.get_by_text("Idle: no tokens").wait_for()
        tab.open(url, "try")
        page.get_by_role("button", name="Send").click()
        page.get_by_text("30 tokens, complete").wait_for()
        page.get_by_text("On time").or_(page.get_by_text("Late: only")).first.wait_for()
        tab.open(url, "control")
        page.get_by_label("Key of control, kept for this tab").fill(KEY)
        page.get_by_role("button", name="Open").click()
        page.get_by_label("itl_ms", exact=True).fill("33")
        page.keyboard.press("Tab")
        page.get_by_text("itl_ms changed. Applied by 1 of 1").wait_for()
        outside = [each for each in asked if not each.startswith(url)]
        assert outside == []
        assert tab.complaints == []
        tab.close()
