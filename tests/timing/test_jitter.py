"""X-TTFT-JITTER and X-ITL-JITTER over the wire: streams and whole answers on drawn schedules."""

import statistics
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from conftest import TRACE
from emulator.timing.jitter import Jitter, due_offsets
from tests.support.reference import watched_machine
from tests.support.server import PLAIN, Server
from tests.support.wire import CHAT_PATH, Answer, Post, chat, headers, post, post_together

KINDS = ["normal:0.3", "lognormal:0.8", "uniform:1", "exponential", "trace:burst"]
TTFT_MS, ITL_MS, TOKENS = 40, 8, 40
TRACES = {"burst": np.array(TRACE)}


def asked(kind: str, seed: int | None, *, streamed: bool = True) -> Post:
    """Return a request whose TTFT and ITL both scatter, with a report."""
    jitter = {"X-TTFT-JITTER": kind, "X-ITL-JITTER": kind, "X-EMULATION-REPORT": "true"}
    body = chat(stream=streamed) if seed is None else chat(stream=streamed, seed=seed)
    return Post(body, {**headers(TTFT_MS, ITL_MS, TOKENS), **jitter})


def schedule(kind: str, seed: int) -> Sequence[float]:
    """Return when the tokens are due, in seconds."""
    jitter = Jitter.parse(kind, TRACES)
    return due_offsets(
        TOKENS,
        TTFT_MS / 1000,
        ITL_MS / 1000,
        ttft_jitter=jitter,
        itl_jitter=jitter,
        seed=seed,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_keep_the_drawn_schedule(one_worker: Server, kind: str) -> None:
    """No token is earlier than was drawn for the seed; the median is 5 ms late at most.

    That is beside what the machine takes to bring the request to the server.
    """
    due_s = schedule(kind, 7)
    with watched_machine() as machine:
        (answer,) = post_together(one_worker.address, [asked(kind, 7)])
    late_s = [e.arrival_s - due for e, due in zip(answer.content, due_s, strict=True)]

    ttft_ms = answer.report["ttft_ms"]
    assert min(late_s) >= 0
    assert statistics.median(late_s) - min(late_s) < 0.005
    assert ttft_ms["actual"] - ttft_ms["asked"] < 5 + machine.worst_s * 1000
    assert answer.report["ttft_ms"]["asked"] == round(due_s[0] * 1000, 3)
    assert answer.report["total_ms"]["asked"] == round(due_s[-1] * 1000, 3)


def gaps_apart_s(one: Answer, other: Answer) -> float:
    """Return by how much the gaps of two streams differ, at the median."""
    gaps_s = [
        [b.arrival_s - a.arrival_s for a, b in pairwise(answer.content)] for answer in (one, other)
    ]
    return float(np.median(np.abs(np.subtract(gaps_s[0], gaps_s[1]))))


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_gaps(one_worker: Server, kind: str) -> None:
    """Streams and whole answers with one seed have one schedule, with another seed another."""
    posts = [
        asked(kind, 3),
        asked(kind, 3),
        asked(kind, 3, streamed=False),
        *(asked(kind, seed) for seed in range(4, 10)),
    ]
    same, again, whole, *others = post_together(one_worker.address, posts)
    totals_ms = [answer.report["total_ms"]["asked"] for answer in (same, again, whole)]

    assert len(set(totals_ms)) == 1
    assert gaps_apart_s(same, again) < 0.001
    assert all(gaps_apart_s(same, other) > 0.001 for other in others)
    assert whole.blocks[-1].arrival_s * 1000 >= totals_ms[0] - 0.001
    assert {other.report["total_ms"]["asked"] for other in others} - {totals_ms[0]}


def test_no_seed(one_worker: Server) -> None:
    """Without a seed each answer has a schedule of its own."""
    answers = post_together(one_worker.address, [asked("exponential", None)] * 5)
    assert len({answer.report["total_ms"]["asked"] for answer in answers}) == 5


def test_mean(one_worker: Server) -> None:
    """Of each kind the mean gap of a long stream is the asked one, to 10 %, as the client sees."""
    posts = [
        Post(chat(stream=True, seed=11), {**headers(20, 1, 1500), "X-ITL-JITTER": kind})
        for kind in KINDS
    ]
    answers = post_together(one_worker.address, posts)
    assert [len(answer.content) for answer in answers] == [1500] * len(KINDS)
    means_ms = {kind: answer.mean_itl_s * 1000 for kind, answer in zip(KINDS, answers, strict=True)}
    assert means_ms == pytest.approx(dict.fromkeys(KINDS, 1), rel=0.1)


def test_ttft_scatters_alone(one_worker: Server) -> None:
    """With a jitter for the TTFT only, the gaps stay constant."""
    extra = {**headers(30, 10, 20), "X-TTFT-JITTER": "uniform:1", "X-EMULATION-REPORT": "true"}
    posts = [Post(chat(stream=True, seed=seed), extra) for seed in range(6)]
    answers = post_together(one_worker.address, posts)
    firsts_ms = {answer.report["ttft_ms"]["asked"] for answer in answers}
    spans_ms = [
        answer.report["total_ms"]["asked"] - answer.report["ttft_ms"]["asked"] for answer in answers
    ]
    assert len(firsts_ms) == 6
    assert all(0 <= first_ms <= 60 for first_ms in firsts_ms)
    assert spans_ms == pytest.approx([190] * 6, abs=0.002)


def test_trace_is_repeated(one_worker: Server) -> None:
    """A trace's gaps come in its order, scaled to the asked mean: 0, 0, 24 and 8 ms for 8."""
    extra = {**headers(20, 8, 41), "X-ITL-JITTER": "trace:burst"}
    answer = post(one_worker.address, chat(stream=True, seed=1), extra)
    gaps_ms = [(b.arrival_s - a.arrival_s) * 1000 for a, b in pairwise(answer.content)]
    phases = [statistics.median(gaps_ms[phase::4]) for phase in range(4)]
    start = phases.index(max(phases)) - 2
    turned = [phases[(start + step) % 4] for step in range(4)]
    assert turned == pytest.approx([0, 0, 24, 8], abs=2)


def test_jitter_of_batches_and_hidden_tokens(one_worker: Server) -> None:
    """A batch leaves when the first of its tokens is due, after the hidden ones, as drawn."""
    hidden, batch = 5, 4
    request = asked("exponential", 5)
    extra = {
        **request.headers,
        "X-OUTPUT-LENGTH": str(TOKENS - hidden),
        "X-REASONING-LENGTH": str(hidden),
        "X-SSE-BATCH-SIZE": str(batch),
    }
    due_s = schedule("exponential", 5)[hidden::batch]
    answer = post(one_worker.address, request.body, extra)
    late_s = [e.arrival_s - due for e, due in zip(answer.content, due_s, strict=True)]
    assert min(late_s) >= 0
    assert statistics.median(late_s) - min(late_s) < 0.005


@pytest.mark.parametrize("name", ["X-TTFT-JITTER", "X-ITL-JITTER"])
@pytest.mark.parametrize(
    "value", ["gamma:1", "normal:9", "normal:0_0.1", "uniform:x", "", "trace:absent"]
)
def test_bad_value(one_worker: Server, name: str, value: str) -> None:
    """What names no distribution is a 400 that names header and value, and what there is."""
    extra = {**headers(), name: value}
    answer = PLAIN.post(one_worker.url + CHAT_PATH, json=chat(), headers=extra)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", name)
    assert all(part in error["message"] for part in (name, repr(value), "expected"))
    assert value != "trace:absent" or "'burst'" in error["message"]
