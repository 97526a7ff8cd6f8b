"""X-EMULATION-REPORT: the times asked and actual, with the end of the answer."""

import json
import math
import time
from typing import Any

import pytest

from tests.support.reference import least, watched_machine
from tests.support.server import PLAIN, Server
from tests.support.simulated.client import Simulated
from tests.support.wire import CHAT_PATH, DONE, Answer, Post, chat, headers, post, stream, unread

REPORT = {"X-EMULATION-REPORT": "true"}
TOOL = {"type": "function", "function": {"name": "look"}}


def report_of(answer: Answer) -> dict[str, Any]:
    """Return the report of a stream.

    It is on the last chunk before [DONE] and on the last with a finish_reason, the same on both.
    """
    assert answer.events[-1].data == DONE
    chunks = answer.chunks
    ends = [i for i, chunk in enumerate(chunks) if chunk["choices"]][-1]
    last = len(chunks) - 1
    assert [i for i, chunk in enumerate(chunks) if "emulation" in chunk] == sorted({ends, last})
    assert chunks[ends]["choices"][0]["finish_reason"]
    assert chunks[ends]["emulation"] == answer.report
    return answer.report


@pytest.mark.parametrize(
    ("parameters", "last"),
    [
        ({}, "finish"),
        ({"n": 2}, "finish"),
        ({"logprobs": True}, "finish"),
        ({"tools": [TOOL], "tool_choice": "required"}, "finish"),
        ({"stream_options": {"include_usage": True}}, "usage"),
        ({"n": 2, "stream_options": {"include_usage": True}}, "usage"),
    ],
    ids=str,
)
def test_last_chunk(one_worker: Server, parameters: dict[str, Any], last: str) -> None:
    """The report is on the last chunk before [DONE], which is otherwise as it always is."""
    answer = stream(one_worker.address, {**headers(10, 2, 8), **REPORT}, **parameters)
    report = report_of(answer)
    chunk = answer.chunks[-1]

    assert list(report) == ["ttft_ms", "itl_ms", "total_ms", "worst_lag_ms", "blocked_ms"]
    if last == "usage":
        assert chunk["choices"] == []
        assert chunk["usage"]["completion_tokens"] > 0
    else:
        assert chunk["choices"][0]["finish_reason"] in {"stop", "tool_calls"}


def test_whole_answer(one_worker: Server) -> None:
    """The report of a whole answer tells its total, and no time of a token's leaving."""
    answer = post(one_worker.address, chat(), {**headers(20, 3, 5), **REPORT})
    report = answer.report
    actual_ms = report["total_ms"]["actual"]

    assert report["ttft_ms"] == {"asked": 20, "actual": None}
    nothing = {"mean": None, "p99": None, "max": None}
    assert report["itl_ms"] == {"asked": 3, "asked_gap": 3, **nothing}
    assert report["total_ms"]["asked"] == 32
    assert 32 <= actual_ms <= answer.blocks[-1].arrival_s * 1000
    assert report["worst_lag_ms"] == pytest.approx(actual_ms - 32, abs=0.002)


@pytest.mark.parametrize("streamed", [False, True])
def test_nothing_but_hidden_reasoning(one_worker: Server, streamed: bool) -> None:
    """An answer whose limit its reasoning uses up is reported too, with jitter as without."""
    thinking = {"X-REASONING-LENGTH": "8", "X-ITL-JITTER": "uniform:0.5"}
    body = chat(stream=streamed, max_completion_tokens=5)
    answer = post(one_worker.address, body, {**headers(5, 1), **thinking, **REPORT})
    assert answer.status == 200
    report = report_of(answer) if streamed else answer.report
    assert report["ttft_ms"]["actual"] is None
    assert report["total_ms"]["actual"] >= report["total_ms"]["asked"] > 5


def test_legacy_completions(one_worker: Server) -> None:
    """Legacy completions have a report too."""
    body = {"model": "gpt-4", "prompt": "x"}
    answer = PLAIN.post(
        f"{one_worker.url}/v1/completions",
        json=body,
        headers={**headers(10), **REPORT},
    )
    assert answer.json()["emulation"]["ttft_ms"]["asked"] == 10


def test_agrees_with_the_client(one_worker: Server) -> None:
    """What the report says is what the client saw, and at most 3 ms less, but for the machine.

    The way to the client and other work on the machine add to what the client sees.
    """

    def way_ms() -> float:
        """Return by how much the client saw the first and the last token later than reported."""
        with watched_machine() as machine:
            answer = stream(one_worker.address, {**headers(30, 5, 10), **REPORT})
        report = report_of(answer)
        ways_ms: list[float] = [
            answer.times_s[0] * 1000 - report["ttft_ms"]["actual"],
            answer.events[-1].arrival_s * 1000 - report["total_ms"]["actual"],
        ]
        assert min(ways_ms) >= 0
        return max(ways_ms) - machine.worst_s * 1000

    assert least(way_ms, below=3) < 3


