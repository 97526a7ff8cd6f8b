"""The page's files: kept by browsers, with nothing inline and nothing from elsewhere."""

import re

import pytest

from emulator.pages.console.files import EACH_TIME, FOREVER, POLICY, read_files
from tests.support.server import PLAIN, Server

FILES = read_files()
MOST_LINES = 200
MOST_BYTES = 120_000


def folder(server: Server) -> str:
    """Return where the page's files are."""
    found = re.search(r'src="(console/[0-9a-f]+)/main\.js"', PLAIN.get(server.url).text)
    assert found
    return found[1]


def test_page_is_asked_for_each_time(server: Server) -> None:
    """The page has the policy and a tag; who has it is answered 304 with no body."""
    page = PLAIN.get(f"{server.url}/")
    assert page.headers["content-security-policy"] == POLICY
    assert page.headers["cache-control"] == EACH_TIME
    again = PLAIN.get(f"{server.url}/", headers={"If-None-Match": f'"x", W/{page.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == page.headers["etag"]


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(".html")])
def test_file_is_kept_forever(server: Server, name: str) -> None:
    """A file is served as it is, with its type, at a path that changes with what it holds."""
    file = PLAIN.get(f"{server.url}/{folder(server)}/{name}")
    assert file.content == FILES[name]
    assert file.headers["cache-control"] == FOREVER
    kind = "text/css" if name.endswith(".css") else "text/javascript"
    assert file.headers["content-type"] == f"{kind}; charset=utf-8"
    assert file.headers["x-content-type-options"] == "nosniff"


def test_nothing_else_is_served(server: Server) -> None:
    """No path leads out of the folder, or to a file of another version."""
    for path in (
        "console/0/main.js",
        f"{folder(server)}/../files.py",
        f"{folder(server)}/%2e%2e/x",
    ):
        assert PLAIN.get(f"{server.url}/{path}").status_code == 404


def test_nothing_is_inline_or_from_elsewhere() -> None:
    """No file names another host or the root of this one, and the page holds no script or style."""
    for name, content in FILES.items():
        text = content.decode()
        hosts = set(re.findall(r"https?://[^\s\"'`]+", text))
        assert hosts <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    page = FILES["index.html"].decode()
    assert not re.search(r'<style|\sstyle=|\son\w+=|(src|href)="/|<script(?![^>]*src=)', page)


def test_files_are_small() -> None:
    """Each part of the page has a file that one can keep in view, and all together are light."""
    assert {name for name, text in FILES.items() if text.count(b"\n") > MOST_LINES} == set()
    assert sum(map(len, FILES.values())) < MOST_BYTES
