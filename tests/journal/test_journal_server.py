"""The journal of a real server of two workers, over HTTP."""

import os
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest

from tests.control.conftest import Controller
from tests.support.raw import ended, request
from tests.support.server import PLAIN, Server, args, eventually, running_server
from tests.support.wire import CHAT_PATH, Post, chat, headers, post_together, unread


def send(server: Server, /, *, extra: dict[str, str] | None = None, **body: Any) -> Any:  # noqa: ANN401
    """Return the answer to a chat, on a connection of its own."""
    return PLAIN.post(f"{server.url}{CHAT_PATH}", json=chat(**body), headers=extra)


def page(control: Controller, **query: object) -> dict[str, Any]:
    """Return a page of the journal."""
    return control.done("GET", f"/requests?{urlencode(query)}")


def rows(control: Controller, **query: object) -> list[dict[str, Any]]:
    """Return the requests of a page."""
    found: list[dict[str, Any]] = page(control, **query)["requests"]
    return found


def seen(control: Controller, count: int, **query: object) -> list[dict[str, Any]]:
    """Return the requests of a page as soon as there are so many; a row follows its answer."""
    assert eventually(lambda: len(rows(control, **query)) >= count, 10)
    return rows(control, **query)


def memory_of(server: Server) -> list[Path]:
    """Return the memory files of the journal, which the server's first process holds."""
    assert server.process is not None
    each = [server.process.pid, *(c.pid for c in psutil.Process(server.process.pid).children())]
    files = [file for pid in each for file in Path(f"/proc/{pid}/fd").iterdir()]
    return [file for file in files if "openai_emulator_journal" in os.readlink(file)]


# --------------------------------------------------------------------------------------
# What is in it
# --------------------------------------------------------------------------------------


def test_requests_of_both_workers_are_told_by_any(control: Controller) -> None:
    """Rows of both workers come in the order in which they ended, whoever is asked."""
    for worker in control.server.workers:
        with control.server.alone(worker):
            for number in range(5):
                send(control.server, model=f"m{number}")
    found = seen(control, 10)
    assert {row["worker"] for row in found} == {1, 2}
    assert [row["model"] for row in found] == [f"m{n}" for n in range(5)] * 2
    assert [row["ended_at"] for row in found] == sorted(row["ended_at"] for row in found)
    for _ in range(10):
        assert rows(control) == found


def test_a_row_is_the_request(control: Controller) -> None:
    """A stream's row has its ids, its times, who decided, and the instants of its tokens."""
    extra = headers(30, 10, 4)
    answer = send(control.server, extra=extra, stream=True, stream_options={"include_usage": True})
    [row] = seen(control, 1)
    entry = control.done("GET", f"/requests/{answer.headers['x-request-id']}")
    assert entry == row | {"tokens": entry["tokens"], "body": None}
    assert entry == control.done("GET", f"/requests/{row['answer_id']}")
    assert row["answer_id"] in answer.text
    assert (row["status"], row["stream"], row["tokens_out"], row["code"]) == (200, True, 4, "")
    assert row["tokens_in"] == 9
    assert (row["ttft"]["asked_ms"], row["itl"]["asked_ms"], row["total"]["asked_ms"]) == (
        *(30, 10),
        60,
    )
    assert row["decided"]["ttft_ms"] == "header X-TTFT-MS"
    assert [token["due_ms"] for token in entry["tokens"]] == [30, 40, 50, 60]
    assert all(token["left_ms"] >= token["due_ms"] for token in entry["tokens"])
    assert row["ttft"]["actual_ms"] == entry["tokens"][0]["left_ms"]
    worst = max(token["left_ms"] - token["due_ms"] for token in entry["tokens"])
    assert row["worst_lag_ms"] == pytest.approx(worst, abs=0.002)


@pytest.mark.parametrize("stream", [True, False])
def test_times_that_were_drawn(control: Controller, *, stream: bool) -> None:
    """A request with jitter has a row too, with the due times that were drawn."""
    extra = headers(5, 5, 3) | {"X-ITL-JITTER": "normal:0.3"}
    answer = send(control.server, extra=extra, stream=stream, seed=1)
    [row] = seen(control, 1)
    entry = control.done("GET", f"/requests/{answer.headers['x-request-id']}")
    assert row["total"]["asked_ms"] != 15
    if stream:
        assert entry["tokens"][-1]["due_ms"] == row["total"]["asked_ms"]
    else:
        assert entry["tokens"] == []


