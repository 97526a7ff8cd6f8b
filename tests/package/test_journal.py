"""What the clients tell of the requests that came."""

import asyncio
import re
from dataclasses import fields
from typing import Any

import openai
import pytest

from emulator.journal import bodies
from openai_api_emulator import AsyncEmulator, Emulator, EmulatorError, Scope, journal
from openai_api_emulator.calls import Call
from tests.support.server import PLAIN

HELLO: dict[str, Any] = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}


def ask(scope: Scope, model: str = "gpt-4") -> str:
    """Send a request of a scope, and return its id."""
    client = scope.openai(max_retries=0)
    answer = client.chat.completions.create(**{**HELLO, "model": model})
    return str(answer._request_id)


@pytest.mark.parametrize(
    ("own", "theirs"),
    [
        (journal.JournalRow, bodies.JournalRow),
        (journal.JournalEntry, bodies.JournalEntry),
        (journal.Times, bodies.Times),
        (journal.TokenInstant, bodies.TokenInstant),
    ],
)
def test_rows_have_all_fields(own: Any, theirs: Any) -> None:  # noqa: ANN401 - two kinds of classes
    """What the client tells of a request has every field of the API's answer."""
    assert {each.name for each in fields(own)} == set(theirs.model_fields)


def test_requests_of_a_scope_are_its_own(emulator: Emulator) -> None:
    """A scope tells its own requests, the newest last, by what they were."""
    with emulator.scope() as one, emulator.scope() as other:
        one.rules.put("busy", match={"model": "gpt-3.5-turbo"}, fault={"status": 418})
        first, second = ask(one), ask(one)
        ask(other)
        with pytest.raises(openai.APIStatusError):
            ask(one, "gpt-3.5-turbo")
        one.assert_requests(3)
        assert [row.id for row in one.requests(model="gpt-4")] == [first, second]
        [failed] = one.assert_requests(1, status="4xx", path="/v1/chat/*")
        assert (failed.status, failed.model) == (418, "gpt-3.5-turbo")
        assert one.requests(rule=one.named("busy")) == [failed]
        other.assert_requests(1)


def test_entry_has_the_instants_of_tokens(emulator: Emulator) -> None:
    """One request is told with the instants at which its tokens were due and left."""
    with emulator.scope() as scope, scope.override(ttft_ms=20, itl_ms=3, output_length=4):
        assert list(scope.openai().chat.completions.create(**HELLO, stream=True))
        [row] = scope.assert_requests(1)
        entry = emulator.request(row.id)
    assert (entry.id, entry.stream, entry.tokens_out) == (row.id, True, 4)
    assert [token.due_ms for token in entry.tokens] == [20, 23, 26, 29]
    assert all(token.left_ms is None or token.left_ms >= token.due_ms for token in entry.tokens)
    with pytest.raises(EmulatorError) as caught:
        emulator.request("req_none")
    assert (caught.value.status, caught.value.code) == (404, "request_not_found")


def test_other_number_of_requests_is_told(emulator: Emulator) -> None:
    """If other requests came, the assertion tells how many, and shows all of the scope."""
    with emulator.scope() as scope:
        ask(scope)
        ask(scope, "gpt-3.5-turbo")
        with pytest.raises(AssertionError) as caught:
            scope.assert_requests(2, model="gpt-4", within_s=0)
        with pytest.raises(AssertionError, match=r"expected 1 request with scope=.*, but 2 came"):
            scope.assert_requests(1)
    told = str(caught.value)
    assert told.startswith("expected 2 requests with model='gpt-4', scope=")
    assert "but 1 came; all that came:\n" in told
    assert re.findall(r"POST /v1/chat/completions (\S+): 200", told) == ["gpt-4", "gpt-3.5-turbo"]


def test_assertion_waits_for_what_is_under_way(emulator: Emulator) -> None:
    """A request that has not ended yet is waited for."""
    with emulator.scope() as scope, scope.override(ttft_ms=400):
        with pytest.raises(openai.APITimeoutError):
            scope.openai(timeout=0.05, max_retries=0).chat.completions.create(**HELLO)
        [row] = scope.assert_requests(1, within_s=30)
    assert row.client_left
    assert "client left" in str(row)


def test_all_pages_are_read(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """All requests are told, also where they are more than a page holds."""
    monkeypatch.setattr(journal, "ROWS_OF_A_PAGE", 3)
    with emulator.scope() as scope:
        client = scope.openai()
        asked = [client.chat.completions.create(**HELLO)._request_id for _ in range(7)]
        assert [row.id for row in scope.assert_requests(7)] == asked


def test_long_table_is_cut() -> None:
    """A table shows the last rows, and says how many came before them."""
    row = journal.JournalRow.of(ROW)
    lines = journal.table([row] * (journal.MOST_SHOWN + 2)).splitlines()
    assert lines[0] == "  (2 more before)"
    assert len(lines) == 1 + journal.MOST_SHOWN
    assert journal.table([]) == "  (none)"
    assert lines[1] == (
        "  POST /v1/responses gpt-4: 429, rate_limited, stop, 3 tokens, stream, client left, "
        "fault reset@2, rules a, b, 12.3 ms"
    )


NO_TIME = {"asked_ms": None, "actual_ms": None}
ROW: dict[str, Any] = {
    **{each.name: "" for each in fields(journal.JournalRow)},
    "method": "POST",
    "path": "/v1/responses",
    "model": "gpt-4",
    "status": 429,
    "code": "rate_limited",
    "finish_reason": "stop",
    "tokens_out": 3,
    "stream": True,
    "client_left": True,
    "fault": "reset@2",
    "rules": ["a", "b"],
    "ttft": NO_TIME,
    "itl": NO_TIME,
    "total": {"asked_ms": 1, "actual_ms": 12.34},
    "of_a_later_version": 1,
}


def test_mark_is_written(emulator: Emulator) -> None:
    """A mark stands in the journal."""
    emulator.mark("now the fault is on")
    marks = emulator.send(Call("GET", "/emulator/requests", lambda answer: answer["marks"]))
    assert marks[-1]["text"] == "now the fault is on"


def test_reset_hides_what_came(emulator: Emulator) -> None:
    """After a reset a scope has no requests, and others have theirs."""
    with emulator.scope() as one, emulator.scope() as other:
        ask(one)
        ask(other)
        one.assert_requests(1)
        one.reset()
        one.assert_requests(0)
        other.assert_requests(1)


def test_asynchronous_client_tells_the_same(emulator: Emulator) -> None:
    """With await the client and its scopes tell the same of requests."""

    async def tell(scope: Scope) -> None:
        async with AsyncEmulator(emulator.url) as client, client.scope(scope.id) as same:
            [row] = await same.assert_requests(1, model="gpt-4")
            assert [row] == scope.requests() == await client.requests(scope=scope.id)
            assert await client.request(row.id) == emulator.request(row.id)
            await client.mark("seen")
            with pytest.raises(AssertionError, match="expected 0 requests with scope="):
                await same.assert_requests(0)
            await same.reset("journal")
            assert await same.requests() == []

    with emulator.scope() as scope:
        ask(scope)
        asyncio.run(tell(scope))


def test_what_refused_requests_were_is_told(emulator: Emulator) -> None:
    """A request that was refused before its body was understood is one of its scope too."""
    with emulator.scope() as scope:
        PLAIN.post(f"{scope.base_url}/chat/completions", content=b"{", headers=scope.headers)
        [row] = scope.assert_requests(1)
    assert (row.status, row.model, row.stream) == (400, "", None)
