"""Serves the page at ``/`` and its files, which browsers keep."""

import hashlib
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

FOLDER = Path(__file__).parent / "web"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
# Nothing from elsewhere, nothing inline, and no text that becomes HTML.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_SAFE = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
# The path of a file changes with what it holds, so that it is asked for once.
FOREVER = "public, max-age=31536000, immutable"
EACH_TIME = "no-cache"

Answer = Callable[[Request], Coroutine[Any, Any, Response]]


def read_files(folder: Path = FOLDER) -> Mapping[str, bytes]:
    """Return the page's files by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def digest(*contents: bytes) -> str:
    """Return what tells contents from others, fit for a path."""
    return hashlib.blake2b(b"\0".join(contents), digest_size=8).hexdigest()


def routes(version: str) -> list[BaseRoute]:
    """Return the routes of the page and its files.

    Args:
        version: The emulator's.
    """
    files = read_files()
    folder = digest(*files.values())
    texts = {b"{folder}": f"console/{folder}".encode(), b"{version}": version.encode()}
    page = files["index.html"]
    for name, text in texts.items():
        page = page.replace(name, text)
    return [
        Route("/", _serving(page, ".html", EACH_TIME), methods=["GET"]),
        *(
            Route(
                f"/console/{folder}/{name}",
                _serving(content, Path(name).suffix, FOREVER),
                methods=["GET"],
            )
            for name, content in files.items()
            if not name.endswith(".html")
        ),
    ]


def _serving(content: bytes, suffix: str, caching: str) -> Answer:
    """Return what answers with a file, or with 304 where the browser has it."""
    tag = f'"{digest(content)}"'
    headers = {
        "content-type": _TYPES[suffix],
        "content-security-policy": POLICY,
        "cache-control": caching,
        "etag": tag,
        **_SAFE,
    }

    async def answer(request: Request) -> Response:
        known = request.headers.get("if-none-match", "")
        if tag in {text.strip().removeprefix("W/") for text in known.split(",")}:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers)

    return answer