def test_other_ends_have_rows(control: Controller) -> None:
    """Refusals, failures on purpose, look-ups and wrong paths of the API have their row."""
    url = control.server.url
    send(control.server, temperature=9)
    send(control.server, extra={"X-FAULT-KIND": "status", "X-FAULT-STATUS": "503"})
    PLAIN.get(f"{url}/v1/models/gpt-4")
    PLAIN.post(f"{url}/tokenize", json={"prompt": "a"})
    PLAIN.post(f"{url}/v1/embeddings", json={"input": "a", "model": "text-embedding-3-small"})
    PLAIN.get(f"{url}/v1/completions")
    PLAIN.get(f"{url}/health")
    PLAIN.get(f"{url}/metrics")
    found = [
        (row["method"], row["path"], row["status"], row["code"], row["fault"])
        for row in seen(control, 6)
    ]
    assert found == [
        ("POST", CHAT_PATH, 400, "decimal_above_max_value", ""),
        ("POST", CHAT_PATH, 503, "", "status"),
        ("GET", "/v1/models/gpt-4", 200, "", ""),
        ("POST", "/tokenize", 200, "", ""),
        ("POST", "/v1/embeddings", 200, "", ""),
        ("GET", "/v1/completions", 405, "method_not_supported", ""),
    ]


def test_a_client_that_leaves(control: Controller) -> None:
    """A stream whose client leaves has 499, and the tokens that it got."""
    with unread(control.server.address, [Post(chat(stream=True), headers(0, 20, 500))]):
        assert eventually(lambda: control.server.metrics().total(STREAMS) == 1, 10)
    [row] = seen(control, 1)
    assert (row["status"], row["client_left"]) == (499, True)
    assert 0 <= row["tokens_out"] < 500


STREAMS = "openai_emulator_active_streams"


def test_rules_are_told_and_counted(control: Controller) -> None:
    """A row names the rules that decided; GET /emulator says how often each has matched."""
    control.put_rules(
        {"name": "slow", "match": {"model": "slow"}, "ttft_ms": 3},
        {"name": "never", "match": {"model": "never"}, "fault": {"status": 500}},
    )
    for _ in range(3):
        send(control.server, model="slow")
    found = seen(control, 3, rule="slow")
    assert {row["decided"]["ttft_ms"] for row in found} == {"rule slow.ttft_ms"}
    assert control.status["matched"] == {"slow": 3, "never": 0}
    control.reset("counts")
    assert control.status["matched"] == {"slow": 0, "never": 0}


def test_no_key_stands_in_the_memory(control: Controller) -> None:
    """The whole of what the workers share has no byte of a key, whatever became of the request."""
    secret = "sk-a-very-secret-key"  # noqa: S105 - a test's
    for extra in ({}, {"X-TTFT-MS": "bad"}):
        send(control.server, extra={"Authorization": f"Bearer {secret}", **extra})
    seen(control, 2)
    files = memory_of(control.server)
    assert files
    content = files[0].read_bytes()
    assert content.count(CHAT_PATH.encode()) >= 2
    assert secret.encode() not in content
    assert b"very-secret" not in content
    assert b"Hello!" not in content  # nor what was said


# --------------------------------------------------------------------------------------
# Pages, filters, reset
# --------------------------------------------------------------------------------------


def test_pages_leave_nothing_out_and_tell_nothing_twice(control: Controller) -> None:
    """Page after page every request comes once, and the last page goes on with what is new."""
    posts = [Post(chat(model=f"m{number}"), {}) for number in range(60)]
    post_together(control.server.address, posts)
    seen(control, 60)
    found, after = [], "0"
    while True:
        got = page(control, after=after, limit=7)
        after = got["next"]
        if not got["requests"]:
            break
        assert len(got["requests"]) <= 7
        found += [row["model"] for row in got["requests"]]
    assert sorted(found) == sorted(f"m{number}" for number in range(60))

    send(control.server, model="new")
    assert eventually(lambda: len(rows(control, after=after)) == 1, 10)
    newest = page(control, limit=5)
    assert [row["model"] for row in newest["requests"]][-1] == "new"
    assert page(control, after=newest["next"])["requests"] == []
    assert len(rows(control, after="9999999.9999999")) == 61  # of a server before this one


