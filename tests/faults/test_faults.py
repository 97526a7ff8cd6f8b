"""Each kind of failure, byte for byte on a raw socket: streams and whole answers of every API."""

import json
import re
import uuid
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from emulator.faults.kinds import APART_S, KINDS
from emulator.transport.socket_control import Connection, NoConnectionError
from tests.support.cut_wire import (
    CHAT,
    ENDPOINTS,
    RESPONSES,
    WHOLE_ENDPOINTS,
    Endpoint,
    Exchange,
    exchange,
)
from tests.support.server import Server, eventually
from tests.support.simulated.client import Simulated
from tests.support.wire import Post, chat, headers, post_together, token_count

ENDS_PROPERLY = ("error", "eof", "no-done", "malformed", "empty", "slice")
CUTS = ("close", "reset")

every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
every_whole_endpoint = pytest.mark.parametrize("endpoint", WHOLE_ENDPOINTS, ids=str)


def fail(kind: str, **options: object) -> dict[str, str]:
    """Return the headers that ask for a failure."""
    named = {f"X-FAULT-{name.upper().replace('_', '-')}": str(v) for name, v in options.items()}
    return {"X-FAULT-KIND": kind, **named}


def stream(server: Server, endpoint: Endpoint, asked: dict[str, str], **body: object) -> Exchange:
    """Ask for a stream and return all that came of it."""
    return _ask(server, endpoint, asked, {**endpoint.body(True), **body})


def whole(server: Server, endpoint: Endpoint, asked: dict[str, str], **body: object) -> Exchange:
    """Ask for a whole answer and return all that came of it."""
    return _ask(server, endpoint, asked, {**endpoint.body(False), **body})


def _ask(
    server: Server, endpoint: Endpoint, asked: dict[str, str], body: dict[str, Any]
) -> Exchange:
    stalls = asked.get("X-FAULT-KIND") == "stall"
    return exchange(server.address, endpoint.path, body, asked, stalls=stalls)


# Responses have no seed, so that their texts differ too.
_DIFFERENT = re.compile(
    rb'("(?:item_)?id":"|"delta":"|"text":")[^"]*|("created_at":|"created":|"completed_at":)[\d.]+'
)


def good(server: Server, endpoint: Endpoint, asked: dict[str, str]) -> list[bytes]:
    """Return the events of the stream that does not fail, ids and times aside."""
    return steady(stream(server, endpoint, asked).events)


def steady(events: list[bytes]) -> list[bytes]:
    """Return events without what differs from answer to answer."""
    return [_DIFFERENT.sub(rb"\g<1>\g<2>0", event) for event in events]


# --------------------------------------------------------------------------------------
# Streams
# --------------------------------------------------------------------------------------


@every_endpoint
@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("kind", ["error", "eof", "close", "reset", "stall"])
def test_stream_fails_after_exactly_k_tokens(
    one_worker: Server, endpoint: Endpoint, kind: str, k: int
) -> None:
    """A stream that fails has sent k tokens, those of the good one, and tells its kind at once."""
    came = stream(one_worker, endpoint, headers() | fail(kind, after_tokens=k))
    assert came.status == 200
    assert came.headers["x-fault-injected"] == kind
    assert came.tokens(endpoint) == k
    whole_events = came.events[: -endpoint.error_events] if kind == "error" else came.events
    assert steady(whole_events) == good(one_worker, endpoint, headers())[: len(whole_events)]


@every_endpoint
def test_error_is_an_event(one_worker: Server, endpoint: Endpoint) -> None:
    """The kind error sends an event with OpenAI's error, no [DONE], and ends the body properly."""
    asked = headers() | fail("error", status=429, after_tokens=2)
    came = stream(one_worker, endpoint, asked)
    error = endpoint.error(came.events[-endpoint.error_events])
    assert set(error) >= {"message", "type", "param", "code"}
    assert error["type"] == ("tokens" if endpoint.has_seed else "error")
    assert error["code"] == "rate_limit_exceeded"
    assert (came.end, came.is_complete, came.torn) == ("FIN", True, b"")


@every_endpoint
def test_eof_is_a_proper_end(one_worker: Server, endpoint: Endpoint) -> None:
    """The kind eof ends the body properly, with neither finish_reason nor [DONE]."""
    came = stream(one_worker, endpoint, headers() | fail("eof", after_tokens=2))
    assert (came.end, came.is_complete, came.torn) == ("FIN", True, b"")
    assert b'"finish_reason":"' not in came.body
    assert endpoint.last.encode() not in came.body


