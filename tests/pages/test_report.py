"""A report: figures of a span that add up, in one file that runs nothing of a client's."""

import json
import re
from typing import Any

import pytest

from emulator.pages.console.figures import BOUNDS_MS, MOST_MODELS, MOST_POINTS, Timed, figures
from emulator.pages.console.report import report_page

START = 1_800_000_000.0


def one(number: int = 0, **more: Any) -> Timed:  # noqa: ANN401 - its fields
    """Return a request that ended so many seconds after the start of the span."""
    usual = Timed(
        id=f"req_{number}",
        at=START + number - 0.5,
        model="gpt-4",
        status=200,
        tokens=10,
        ttft=(100.0, 100.5),
        itl=(20.0, 20.1),
        total=(280.0, 281.0),
        lag=0.4,
        fault="",
        rules=(),
        ended_at=START + number,
    )
    return usual._replace(**more)


def test_figures_add_up() -> None:
    """Requests, tokens, statuses, faults and rules are counted, and times have their quantiles."""
    requests = [one(number) for number in range(9)]
    requests.append(one(9, status=503, fault="status", rules=("a", "b"), lag=7.0))
    told = figures(requests, START, START + 10)
    overall = told["overall"]
    assert (overall["requests"], overall["failed"], overall["tokens"]) == (10, 1, 100)
    assert overall["rate"] == 1
    assert (overall["lag"]["p50"], overall["lag"]["max"]) == (0.4, 7.0)
    assert told["statuses"] == {"200": 9, "503": 1}
    assert (told["faults"], told["rules"]) == ({"status": 1}, {"a": 1, "b": 1})
    assert [point["tokens"] for point in told["points"]] == [10] * 10
    assert told["points"][9]["statuses"] == [0, 0, 1, 0]


def test_histograms_hold_each_request_once() -> None:
    """Each time is in the bucket whose upper bound is the first that is not below it."""
    times = [0.1, 0.11, 100.0, 1e9]
    (model,) = figures([one(ttft=(each, each)) for each in times], START, START + 1)["models"]
    places = [index for index, count in enumerate(model["ttft"]) for _ in range(count)]
    assert [BOUNDS_MS[place] for place in places] == [0.1, 0.2, 100, BOUNDS_MS[-1]]
    assert model["ttft"] == model["ttft_asked"]


def test_figures_are_bounded() -> None:
    """A day of a thousand models makes no more points and models than a page can show."""
    requests = [one(number * 86, model=f"m{number}") for number in range(1000)]
    told = figures(requests, START, START + 86_400)
    assert len(told["points"]) <= MOST_POINTS
    assert len(told["models"]) == MOST_MODELS


def test_nothing_at_all() -> None:
    """A span without a request has figures too."""
    told = figures([], START, START)
    assert told["overall"]["lag"] is None
    assert told["points"] == told["models"] == []


@pytest.mark.parametrize("text", ["</script><script>alert(1)</script>", "<!--<script>", "]]>"])
def test_names_end_no_element(text: str) -> None:
    """No text of a client's ends the element that holds the figures, and all of it is kept."""
    page = report_page(figures([one(model=text)], START, START + 1)).decode()
    assert len(re.findall(r"<script", page)) == 2
    data = re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL)
    assert data
    assert json.loads(data[1])["models"][0]["name"] == text


def test_report_needs_nothing() -> None:
    """The file imports no module and names no other file."""
    page = report_page({}).decode()
    assert not re.search(r"^(import|export) ", page, re.MULTILINE)
    assert "src=" not in page
    assert "connect-src" not in page
    assert "default-src 'none'" in page
