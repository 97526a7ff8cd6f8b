"""The page at ``/``: what this server is, where its other pages are, and its latest figures."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable
from math import isinf
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Metric, multiprocess
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from emulator.metrics import ACTIVE_STREAMS, COMPLETIONS, ERRORS, ITL_LAG, TALLY, TOKENS, TTFT_LAG

# It keeps the browser from asking anybody else for anything, whatever the page says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"

_PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width">
  <title>OpenAI API Emulator</title>
  <link rel="icon" href="data:,">
  <style>
    body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40em; margin: 3em auto }}
    td {{ padding-right: 2em }} td + td {{ text-align: right }}
  </style>
</head>
<body>
  <h1>OpenAI API Emulator {version}</h1>
  <p>It speaks OpenAI's API with no model behind it, on a true clock. The base URL for clients is
  this page's address with <code>/v1</code>.</p>
  <ul>
    <li><a href="docs">the API, to read and to try</a>, and its <a href="openapi.json">OpenAPI
    document</a></li>
    <li><a href="v1/models">models</a></li>
    <li><a href="health">health</a>, <a href="livez">live</a>, <a href="readyz">ready</a></li>
    <li><a href="metrics">metrics</a></li>
  </ul>
  <h2>Since the start, all workers</h2>
  <table>
{rows}
  </table>
</body>
</html>
"""


def index(version: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """Return what answers ``GET /``."""

    async def answer(_: Request) -> Response:
        TALLY.flush()
        rows = "\n".join(
            f"    <tr><td>{name}</td><td>{value}</td></tr>"
            for name, value in await asyncio.to_thread(figures)
        )
        page = _PAGE.format(version=version, rows=rows)
        return HTMLResponse(page, headers={"content-security-policy": POLICY})

    return answer


def figures() -> list[tuple[str, str]]:
    """Return the latest figures of all workers, by what they are."""
    found = {metric.name: metric for metric in _collected()}

    def total(name: str) -> str:
        samples = found[name].samples if name in found else []
        kept = [sample.value for sample in samples if not sample.name.endswith("_created")]
        return f"{sum(kept):,.0f}"

    def late(name: str) -> str:
        return _in_words(_p99_s(found[name])) if name in found else "no figure yet"

    return [
        ("streams open", total(ACTIVE_STREAMS._name)),
        ("answers", total(COMPLETIONS._name)),
        ("tokens", total(TOKENS._name)),
        ("errors", total(ERRORS._name)),
        ("p99 of how late a first token left", late(TTFT_LAG._name)),
        ("p99 of a stream's largest excess of a gap", late(ITL_LAG._name)),
    ]


def _collected() -> Iterable[Metric]:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY.collect()
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry.collect()


def _p99_s(histogram: Metric) -> float | None:
    """Return the bound of the bucket that holds the 99th percentile, in seconds."""
    buckets = sorted(
        (float(sample.labels["le"]), sample.value)
        for sample in histogram.samples
        if sample.name.endswith("_bucket")
    )
    count = max((value for _, value in buckets), default=0)
    return next((le for le, value in buckets if count and value >= 0.99 * count), None)


def _in_words(late_s: float | None) -> str:
    if late_s is None:
        return "no figure yet"
    return "over 1 s" if isinf(late_s) else f"up to {late_s * 1000:g} ms"