@every_endpoint
def test_no_done_lacks_the_last_event_alone(one_worker: Server, endpoint: Endpoint) -> None:
    """The kind no-done sends all events but the last, and ends the body properly."""
    came = stream(one_worker, endpoint, headers() | fail("no-done"))
    expected = good(one_worker, endpoint, headers())
    assert endpoint.last.encode() in expected[-1]
    assert steady(came.events) == expected[:-1]
    assert (came.end, came.is_complete, came.torn) == ("FIN", True, b"")


@every_endpoint
@pytest.mark.parametrize(("kind", "end"), [("close", "FIN"), ("reset", "RST")])
@pytest.mark.parametrize("k", [0, 2])
def test_cut_comes_within_an_event(
    one_worker: Server, endpoint: Endpoint, kind: str, end: str, k: int
) -> None:
    """Close and reset send half of the next event, and FIN or RST in place of the last chunk."""
    came = stream(one_worker, endpoint, headers() | fail(kind, after_tokens=k))
    assert came.end == end
    assert not came.is_complete
    following = stream(one_worker, endpoint, headers()).events[len(came.events)]
    words_differ_by = 0 if endpoint.has_seed else 16
    assert abs(len(came.torn) - (len(following) + 2) // 2) <= words_differ_by
    cut = len(came.torn) - 1  # an id of another answer ends there at the earliest
    assert steady([came.torn])[0][:20] == steady([following[:cut]])[0][:20]


@every_endpoint
def test_stall_leaves_the_connection_open(one_worker: Server, endpoint: Endpoint) -> None:
    """The kind stall sends k tokens and then nothing: no event, no end, no FIN."""
    came = stream(one_worker, endpoint, headers() | fail("stall", after_tokens=2))
    assert (came.end, came.is_complete, came.torn) == ("open", False, b"")
    assert came.tokens(endpoint) == 2


@every_endpoint
@pytest.mark.parametrize("k", [0, 2])
def test_malformed_breaks_one_event(one_worker: Server, endpoint: Endpoint, k: int) -> None:
    """The kind malformed makes event k no JSON and leaves all others, [DONE] included, as is."""
    asked = headers() | fail("malformed", after_tokens=k)
    came = steady(stream(one_worker, endpoint, asked).events)
    expected = good(one_worker, endpoint, headers())
    different = [i for i, (is_, was) in enumerate(zip(came, expected, strict=True)) if is_ != was]
    (broken,) = different
    assert endpoint.is_token(json.loads(expected[broken].partition(b"data: ")[2]))
    assert sum(map(is_content(endpoint), expected[:broken])) == k
    with pytest.raises(json.JSONDecodeError):
        json.loads(came[broken].partition(b"data: ")[2])


def is_content(endpoint: Endpoint) -> Any:  # noqa: ANN401 - a predicate
    """Return what tells whether an event holds a token."""
    return lambda event: endpoint.is_token(json.loads(event.partition(b"data: ")[2]))


@every_endpoint
def test_empty_is_a_success_without_an_event(one_worker: Server, endpoint: Endpoint) -> None:
    """The kind empty answers 200 with the headers of a stream and no byte of a body."""
    came = stream(one_worker, endpoint, headers() | fail("empty"))
    assert (came.status, came.body, came.end, came.is_complete) == (200, b"", "FIN", True)
    assert came.headers["content-type"] == "text/event-stream; charset=utf-8"


@every_endpoint
@pytest.mark.parametrize(("asked", "size"), [({}, 7), ({"slice_bytes": 1}, 1)])
def test_slice_loses_nothing(
    one_worker: Server, endpoint: Endpoint, asked: dict[str, object], size: int
) -> None:
    """The kind slice sends the good stream in pieces, each in a write of its own."""
    came = stream(one_worker, endpoint, headers(output_length=2) | fail("slice", **asked))
    assert steady(came.events) == good(one_worker, endpoint, headers(output_length=2))
    assert max(map(len, came.chunks)) == size
    assert sum(len(chunk) < size for chunk in came.chunks) <= 4  # the last of each write
    assert size > 1 or came.chunks.count(b"\n") == came.body.count(b"\n")


def test_slices_tear_characters(one_worker: Server) -> None:
    """The kind slice tears multi-byte characters, here those of an echoed prompt."""
    asked = headers(output_length=1) | fail("slice", slice_bytes=1)
    body = {"model": "gpt-4", "prompt": "\N{SNOWMAN}", "echo": True, "stream": True}
    came = exchange(one_worker.address, "/v1/completions", body, asked)
    assert "\N{SNOWMAN}" in came.body.decode()
    assert b"\xe2" in came.chunks


def test_slices_are_close_together(simulated: Simulated) -> None:
    """The pieces of an event are a fixed time apart, which is less than 1 ms."""
    answer = simulated.stream(headers(output_length=1) | fail("slice"))
    times_s = [block.arrival_s for block in answer.blocks if block.data]
    gaps_s = [after - before for before, after in pairwise(times_s)]
    assert len(gaps_s) > 20
    assert {round(gap_s, 6) for gap_s in gaps_s} <= {0, APART_S}
    assert gaps_s.count(0) < 5
    assert APART_S < 0.001


# --------------------------------------------------------------------------------------
# Whole answers
# --------------------------------------------------------------------------------------


def json_of(server: Server, endpoint: Endpoint) -> bytes:
    """Return the whole answer that does not fail, ids and times aside."""
    return steady([whole(server, endpoint, headers()).body])[0]


@every_whole_endpoint
@pytest.mark.parametrize("kind", ["status", "error"])
def test_whole_answer_becomes_a_status(one_worker: Server, endpoint: Endpoint, kind: str) -> None:
    """The kinds status and error answer with the status in OpenAI's envelope."""
    came = whole(one_worker, endpoint, headers() | fail(kind, status=503, retry_after_ms=1500))
    assert came.status == 503
    assert json.loads(came.body)["error"]["code"] == "server_is_overloaded"
    assert (came.headers["retry-after-ms"], came.headers["retry-after"]) == ("1500", "2")
    assert came.headers["x-fault-injected"] == kind


@every_endpoint
def test_stream_becomes_a_status(one_worker: Server, endpoint: Endpoint) -> None:
    """The kind status answers a stream with the status in its place; a status alone asks for it."""
    came = stream(one_worker, endpoint, headers(ttft_ms=5000) | {"X-FAULT-STATUS": "401"})
    assert (came.status, came.headers["content-type"]) == (401, "application/json")
    assert came.headers["x-fault-injected"] == "status"
    assert json.loads(came.body)["error"]["message"].startswith("You didn't provide an API key.")


@every_whole_endpoint
def test_whole_eof_is_half_of_the_json(one_worker: Server, endpoint: Endpoint) -> None:
    """The kind eof answers 200 with half of the JSON, its length truly said."""
    came = whole(one_worker, endpoint, headers() | fail("eof"))
    expected = json_of(one_worker, endpoint)
    assert (came.status, came.end) == (200, "FIN")
    assert int(came.headers["content-length"]) == len(came.body)
    assert expected.startswith(steady([came.body])[0])
    with pytest.raises(json.JSONDecodeError):
        json.loads(came.body)


@every_whole_endpoint
@pytest.mark.parametrize(("kind", "end"), [("close", "FIN"), ("reset", "RST")])
def test_whole_cut_is_in_the_middle(
    one_worker: Server, endpoint: Endpoint, kind: str, end: str
) -> None:
    """Close and reset end the connection in the middle of the promised length."""
    came = whole(one_worker, endpoint, headers() | fail(kind))
    assert (came.status, came.end) == (200, end)
    assert len(came.body) == int(came.headers["content-length"]) // 2
    assert json_of(one_worker, endpoint).startswith(steady([came.body])[0])


@every_whole_endpoint
def test_whole_stall_says_nothing(one_worker: Server, endpoint: Endpoint) -> None:
    """The kind stall sends no byte, not even a header, and leaves the connection open."""
    came = whole(one_worker, endpoint, headers() | fail("stall"))
    assert (came.raw, came.end) == (b"", "open")


@every_whole_endpoint
def test_whole_malformed_is_complete(one_worker: Server, endpoint: Endpoint) -> None:
    """The kind malformed answers 200 with all of the JSON but its last brace."""
    came = whole(one_worker, endpoint, headers() | fail("malformed"))
    assert int(came.headers["content-length"]) == len(came.body)
    assert steady([came.body])[0] == json_of(one_worker, endpoint)[:-1] + b"]"


@every_whole_endpoint
def test_whole_empty_is_a_success(one_worker: Server, endpoint: Endpoint) -> None:
    """The kind empty answers 200 and says truly that nothing comes."""
    came = whole(one_worker, endpoint, headers() | fail("empty"))
    assert (came.status, came.headers["content-length"], came.body) == (200, "0", b"")


@every_whole_endpoint
def test_whole_slice_loses_nothing(one_worker: Server, endpoint: Endpoint) -> None:
    """The kind slice sends the good answer, its length truly said, in many writes."""
    came = whole(one_worker, endpoint, headers() | fail("slice", slice_bytes=10))
    assert steady([came.body])[0] == json_of(one_worker, endpoint)
    assert len(came.reads) > 10


def test_whole_answer_has_no_done(one_worker: Server) -> None:
    """The kind no-done is a 400 for a whole answer, which has none."""
    came = whole(one_worker, CHAT, headers() | fail("no-done"))
    assert (came.status, json.loads(came.body)["error"]["param"]) == (400, "X-FAULT-KIND")


# --------------------------------------------------------------------------------------
# Places
# --------------------------------------------------------------------------------------


@every_endpoint
@pytest.mark.parametrize("kind", ["error", "eof", "close", "reset"])
def test_place_beyond_the_end_is_the_end(one_worker: Server, endpoint: Endpoint, kind: str) -> None:
    """A token that the answer does not have is after its last one and before its finish_reason."""
    came = stream(one_worker, endpoint, headers() | fail(kind, after_tokens=1000))
    assert came.tokens(endpoint) == 5
    assert b'"finish_reason":"' not in came.body
    assert b"[DONE]" not in came.body


@pytest.mark.parametrize("kind", ["eof", "close"])
def test_tokens_within_a_batch_are_counted(one_worker: Server, kind: str) -> None:
    """With several tokens in an event the text before the failure is still that of k tokens."""
    asked = headers(output_length=9)
    texts = [text_of(stream(one_worker, CHAT, asked | fail("eof", after_tokens=k))) for k in (7, 9)]
    batched = stream(
        one_worker, CHAT, asked | fail(kind, after_tokens=7) | {"X-SSE-BATCH-SIZE": "4"}
    )
    assert text_of(batched) == texts[0]
    assert texts[1].startswith(texts[0])
    assert texts[1] != texts[0]


def text_of(came: Exchange) -> str:
    """Return the text of a stream of a chat."""
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in came.events]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


