"""Rows of the journal: what is kept of a request, and never kept, and which are found."""

import base64
import sys
import time
from collections.abc import Sequence

import pytest

from emulator.contract.errors import APIError
from emulator.emulation.asked import Asked
from emulator.journal.journal import Journal, body_without_key
from emulator.journal.reading import MAX_LIMIT, cursor, read
from emulator.journal.ring import ROOM, Ring, Sizes
from emulator.journal.rows import MAX_TEXT, Record, instants, journal_row, scope_of
from emulator.limits.resets import Resets
from emulator.settings import Settings
from emulator.state import State
from emulator.timing.pace import LEFT_KEPT, Pace
from emulator.timing.plan import GenerationPlan
from emulator.transport.ending import Ending
from emulator.transport.exchange import Exchange
from schemas import EmulationHeaders
from tests.timing.test_pace import nothing

SIZES = Sizes(arena=100_000, rows=16)
KEY = b"sk-scope-mine"


def exchange(
    model: str = "gpt-4", status: int = 200, key: bytes = b"", version: int = 0, path: str = "/v1"
) -> Exchange:
    """Return a request that has ended."""
    given = [(b"authorization", b"Bearer " + key)] if key else []
    scope = {"type": "http", "method": "POST", "path": path, "headers": given}
    made = Exchange(scope, nothing, State(Settings(), version=version))
    made.model, made.status, made.ended_s = model, status, time.monotonic()
    return made


def journal(rings: int = 1) -> Journal:
    """Return an empty journal."""
    return Journal([Ring(None, sizes=SIZES) for _ in range(rings)], 0)


def models(found: Sequence[object]) -> list[str]:
    """Return the models of requests that were found."""
    return [each.record.model for each in found]  # type: ignore[attr-defined]


def streamed(pace: Pace) -> Ending:
    """Return how a stream ended that left at a pace."""
    return Ending(
        kind="completion",
        id="chatcmpl-1",
        is_stream=True,
        tokens=3,
        is_complete=True,
        total_s=(1, 1.5),
        pace=pace,
    )


# --------------------------------------------------------------------------------------
# What is kept
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "scope"),
    [
        (b"Bearer sk-scope-mine", "mine"),
        (b"bearer sk-scope-mine", "mine"),
        (b"Basic " + base64.b64encode(b":sk-scope-mine"), "mine"),
        (b"Bearer sk-other-sk-scope-mine", ""),
        (b"Bearer sk-other", ""),
        (b"", ""),
    ],
)
def test_the_scope_is_the_one_that_rules_see(given: bytes, scope: str) -> None:
    """A key names a scope where it begins so, in any form that keys are taken in."""
    came = exchange()
    came.fields[b"authorization"] = given
    assert scope_of(came) == scope


def test_a_row_tells_what_was_asked_and_what_was() -> None:
    """Times are told in ms, asked beside actual, and who said each value."""
    kept, came = journal(), exchange(key=KEY, version=3)
    came.asked = Asked(
        EmulationHeaders(**{"X-TTFT-MS": "5", "X-ITL-MS": "2", "X-OUTPUT-LENGTH": "3"}),
        None,
        {"X-ITL-MS": "emulation.itl_ms", "X-OUTPUT-LENGTH": "rules.slow.output_length"},
    )
    came.rules, came.size, came.request_id = ("slow",), 77, 10
    ending = Ending(
        kind="completion",
        id="chatcmpl-1",
        is_stream=True,
        finish_reasons=["length"],
        tokens_in=9,
        tokens=3,
        all_tokens=3,
        is_complete=True,
        ttft_s=(0.005, 0.006),
        itl_s=(0.002, 0.0021),
        total_s=(0.009, 0.0101),
        worst_lag_s=0.001,
        fault="reset@2",
    )
    kept.write(came, ending)

    [found] = kept.latest()
    row = journal_row(found.record, found.worker)
    assert (row.id, row.answer_id) == (f"req_{10:032x}", "chatcmpl-1")
    assert (row.worker, row.revision, row.scope, row.key) == (1, 3, "mine", "")
    assert (row.ttft.asked_ms, row.ttft.actual_ms) == (5, 6)
    assert (row.itl.asked_ms, row.itl.actual_ms) == (2, 2.1)
    assert (row.total.asked_ms, row.total.actual_ms) == (9, 10.1)
    assert (row.tokens_in, row.tokens_out, row.finish_reason) == (9, 3, "length")
    assert (row.fault, row.rules, row.bytes_in, row.worst_lag_ms) == ("reset@2", ["slow"], 77, 1)
    assert row.decided == {
        "ttft_ms": "header X-TTFT-MS",
        "itl_ms": "body emulation.itl_ms",
        "output_length": "rule slow.output_length",
    }