def test_figures_are_consistent(one_worker: Server) -> None:
    """Nothing is reported as early, and mean, p99, max and worst lag fit to each other."""
    report = report_of(stream(one_worker.address, {**headers(30, 5, 50), **REPORT}))
    ttft, itl, total = report["ttft_ms"], report["itl_ms"], report["total_ms"]

    assert (ttft["asked"], itl["asked"], total["asked"]) == (30, 5, 30 + 49 * 5)
    assert ttft["actual"] >= 30
    assert total["actual"] >= total["asked"]
    assert itl["mean"] <= itl["p99"] <= itl["max"]
    assert report["worst_lag_ms"] >= ttft["actual"] - 30 - 0.002
    assert report["worst_lag_ms"] >= 0


def test_what_is_in_time(simulated: Simulated) -> None:
    """A stream that is in time has the figures that were asked for, and no lag."""
    report = report_of(simulated.stream({**headers(30, 5, 50), **REPORT}))
    assert report == {
        "ttft_ms": {"asked": 30, "actual": 30},
        "itl_ms": {"asked": 5, "mean": 5, "asked_gap": 5, "p99": 5, "max": 5},
        "total_ms": {"asked": 275, "actual": 275},
        "worst_lag_ms": 0,
        "blocked_ms": 0,
    }


def test_batches(simulated: Simulated) -> None:
    """Of batches the mean is from token to token, as asked, and the gaps are the events'."""
    asked = {**headers(10, 2, 100), **REPORT, "X-SSE-BATCH-SIZE": "10"}
    itl = report_of(simulated.stream(asked))["itl_ms"]
    assert itl == {"asked": 2, "asked_gap": 20, "mean": 2, "p99": 20, "max": 20}


def test_held_back(simulated: Simulated) -> None:
    """The first token counts from when it left, if what came before could become a stop."""
    asked = {**headers(10, 40, 8), **REPORT}
    opening = simulated.stream(headers(output_length=3), seed=4).text
    answer = simulated.stream(asked, seed=4, stop=f"{opening}#")
    report = report_of(answer)
    assert answer.times_s[0] == pytest.approx(0.010 + 3 * 0.040)
    assert report["ttft_ms"] == {"asked": 130, "actual": 130}
    assert report["itl_ms"]["mean"] == 40
    assert report["worst_lag_ms"] == 0


def test_slow_client(one_worker: Server) -> None:
    """A client that does not read for a while is told that, and not that the emulator is late."""
    asked = Post(chat(stream=True), {**headers(0, 0.02, 30_000), **REPORT})

    def lag() -> float:
        """Return the worst lag, as a part of the time that the client took.

        On a busy machine 50,000 tokens/s are late too.
        """
        with unread(one_worker.address, [asked]) as (connection,):
            time.sleep(1)  # the client itself takes this long
            end = b""
            while not end.endswith(b"0\r\n\r\n"):
                end = end[-1000:] + connection.recv(1 << 20)
        report = json.loads(end[end.index(b'{"ttft_ms"') :].partition(b"}\n\n")[0])
        if report["blocked_ms"] < 300:
            return math.inf  # the server was too busy to fill the buffers in that second
        assert report["itl_ms"]["max"] > 300
        return float(report["worst_lag_ms"] / report["blocked_ms"])

    assert least(lag, below=0.5) < 0.5


@pytest.mark.parametrize("value", [None, "false", "0"])
def test_no_report(one_worker: Server, value: str | None) -> None:
    """Without the header, or with false, nothing of a report is in the answer."""
    extra = headers() if value is None else {**headers(), "X-EMULATION-REPORT": value}
    assert b"emulation" not in stream(one_worker.address, extra).body
    assert b"emulation" not in post(one_worker.address, chat(), extra).body


@pytest.mark.parametrize("value", ["perhaps", "2", ""])
def test_bad_value(one_worker: Server, value: str) -> None:
    """Another value is a 400 that names the header, the value and what was expected."""
    asked = {**headers(), "X-EMULATION-REPORT": value}
    answer = PLAIN.post(one_worker.url + CHAT_PATH, json=chat(), headers=asked)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["param"] == "X-EMULATION-REPORT"
    assert all(p in error["message"] for p in ("X-EMULATION-REPORT", f"'{value}'", "true or false"))