def test_every_choice_has_k_tokens(one_worker: Server) -> None:
    """With several choices each has sent k tokens before the stream fails."""
    came = stream(one_worker, CHAT, headers() | fail("eof", after_tokens=2), n=3)
    chunks = [json.loads(event.removeprefix(b"data: "))["choices"][0] for event in came.events]
    tokens = [chunk["index"] for chunk in chunks if chunk["delta"].get("content")]
    assert sorted(tokens) == [0, 0, 1, 1, 2, 2]


def test_hidden_reasoning_does_not_count(one_worker: Server) -> None:
    """Tokens that the client does not see are not among the k, but take their time."""
    asked = headers(itl_ms=20) | {"X-REASONING-LENGTH": "5"}
    came = stream(one_worker, CHAT, asked | fail("eof", after_tokens=2))
    assert came.tokens(CHAT) == 2
    assert came.ended_s >= (5 + 2) * 0.020


def test_calls_fail_too(one_worker: Server) -> None:
    """The tokens of a tool call's arguments count as those of a text."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    asked = headers() | {"X-TOOL-CALLS": "1"} | fail("eof", after_tokens=1)
    came = stream(one_worker, CHAT, asked, tools=tools)
    deltas = [json.loads(e.removeprefix(b"data: "))["choices"][0]["delta"] for e in came.events]
    arguments = [
        call["function"]["arguments"] for delta in deltas for call in delta.get("tool_calls", ())
    ]
    assert [text for text in arguments if text] == arguments[-1:]


def test_held_back_text_counts_when_it_leaves(one_worker: Server) -> None:
    """Where text is held back for a stop sequence, k tokens of it have left all the same."""
    asked = headers(output_length=40)
    full = text_of(stream(one_worker, CHAT, asked | fail("eof", after_tokens=40)))
    words = full.split()
    stop = f"{words[9]} {words[10]} never"
    came = stream(one_worker, CHAT, asked | fail("eof", after_tokens=12), stop=stop)
    assert came.tokens(CHAT) <= 12
    assert text_of(came) == text_of(stream(one_worker, CHAT, asked | fail("eof", after_tokens=12)))


@pytest.mark.parametrize("kind", ["eof", "close", "reset", "error"])
@pytest.mark.parametrize("place", [{"after_tokens": 3}, {"after_ms": 125.5}], ids=str)
def test_failure_is_never_early(one_worker: Server, kind: str, place: dict[str, float]) -> None:
    """A stream fails after its three tokens, never before token 3 is due or the time has come."""
    came = stream(one_worker, CHAT, headers(50, 30, 10) | fail(kind, **place))
    assert came.tokens(CHAT) == 3  # due after 50, 80 and 110 ms
    assert came.ended_s >= (0.1255 if "after_ms" in place else 0.140)


@pytest.mark.parametrize("kind", ["eof", "error"])
@pytest.mark.parametrize(
    ("place", "due_s"),
    [({"after_tokens": 4}, 0.170), ({"after_ms": 125.5}, 0.1255), ({"after_ms": 60_000}, 0.320)],
    ids=str,
)
def test_failure_comes_in_time(
    simulated: Simulated, kind: str, place: dict[str, float], due_s: float
) -> None:
    """A stream fails when token k is due, or at its time, or else with its last token."""
    answer = simulated.stream(headers(50, 30, 10) | fail(kind, **place))
    assert answer.blocks[-1].arrival_s == pytest.approx(due_s)


@pytest.mark.parametrize(
    ("asked", "due_s"),
    [
        (fail("status"), 0),
        (fail("status", after_ms=200), 0.200),
        (fail("status", after_tokens=3), 0.140),
        (fail("error"), 0),
        (fail("eof"), 0.080),
        (fail("malformed"), 0.160),
        (fail("slice", slice_bytes=1024), 0.160),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else None,
)
def test_whole_answer_fails_in_time(
    simulated: Simulated, asked: dict[str, str], due_s: float
) -> None:
    """A status comes at once, a broken answer when it is due, the rest in place of a token."""
    answer = simulated.whole(headers(80, 20, 5) | asked)
    assert answer.blocks[0].arrival_s == pytest.approx(due_s)


@pytest.mark.parametrize(
    ("asked", "due_s"),
    [(fail("reset", after_tokens=2), 0.120), (fail("close", after_ms=30), 0.030)],
)
def test_whole_answer_is_not_cut_early(
    one_worker: Server, asked: dict[str, str], due_s: float
) -> None:
    """A whole answer is cut in place of its token, or at its time, never before."""
    assert whole(one_worker, CHAT, headers(80, 20, 5) | asked).ended_s >= due_s


def test_jitter_moves_the_failure(simulated: Simulated) -> None:
    """With jitter the failure is at the drawn due time of its token: that of the good stream."""
    asked = headers(20, 20, 8) | {"X-ITL-JITTER": "normal:0.5"}
    cut = simulated.stream(asked | fail("eof", after_tokens=6), seed=7)
    full = simulated.stream(asked, seed=7)
    assert cut.times_s == full.times_s[:6]
    assert cut.blocks[-1].arrival_s == pytest.approx(full.times_s[6])


# --------------------------------------------------------------------------------------
# Headers
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"X-FAULT-KIND": "explode"}, "X-FAULT-KIND"),
        ({"X-FAULT-STATUS": "399"}, "X-FAULT-STATUS"),
        ({"X-FAULT-STATUS": "5_00"}, "X-FAULT-STATUS"),
        (fail("eof", after_tokens=-1), "X-FAULT-AFTER-TOKENS"),
        (fail("eof", after_tokens=131_073), "X-FAULT-AFTER-TOKENS"),
        (fail("eof", after_tokens=1.5), "X-FAULT-AFTER-TOKENS"),
        (fail("eof", after_ms="nan"), "X-FAULT-AFTER-MS"),
        (fail("eof", probability=1.1), "X-FAULT-PROBABILITY"),
        (fail("eof", attempts="many"), "X-FAULT-ATTEMPTS"),
        (fail("eof", attempts=1, key="k" * 129), "X-FAULT-KEY"),
        (fail("status", retry_after_ms=-1), "X-FAULT-RETRY-AFTER-MS"),
        (fail("slice", slice_bytes=0), "X-FAULT-SLICE-BYTES"),
        (fail("eof", after_tokens=1, after_ms=1), "X-FAULT-AFTER-MS"),
        (fail("eof", status=500), "X-FAULT-STATUS"),
        (fail("eof", slice_bytes=5), "X-FAULT-SLICE-BYTES"),
        (fail("eof", retry_after_ms=5), "X-FAULT-RETRY-AFTER-MS"),
        (fail("no-done", after_tokens=5), "X-FAULT-AFTER-TOKENS"),
        (fail("eof", key="k"), "X-FAULT-KEY"),
        (fail("eof", attempts=1), "X-FAULT-ATTEMPTS"),
        ({"X-FAULT-AFTER-TOKENS": "5"}, "X-FAULT-AFTER-TOKENS"),
        ({"X-FAULT-PROBABILITY": "0"}, "X-FAULT-PROBABILITY"),
        (fail("status", after_ms=3_000_000), "X-FAULT-AFTER-MS"),
        (fail("eof", attempts=1) | {"x-stainless-retry-count": "-1"}, "x-stainless-retry-count"),
        (fail("eof", attempts=1) | {"x-envoy-attempt-count": "0"}, "x-envoy-attempt-count"),
    ],
    ids=lambda value: "-".join(value.values())[:40] if isinstance(value, dict) else value,
)
def test_bad_headers_are_refused(one_worker: Server, asked: dict[str, str], named: str) -> None:
    """A bad value, an unknown kind or a contradiction is a 400 that names the header."""
    came = stream(one_worker, CHAT, headers() | asked)
    error = json.loads(came.body)["error"]
    assert (came.status, error["param"], error["type"]) == (400, named, "invalid_request_error")
    assert named in error["message"]
    assert "x-fault-injected" not in came.headers


def test_attempts_need_a_number(one_worker: Server) -> None:
    """Attempts without anything that numbers them are a 400 that says what to send."""
    came = stream(one_worker, CHAT, headers() | fail("eof", attempts=1))
    message = json.loads(came.body)["error"]["message"]
    assert all(
        name in message
        for name in ("x-stainless-retry-count", "x-envoy-attempt-count", "X-FAULT-KEY")
    )


@pytest.mark.parametrize(
    ("sent", "fails"),
    [
        ({"x-stainless-retry-count": "1"}, True),
        ({"x-stainless-retry-count": "2"}, False),
        ({"x-envoy-attempt-count": "2"}, True),
        ({"x-envoy-attempt-count": "3"}, False),
        ({"x-stainless-retry-count": "2", "x-envoy-attempt-count": "1"}, False),
    ],
)
def test_attempts_are_numbered_by_clients(
    one_worker: Server, sent: dict[str, str], fails: bool
) -> None:
    """The first n attempts fail, as OpenAI's SDKs or else Envoy number them."""
    came = whole(one_worker, CHAT, headers() | fail("status", attempts=2) | sent)
    assert came.status == (500 if fails else 200)
    assert ("x-fault-injected" in came.headers) == fails