def test_a_refused_request_has_a_row() -> None:
    """A request without an answer has its status, and no times but its own."""
    kept, came = journal(), exchange(status=400)
    came.code = "invalid_value"
    kept.write(came, None)
    row = journal_row(kept.latest()[0].record, 1)
    assert (row.status, row.code, row.stream, row.tokens_out) == (400, "invalid_value", None, 0)
    assert row.ttft.asked_ms is None
    assert row.total.actual_ms is not None


@pytest.mark.parametrize("letter", ["x", "\U0001f600", "\ud800"])
def test_whatever_a_client_sends_fits_into_a_row(letter: str) -> None:
    """Texts are clipped, and harder where all of them together have no room."""
    kept, came = journal(), exchange(model=letter * 10_000, path=letter * 10_000, status=200)
    came.code = letter * 10_000
    came.rules = [letter * 100] * 100
    kept.write(came, None)
    record = kept.latest()[0].record
    assert record.status == 200
    assert 16 <= len(record.model) <= MAX_TEXT
    assert journal_row(record, 1).model_dump_json()
    assert ROOM < 1024


def test_no_key_is_kept() -> None:
    """Neither the header nor the body, where it is kept, has the key in the memory."""
    kept, came = journal(), exchange(key=b"sk-very-secret")
    came.body = b'{"api_key": "sk-very-secret"}'
    assert body_without_key(came) == b'{"api_key": "***"}'
    kept.write(came, None)
    assert kept.rings[0]._memory.find(b"very-secret") == -1
    assert kept.rings[0]._memory.find(b"api_key") > 0
    assert kept.details(kept.latest()[0]) == (b"", b'{"api_key": "***"}')


# --------------------------------------------------------------------------------------
# Instants
# --------------------------------------------------------------------------------------


def pace(plan: GenerationPlan, **more: bool) -> Pace:
    """Return what keeps the instants of a stream from second 100 on."""
    return Pace(plan, 100.0, plan.sse_batch_size, keep_gaps=False, keep_left=True, **more)


def told(paced: Pace) -> list[tuple[float, float | None]]:
    """Return what the journal tells of a stream's instants."""
    kept, came = journal(), exchange()
    came.start_s = 100.0
    kept.write(came, streamed(paced))
    [found] = kept.latest()
    tokens = instants(found.record, kept.details(found)[0])
    return [(token.due_ms, token.left_ms) for token in tokens]


def test_instants_of_noted_and_of_marked_events() -> None:
    """Each event has when it was due and when it left, whether it left alone or with others."""
    paced = pace(GenerationPlan(5, "stop", 0.5, 0.1))
    paced.note(100.5)
    paced.note(100.625)
    paced.mark(100.75, 2)
    paced.note(101.0)
    paced.settle()
    assert told(paced) == [(500, 500), (600, 625), (700, 750), (800, 750), (900, 1000)]


def test_text_that_is_held_back_has_not_left() -> None:
    """An event whose text left with a later one has no instant."""
    paced = pace(GenerationPlan(3, "stop", 0.5, 0.1))
    paced.mark(100.5, 2, [1])
    assert told(paced) == [(500, None), (600, 500)]


def test_due_times_that_were_drawn() -> None:
    """Due times that are not regular are kept."""
    plan = GenerationPlan(3, "stop", 0.5, 0.1).timed_at([0.25, 0.5, 1.0])
    paced = pace(plan)
    for left_s in (100.25, 100.5, 101.0):
        paced.note(left_s)
    paced.settle()
    assert told(paced) == [(250, 250), (500, 500), (1000, 1000)]


@pytest.mark.parametrize("step", [1, 7, 128, 600])
def test_the_first_instants_alone_are_kept(step: int) -> None:
    """Of a long stream 512 instants are kept, however often they are settled."""
    paced = pace(GenerationPlan(2000, "stop", 0, 0.001))
    for event in range(1000):
        paced.note(100 + event / 1000)
        if event % step == 0:
            paced.settle()
    paced.settle()
    assert paced.left_s is not None
    assert [*paced.left_s] == [100 + event / 1000 for event in range(LEFT_KEPT)]


# --------------------------------------------------------------------------------------
# What is asked for
# --------------------------------------------------------------------------------------


