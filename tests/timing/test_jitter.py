"""X-TTFT-JITTER and X-ITL-JITTER: streams and whole answers on drawn schedules."""

from collections.abc import Sequence
from itertools import pairwise
from operator import sub

import numpy as np
import pytest

from conftest import TRACE
from emulator.timing.jitter import Jitter, due_offsets
from tests.support.server import PLAIN, Server
from tests.support.simulated.client import Simulated
from tests.support.wire import CHAT_PATH, Post, chat, headers, post_together

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
def test_tokens_keep_the_drawn_schedule(simulated: Simulated, kind: str) -> None:
    """Each token leaves at the very time that was drawn for the seed, and the report tells it."""
    (answer,) = simulated.answers(asked(kind, 7))
    due_s = schedule(kind, 7)
    assert answer.times_s == pytest.approx(due_s)
    times_ms = {"asked": round(due_s[0] * 1000, 3), "actual": round(due_s[0] * 1000, 3)}
    assert answer.report["ttft_ms"] == times_ms
    assert answer.report["total_ms"]["asked"] == round(due_s[-1] * 1000, 3)


def test_no_token_is_early(one_worker: Server) -> None:
    """On a real server no token is earlier than was drawn for it."""
    answers = post_together(one_worker.address, [asked(kind, 7) for kind in KINDS])
    for kind, answer in zip(KINDS, answers, strict=True):
        late_s = map(sub, answer.times_s, schedule(kind, 7))
        assert min(late_s) >= 0, kind


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_gaps(simulated: Simulated, kind: str) -> None:
    """Streams and whole answers with one seed have one schedule, with another seed another."""
    posts = [
        asked(kind, 3),
        asked(kind, 3),
        asked(kind, 3, streamed=False),
        *(asked(kind, seed) for seed in range(4, 10)),
    ]
    same, again, whole, *others = simulated.answers(*posts)
    assert same.times_s == again.times_s
    assert whole.blocks[-1].arrival_s == same.times_s[-1]
    assert any(same.times_s != other.times_s for other in others)


def test_no_seed(one_worker: Server) -> None:
    """Without a seed answers do not all have one schedule."""
    answers = post_together(one_worker.address, [asked("exponential", None)] * 5)
    assert len({answer.report["total_ms"]["asked"] for answer in answers}) > 1


def test_mean(simulated: Simulated) -> None:
    """Of each kind the mean gap of a long stream is the asked one, to 10 %."""
    posts = [
        Post(chat(stream=True, seed=11), {**headers(20, 1, 1500), "X-ITL-JITTER": kind})
        for kind in KINDS
    ]
    answers = simulated.answers(*posts)
    assert [len(answer.content) for answer in answers] == [1500] * len(KINDS)
    means_ms = {kind: answer.mean_itl_s * 1000 for kind, answer in zip(KINDS, answers, strict=True)}
    assert means_ms == pytest.approx(dict.fromkeys(KINDS, 1), rel=0.1)


def test_ttft_scatters_alone(simulated: Simulated) -> None:
    """With a jitter for the TTFT only, the gaps stay constant."""
    extra = {**headers(30, 10, 20), "X-TTFT-JITTER": "uniform:1"}
    answers = simulated.answers(*(Post(chat(stream=True, seed=seed), extra) for seed in range(6)))
    firsts_s = {answer.times_s[0] for answer in answers}
    assert len(firsts_s) == 6
    assert all(0 <= first_s <= 0.060 for first_s in firsts_s)
    for answer in answers:
        assert list(map(sub, answer.times_s[1:], answer.times_s)) == pytest.approx([0.010] * 19)


def test_trace_is_repeated(simulated: Simulated) -> None:
    """A trace's gaps come in its order, scaled to the asked mean: 0, 0, 24 and 8 ms for 8."""
    extra = {**headers(20, 8, 41), "X-ITL-JITTER": "trace:burst"}
    times_s = simulated.stream(extra, seed=1).times_s
    gaps_ms = [round((b - a) * 1000, 6) for a, b in pairwise(times_s)]
    start = (gaps_ms.index(24) - 2) % 4
    assert gaps_ms[start : start + 36] == [0, 0, 24, 8] * 9


def test_jitter_of_batches_and_hidden_tokens(simulated: Simulated) -> None:
    """A batch leaves when the first of its tokens is due, after the hidden ones, as drawn."""
    hidden, batch = 5, 4
    request = asked("exponential", 5)
    extra = {
        **request.headers,
        "X-OUTPUT-LENGTH": str(TOKENS - hidden),
        "X-REASONING-LENGTH": str(hidden),
        "X-SSE-BATCH-SIZE": str(batch),
    }
    (answer,) = simulated.answers(Post(request.body, extra))
    assert answer.times_s == pytest.approx(schedule("exponential", 5)[hidden::batch])


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
