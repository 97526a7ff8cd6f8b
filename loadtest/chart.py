"""Charts of TTFT, ITL and tokens/s in a tab of locust's own web UI.

Locust gives an added tab a table and nothing else, so the page loads ``chart.js`` beside locust's
script; it draws below the table.
"""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from flask import Blueprint, Response, jsonify, request
from locust.stats import RequestStats, StatsEntry
from locust.web import WebUI

from loadtest.report import ITL, TOKENS, TTFT, rows

TAB = "streams"
SCRIPT = Path(__file__).with_name("chart.js")
SAMPLE_INTERVAL_S = 2
MAX_SAMPLES = 900  # half an hour

Sample = dict[str, Any]

_TABLE = {
    "name": "Scenario",
    "ttft_p50": "TTFT p50 (ms)",
    "ttft_p99": "TTFT p99 (ms)",
    "itl_p50": "ITL p50 (ms)",
    "itl_p99": "ITL p99 (ms)",
    "tokens": "# tokens",
    "tokens_per_s": "tokens/s",
}


def sample(stats: RequestStats) -> Sample:
    """Return the last 10 s of every stream row: TTFT and ITL p50 and p99 in ms, and tokens/s."""
    return {
        "time_s": time.time(),
        "ttft": {entry.name: _current_ms(entry) for entry in rows(stats, TTFT)},
        "itl": {entry.name: _current_ms(entry) for entry in rows(stats, ITL)},
        "tokens": {entry.name: [entry.current_rps] * 2 for entry in rows(stats, TOKENS)},
    }


def _current_ms(entry: StatsEntry) -> list[float | None]:
    return [entry.get_current_response_time_percentile(percent) or None for percent in (0.5, 0.99)]


def table(stats: RequestStats) -> list[dict[str, Any]]:
    """Return the tab's table: a row for each scenario, over the whole run."""
    found: dict[str, dict[str, Any]] = {}
    for kind, key in ((TTFT, "ttft"), (ITL, "itl")):
        for entry in rows(stats, kind):
            found.setdefault(entry.name, {"name": entry.name}).update(
                {
                    f"{key}_p50": entry.get_response_time_percentile(0.5),
                    f"{key}_p99": entry.get_response_time_percentile(0.99),
                }
            )
    for entry in rows(stats, TOKENS):
        found.setdefault(entry.name, {"name": entry.name}).update(
            {"tokens": entry.num_requests, "tokens_per_s": round(entry.total_rps, 1)}
        )
    return [found[name] for name in sorted(found)]


def add_charts(web_ui: WebUI) -> None:
    """Add the tab, what it is drawn from, and a greenlet that takes a sample every 2 s."""
    environment = web_ui.environment
    samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)

    def take_samples() -> None:
        while True:
            gevent.sleep(SAMPLE_INTERVAL_S)
            if environment.runner and environment.runner.state in ("spawning", "running"):
                samples.append(sample(environment.stats))

    def forget_samples(**_: Any) -> None:
        samples.clear()

    assert web_ui.app is not None  # noqa: S101 - it is set in WebUI.__init__
    web_ui.template_args |= {
        "extended_tabs": [{"title": "Streams", "key": TAB}],
        "extended_tables": [
            {
                "key": TAB,
                "structure": [{"key": key, "title": title} for key, title in _TABLE.items()],
            }
        ],
    }
    base_path = getattr(environment.parsed_options, "web_base_path", None)
    web_ui.app.register_blueprint(_routes(web_ui, samples), url_prefix=base_path or None)
    web_ui.app.after_request(_extend(environment.stats))
    environment.events.test_start.add_listener(forget_samples)
    environment.events.reset_stats.add_listener(forget_samples)
    gevent.spawn(take_samples)


def _routes(web_ui: WebUI, samples: deque[Sample]) -> Blueprint:
    blueprint = Blueprint("streams", __name__)

    @blueprint.route("/streams/samples")
    @web_ui.auth_required_if_enabled
    def _samples() -> Response:
        return jsonify(list(samples))

    @blueprint.route("/streams/chart.js")
    @web_ui.auth_required_if_enabled
    def _script() -> Response:
        return Response(SCRIPT.read_text(), mimetype="text/javascript")

    return blueprint


def _extend(stats: RequestStats) -> Callable[[Response], Response]:
    """Return what adds the table's rows to locust's figures, and the script to its page."""

    def extend(response: Response) -> Response:
        if request.endpoint == "locust.request_stats" and response.is_json:
            figures = response.get_json() | {"extended_stats": [{"key": TAB, "data": table(stats)}]}
            response.set_data(jsonify(figures).get_data())
        elif request.endpoint == "locust.index" and response.mimetype == "text/html":
            page = response.get_data(as_text=True)
            script = '<script src="./streams/chart.js"></script>'
            response.set_data(page.replace("</body>", f"{script}</body>"))
        return response

    return extend