# --------------------------------------------------------------------------------------
# Metrics, log, report
# --------------------------------------------------------------------------------------


def test_cut_streams_are_no_errors_in_metrics(one_worker: Server) -> None:
    """A kind is counted each time, its tokens as far as they were sent, and no error of ours."""
    assert eventually(one_worker.is_idle)
    before = one_worker.metrics()
    for name, kind in KINDS.items():
        asked = headers() | fail(name, **({} if name == "no-done" else {"after_tokens": 2}))
        stream(one_worker, RESPONSES if kind.says_failed else CHAT, asked)

    def rise(name: str, **labels: str) -> float:
        return one_worker.metrics().total(name, **labels) - before.total(name, **labels)

    prefix = "openai_emulator"
    assert eventually(lambda: rise(f"{prefix}_faults_total") == len(KINDS))
    assert all(rise(f"{prefix}_faults_total", kind=kind) == 1 for kind in KINDS)
    assert one_worker.metrics().errors() == before.errors()
    assert eventually(lambda: rise(f"{prefix}_active_streams") == 0)
    complete = ["no-done", "malformed", "slice"]
    cut = ["error", "failed", "eof", "close", "reset", "stall"]
    assert rise(f"{prefix}_completions_total") == len(complete)
    assert rise(f"{prefix}_tokens_total") == 5 * len(complete) + 2 * len(cut)


