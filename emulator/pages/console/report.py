"""The report: one HTML file with all that it needs, its figures as data and the page's charts."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from emulator.pages.console.files import read_files

_SCRIPTS = ("dom.js", "chart.js", "report_page.js")
_STYLES = ("base.css", "parts.css")
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>OpenAI API Emulator: report</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<header><h1>OpenAI API Emulator: report</h1></header>
<main id="content"></main>
<script id="data" type="application/json">{data}</script>
<script type="module">{script}</script>
</body>
</html>
"""
_IMPORT = re.compile(r"^import .*\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)


def report_page(data: Mapping[str, Any]) -> bytes:
    """Return a report that a browser opens from disk, with no network.

    Args:
        data: Its figures, as JSON.
    """
    files = {name: content.decode() for name, content in read_files().items()}
    script = "".join(_EXPORT.sub("", _IMPORT.sub("", files[name])) for name in _SCRIPTS)
    style = "".join(files[name] for name in _STYLES)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    # No text of a client's ends the element that holds it.
    told = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return _PAGE.format(policy=policy, style=style, data=told, script=script).encode()


def _hash(text: str) -> str:
    """Return what a policy calls an element's text by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