def test_rings_are_merged_by_time() -> None:
    """Requests of all workers come in the order in which they ended."""
    both = journal(2)
    for number in range(6):
        Journal(both.rings, number % 2).write(exchange(model=f"m{number}"), None)
    assert models(both.latest()) == [f"m{number}" for number in range(6)]
    assert [found.worker for found in both.latest()] == [1, 2] * 3
    assert models([*both.after([1, 3])]) == ["m2", "m4"]
    assert both.end() == [3, 3]


def test_the_newest_come_first_where_few_are_wanted() -> None:
    """The newest are told without a look at all others, and no more than a ring keeps."""
    both = journal(2)
    for number in range(50):
        Journal(both.rings, number % 2).write(exchange(model=f"m{number}"), None)
    newest = both.newest()
    assert [next(newest).record.model for _ in range(3)] == ["m49", "m48", "m47"]
    assert models(both.latest()) == [f"m{number}" for number in range(50 - 2 * 16, 50)]


def test_a_reset_hides_what_came_before_it() -> None:
    """Requests under an earlier revision are told no more: of all, or of one scope."""
    kept = journal()
    for version in (1, 2, 3):
        kept.write(exchange(model=f"m{version}", key=KEY, version=version), None)
        kept.write(exchange(model=f"other{version}", version=version), None)
    assert models(kept.latest(Resets(3))) == ["m3", "other3"]
    assert models(kept.latest(Resets(0, {"mine": 3}))) == ["other1", "other2", "m3", "other3"]


def test_one_is_found_by_either_id() -> None:
    """A request is found by the id of its head and by that of its answer, the last of several."""
    kept, came = journal(), exchange(model="one")
    came.request_id = 5
    kept.write(came, streamed(pace(GenerationPlan(1, "stop", 0, 0))))
    kept.write(exchange(model="two"), streamed(pace(GenerationPlan(1, "stop", 0, 0))))
    by_head, by_answer = kept.find(f"req_{5:032x}"), kept.find("chatcmpl-1")
    assert by_head is not None
    assert by_answer is not None
    assert (by_head.record.model, by_answer.record.model) == ("one", "two")
    assert kept.find("none") is None
    assert kept.find("") is None


def record(**given: object) -> Record:
    """Return what is kept of a request."""
    kept = journal()
    kept.write(exchange(), None)
    return kept.latest()[0].record._replace(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("query", "fitting", "other"),
    [
        ({"model": "gpt-4"}, {"model": "gpt-4"}, {"model": "gpt-4o"}),
        ({"model": "gpt-4*"}, {"model": "gpt-4o"}, {"model": "gpt-3"}),
        ({"path": "/v1/chat/*"}, {"path": "/v1/chat/completions"}, {"path": "/v1/embeddings"}),
        ({"status": "429"}, {"status": 429}, {"status": 400}),
        ({"status": "4xx"}, {"status": 429}, {"status": 503}),
        ({"scope": "a"}, {"scope": "a"}, {"scope": "ab"}),
        ({"scope": ""}, {"scope": ""}, {"scope": "a"}),
        ({"rule": "slow"}, {"rules": ("busy", "slow")}, {"rules": ("busy",)}),
    ],
)
def test_filters(
    query: dict[str, str], fitting: dict[str, object], other: dict[str, object]
) -> None:
    """Each filter lets those pass that fit, and no others."""
    fits = read(query, 1).fits
    assert fits(record(**fitting))
    assert not fits(record(**other))


def test_cursor_says_where_the_next_page_begins() -> None:
    """A cursor holds the place in each ring; 0 is the oldest of all."""
    assert read({"after": cursor([3, 14])}, 2).positions == [3, 14]
    assert read({"after": "0"}, 2).positions == [0, 0]
    assert read({}, 2).positions is None


@pytest.mark.parametrize(
    "query",
    [
        {"after": "1.2.3"},
        {"after": ""},
        {"after": "x.1"},
        {"after": "-1.0"},
        {"after": "9" * 30 + ".1"},
        {"limit": "0"},
        {"limit": str(MAX_LIMIT + 1)},
        {"limit": "many"},
        {"status": "ok"},
        {"status": "999"},
    ],
    ids=str,
)
def test_a_bad_query_is_refused_by_name(query: dict[str, str]) -> None:
    """What is no good is a 400 that names the parameter."""
    with pytest.raises(APIError, match="expected") as refused:
        read(query, 2)
    assert refused.value.body.param == next(iter(query))
    assert sys.getsizeof(refused.value.body.message) < 1000