def test_log_tells_the_failure(one_worker: Server) -> None:
    """The log line tells the kind and after how many tokens it came."""
    model = f"told-{uuid.uuid4()}"
    for kind in ("reset", "status"):
        asked = headers(output_length=30) | fail(kind, after_tokens=12)
        stream(one_worker, CHAT, asked, model=model)
    assert eventually(lambda: len(lines_of(one_worker, model)) == 2)
    cut, refused = lines_of(one_worker, model)
    assert "status=200 choices=1 tokens=12/30" in cut
    assert cut.endswith(" fault=reset@12")
    assert "status=500" in refused
    assert refused.endswith(" fault=status")


def lines_of(server: Server, model: str) -> list[str]:
    """Return the lines of the log about a model."""
    return [line for line in server.log().splitlines() if model in line]


def test_log_has_no_trouble_of_cuts(one_worker: Server) -> None:
    """Neither uvicorn nor we log an error for a connection that was cut on purpose."""
    before, model = len(one_worker.log()), f"cut-{uuid.uuid4()}"
    for kind in CUTS:
        stream(one_worker, CHAT, headers() | fail(kind, after_tokens=2), model=model)
        whole(one_worker, CHAT, headers() | fail(kind), model=model)
    assert eventually(lambda: len(lines_of(one_worker, model)) == 4)
    assert "ERROR" not in one_worker.log()[before:]