def test_filters(control: Controller) -> None:
    """Each filter tells those that fit."""
    send(control.server, model="one", extra={"X-EMULATION-SCOPE": "mine"})
    send(control.server, model="one", extra={"Authorization": "Bearer sk-scope-yours"})
    send(control.server, model="other", temperature=9)
    seen(control, 3)
    assert [row["scope"] for row in rows(control, model="one")] == ["mine", "yours"]
    assert [row["model"] for row in rows(control, scope="mine")] == ["one"]
    assert [row["model"] for row in rows(control, status="4xx")] == ["other"]
    assert rows(control, path="/v1/embeddings") == []
    assert len(rows(control, path="/v1/*", limit=2)) == 2
    for query in ({"status": "bad"}, {"limit": 0}, {"after": "1.2.3.4"}, {"nothing": 1}):
        answer = control.ask("GET", f"/requests?{urlencode(query)}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(query)))
    assert control.ask("GET", "/requests/req_0").status_code == 404


def test_reset_of_one_scope_leaves_the_others(control: Controller) -> None:
    """A reset empties the journal of a scope, or of everybody."""
    for scope in ("a", "b"):
        send(control.server, extra={"X-EMULATION-SCOPE": scope})
    seen(control, 2)
    control.done("POST", "/reset", {"what": ["journal"], "scope": "a"})
    assert [row["scope"] for row in rows(control)] == ["b"]
    control.reset("journal")
    assert rows(control) == []


def test_marks(control: Controller) -> None:
    """A mark is in the journal of every worker, and in the log; bad ones are refused."""
    mark = control.done("POST", "/marks", {"text": "the fault\nis on"})
    for _ in range(6):
        assert page(control)["marks"][-1] == mark
    assert r'mark text="the fault\nis on"' in control.server.log()
    for body in ({}, {"text": ""}, {"text": "x" * 201}, {"text": 1}, {"text": "a", "more": 1}):
        assert control.ask("POST", "/marks", body).status_code == 400
    control.done("PUT", "/schedule", {"steps": [{"at_s": 0, "mark": "by the schedule"}]})
    assert eventually(lambda: page(control)["marks"][-1]["text"] == "by the schedule", 10)


def test_strangers_see_no_rows(control: Controller) -> None:
    """The journal and marks are guarded as all control is."""
    forwarded = {"X-Forwarded-For": "10.0.0.1", "Content-Type": "application/json"}
    for method, path in (("GET", "/requests"), ("GET", "/requests/req_1"), ("POST", "/marks")):
        url = f"{control.server.url}/emulator{path}"
        answer = PLAIN.request(method, url, headers=forwarded, content="{}")
        assert answer.status_code == 403


# --------------------------------------------------------------------------------------
# Other servers
# --------------------------------------------------------------------------------------


def test_rows_of_a_killed_worker_stay(control: Controller) -> None:
    """After kill -9 its rows are told, and those of its successor come after them."""
    server = control.server
    for worker in server.workers:
        with server.alone(worker):
            send(server, model=f"of {worker.pid}")
    before = seen(control, 2)
    pids = control.status["workers"]["pids"]
    os.kill(pids[0], signal.SIGKILL)
    assert eventually(lambda: pids[0] not in control.status["workers"]["pids"], 30)
    assert rows(control) == before
    assert eventually(lambda: control.status["workers"]["count"] == 2, 30)
    for worker in server.workers:
        with server.alone(worker):
            send(server, model="later")
    after = seen(control, 4)
    assert after[:2] == before
    assert {row["worker"] for row in after[2:]} == {1, 2}


def test_bodies_are_kept_on_request(local_only: None) -> None:  # noqa: ARG001 - skips
    """With journal_bodies the beginning of a body is told, with no key in it."""
    secret = "sk-another-secret"  # noqa: S105 - a test's
    with running_server(*args(workers=1, ttft_ms=0, itl_ms=0, journal_bodies=True)) as server:
        control = Controller(server)
        text = f"{secret} " + "word " * 100_000
        for said in ("short", text):
            body = chat(said)
            PLAIN.post(f"{server.url}{CHAT_PATH}", json=body, headers={"Authorization": secret})
            PLAIN.post(
                f"{server.url}{CHAT_PATH}",
                json=body,
                headers={"Authorization": f"Bearer {secret}"},
            )
        found = seen(control, 4)
        short, _, _, long = (control.done("GET", f"/requests/{row['id']}") for row in found)
        assert '"short"' in short["body"]
        assert long["bytes_in"] > 500_000
        assert 60_000 < len(long["body"]) <= 65_536
        assert "*** word word" in long["body"]


def test_no_journal(local_only: None) -> None:  # noqa: ARG001 - skips
    """With journal=0 there is none, and nothing is kept; marks are there."""
    with running_server(*args(workers=1, ttft_ms=0, itl_ms=0, journal=0)) as server:
        control = Controller(server)
        send(server, stream=True)
        for path in ("/requests", "/requests/req_1"):
            answer = control.ask("GET", path)
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "journal_is_off"
        assert control.done("POST", "/marks", {"text": "on"})["text"] == "on"
        assert CHAT_PATH.encode() not in b"".join(f.read_bytes() for f in memory_of(server)[:1])


def test_a_hostile_path_is_told_as_json(control: Controller) -> None:
    """A request whose path has broken UTF-8 and control characters has a row that is JSON."""
    path = "/v1/models/%ff%00%1b%ed%a0%80%E2%80%A8"
    ended(control.server.address, request("GET", path))
    [row] = seen(control, 1)
    assert row["path"].startswith("/v1/models/")