@pytest.mark.parametrize(("kind", "told"), [("malformed", "malformed@3"), ("error", "error@3")])
def test_report_tells_the_failure(one_worker: Server, kind: str, told: str) -> None:
    """A report that can still be sent has the failure."""
    asked = headers() | fail(kind, after_tokens=3) | {"X-EMULATION-REPORT": "true"}
    came = stream(one_worker, CHAT, asked)
    last = came.events[-1] if kind == "error" else came.events[-2]
    assert json.loads(last.removeprefix(b"data: "))["emulation"]["fault"] == told


# --------------------------------------------------------------------------------------
# Servers with other settings
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize(("kind", "end"), [("close", "FIN"), ("reset", "RST"), ("stall", "open")])
def test_connections_are_cut_behind_middleware(
    behind_middleware: Server, kind: str, end: str, is_stream: bool
) -> None:
    """Where middleware wraps the connection, close, reset and stall act on it all the same."""
    ask = stream if is_stream else whole
    came = ask(behind_middleware, CHAT, headers() | fail(kind, after_tokens=2))
    assert came.end == end
    assert "Traceback" not in behind_middleware.log()
    if is_stream:
        assert (came.tokens(CHAT), came.is_complete) == (2, False)


def test_connection_of_another_server_is_refused() -> None:
    """Where the server is not uvicorn, what needs the connection is refused, not ignored."""

    async def receive() -> dict[str, Any]:
        return {}

    with pytest.raises(NoConnectionError, match="uvicorn"):
        Connection.of({}, receive, 1)


def test_headers_can_be_refused(other_server: Server) -> None:
    """With fault_headers=false a header is a 400, and rules still hold."""
    refused = stream(other_server, CHAT, headers() | fail("eof"))
    ruled = stream(other_server, CHAT, headers(), model="gpt-4-busy")
    free = stream(other_server, CHAT, headers())
    assert (refused.status, ruled.status, free.status) == (400, 429, 200)
    assert json.loads(refused.body)["error"]["param"] == "X-FAULT-KIND"
    assert (ruled.headers["retry-after-ms"], ruled.headers["retry-after"]) == ("1500", "2")
    assert "gpt-4-busy" in json.loads(ruled.body)["error"]["message"]


LENGTH = {"X-OUTPUT-LENGTH": "6"}


@pytest.mark.parametrize("batch", ["1", "4"])
@pytest.mark.parametrize("kind", ["error", "eof", "close", "reset"])
@pytest.mark.parametrize("k", [0, 3, 99])
def test_engines_streams_fail(paper: Server, kind: str, k: int, batch: str) -> None:
    """Where an engine makes the times too, a stream fails after k tokens; it leaves the engine."""
    asked = LENGTH | {"X-SSE-BATCH-SIZE": batch}
    came = stream(paper, CHAT, asked | fail(kind, after_tokens=k))
    events = came.events[:-1] if kind == "error" else came.events
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert token_count(text, "cl100k_base") == min(k, 6)
    running = "vllm:num_requests_running"
    assert eventually(lambda: paper.metrics().total(running) == 0)


@pytest.mark.parametrize("kind", ["status", "eof", "close", "malformed", "slice"])
def test_engines_whole_answers_fail(paper: Server, kind: str) -> None:
    """Where an engine makes the times too, a whole answer fails, and leaves the engine."""
    came = whole(paper, CHAT, LENGTH | fail(kind))
    assert came.headers["x-fault-injected"] == kind
    assert came.status == (500 if kind == "status" else 200)
    assert (came.end, len(came.body) > 100) == ("FIN", True)
    running = "vllm:num_requests_running"
    assert eventually(lambda: paper.metrics().total(running) == 0)


def test_engines_report_is_json(paper: Server) -> None:
    """The report of an error in an engine's stream has null for what the engine had not reached."""
    asked = LENGTH | fail("error", after_tokens=2) | {"X-EMULATION-REPORT": "true"}
    last = stream(paper, CHAT, asked).events[-1].removeprefix(b"data: ")
    report = json.loads(last, parse_constant=pytest.fail)["emulation"]
    assert (report["fault"], report["total_ms"]["asked"]) == ("error@2", None)


def test_engine_foresees_no_time(paper: Server) -> None:
    """A failure at a time is refused where an engine makes the times, and is not with own ones."""
    refused = stream(paper, CHAT, LENGTH | fail("eof", after_ms=5))
    assert (refused.status, json.loads(refused.body)["error"]["param"]) == (400, "X-FAULT-AFTER-MS")
    assert stream(paper, CHAT, headers() | fail("eof", after_ms=5)).status == 200
    assert stream(paper, CHAT, LENGTH | fail("status", after_ms=5)).status == 500


def at_once(server: Server, asked: Mapping[str, str], *bodies: dict[str, Any]) -> list[int]:
    """Send requests for whole answers at once, and return the statuses."""
    answers = post_together(server.address, [Post(chat(**body), asked) for body in bodies])
    return [answer.status for answer in answers]


def test_attempts_of_a_key_are_counted_over_workers(two_workers: Server) -> None:
    """Of 200 requests at once with one key exactly 50 fail, whichever worker they meet."""
    asked = headers() | fail("status", attempts=50, key="one-call")
    statuses = at_once(two_workers, asked, *[{}] * 200)
    assert Counter(statuses) == {500: 50, 200: 150}
    other = whole(two_workers, CHAT, asked | {"X-FAULT-KEY": "another-call"})
    assert other.status == 500


def test_rules_count_attempts_too(two_workers: Server) -> None:
    """A rule's attempts are those of all its requests, where no SDK numbers them."""
    statuses = at_once(two_workers, headers(), *[{"model": "twice"}] * 20)
    assert Counter(statuses) == {503: 2, 200: 18}


def test_rules_decide_without_headers(two_workers: Server) -> None:
    """A request without X-FAULT-* headers gets the first rule that matches; others pass."""
    flaky = [stream(two_workers, CHAT, headers(), model="a-flaky", seed=i) for i in range(12)]
    assert {came.headers["x-fault-injected"] for came in flaky} == {"error"}
    assert {came.tokens(CHAT) for came in flaky} == {1, 2, 3}
    assert whole(two_workers, CHAT, headers(), model="a-flaky").status == 200


def test_headers_come_before_rules(two_workers: Server) -> None:
    """A request's own headers decide, also where they decide that nothing fails."""
    asked = headers() | fail("eof", probability=0)
    came = stream(two_workers, CHAT, asked, model="a-flaky")
    assert came.is_complete
    assert "x-fault-injected" not in came.headers
    assert came.tokens(CHAT) == 5


def test_chance_is_the_seeds(two_workers: Server) -> None:
    """The same seeded requests fail each time, on whichever worker, and about as many as asked."""
    asked = headers(output_length=1) | fail("status", probability=0.5)

    seeds = [{"seed": seed} for seed in range(200)]
    first, again = (at_once(two_workers, asked, *seeds) for _ in range(2))
    assert again == first
    assert abs(first.count(500) - 100) < 3 * (200 * 0.25) ** 0.5
