"""The summary of each second of a real server of two workers, over HTTP."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx

from emulator.journal.bodies import Summary
from tests.control.conftest import Controller
from tests.support.raw import request
from tests.support.server import PLAIN, Server, args, eventually, running_server
from tests.support.wire import CHAT_PATH, Post, chat, headers, post_together

EVENTS = "/emulator/events"


class Watcher:
    """One who looks: the summaries that came, until it leaves."""

    def __init__(self, server: Server, **extra: str) -> None:
        self.summaries: list[Summary] = []
        self.has_ended = False
        self._url, self._extra = f"{server.url}{EVENTS}", extra
        self._leaves = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        timeout = httpx.Timeout(10, read=20)
        with httpx.stream("GET", self._url, headers=self._extra, timeout=timeout) as answer:
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    self.summaries.append(Summary.model_validate_json(line.removeprefix("data: ")))
                if self._leaves.is_set():
                    return
        self.has_ended = True

    def sum(self, name: str) -> int:
        """Return the sum of a count over all seconds."""
        return sum(getattr(each, name) for each in self.summaries)

    @property
    def statuses(self) -> dict[str, int]:
        """The requests by status, over all seconds."""
        found: dict[str, int] = {}
        for each in self.summaries:
            for status, count in each.requests.items():
                found[status] = found.get(status, 0) + count
        return found

    def leave(self) -> None:
        """Go away, with the next event."""
        self._leaves.set()

    def wait(self) -> None:
        """Return when it is gone."""
        self._thread.join()


@contextmanager
def watching(server: Server, count: int = 1) -> Iterator[list[Watcher]]:
    """Look from several connections while the body runs, from their first summaries on."""
    watchers = [Watcher(server) for _ in range(count)]
    try:
        assert eventually(lambda: all(len(each.summaries) > 1 for each in watchers), 20)
        yield watchers
    finally:
        for each in watchers:
            each.leave()
        for each in watchers:
            each.wait()


def test_seconds_add_up_to_what_was_sent(control: Controller) -> None:
    """Over all workers and seconds every request and every token is counted once."""
    control.put_rules({"name": "busy", "match": {"model": "busy"}, "fault": {"status": 503}})
    server = control.server
    posts = [Post(chat(stream=True, model=f"m{n % 3}"), headers(20, 20, 50)) for n in range(30)]
    with watching(server) as [watcher]:
        post_together(server.address, posts)
        for _ in range(5):
            PLAIN.post(f"{server.url}{CHAT_PATH}", json=chat(), headers=headers(0, 0, 7))
            PLAIN.post(f"{server.url}{CHAT_PATH}", json=chat(model="busy"))
        control.done("POST", "/marks", {"text": "over"})
        assert eventually(lambda: sum(watcher.statuses.values()) >= 40, 10)
        assert eventually(lambda: bool(watcher.summaries[-1].marks), 10)
    last = watcher.summaries[-1]
    assert watcher.statuses == {"200": 35, "503": 5}
    assert watcher.sum("tokens") == 30 * 50 + 5 * 7
    assert sum(each.lag.timed for each in watcher.summaries) == 30 * 50 + 5
    assert sum(sum(each.lag.buckets) for each in watcher.summaries) == 30 * 50 + 5
    assert max(each.in_flight.streams for each in watcher.summaries) > 0
    of_streams = [
        each.models[f"m{n}"]
        for each in watcher.summaries
        for n in range(3)
        if f"m{n}" in each.models
    ]
    bucket = last.bounds_ms.ttft.index(20)
    assert sum(each.ttft.asked[bucket] for each in of_streams) == 30
    assert {each.ttft.asked_mean_ms for each in of_streams} <= {20, None}
    told = [each.ttft.actual_mean_ms for each in of_streams if each.ttft.actual_mean_ms]
    assert told
    assert min(told) >= 20
    assert sum(sum(each.itl.actual) for each in of_streams) == 30
    assert {each.worker for each in last.workers} == {1, 2}
    assert (last.rules, last.faults["status"]) == ({"busy": 5}, 5)
    assert last.marks[-1].text == "over"
    assert last.revision == control.status["revision"]


def test_fifty_who_look_get_the_same(control: Controller) -> None:
    """All who look at a worker get the same summaries, whatever their number."""
    with watching(control.server, 50) as watchers:
        assert eventually(lambda: all(len(each.summaries) > 3 for each in watchers), 20)
    told = {(each.at, each.uptime_s) for watcher in watchers for each in watcher.summaries}
    seconds = {int(at) for at, _ in told}
    assert len(told) <= 2 * len(seconds)  # one for each worker


def test_strangers_may_look(control: Controller) -> None:
    """The summary is open as /metrics is, also to a page of another origin and through a proxy."""
    watcher = Watcher(
        control.server, **{"X-Forwarded-For": "10.0.0.1", "Origin": "http://a.example"}
    )
    assert eventually(lambda: bool(watcher.summaries), 10)
    watcher.leave()
    watcher.wait()


def test_one_who_does_not_read_holds_nobody_up(control: Controller) -> None:
    """Beside one who never reads others get a summary each second, and it is let go at the end."""
    with socket.create_connection(control.server.address) as deaf:
        deaf.sendall(request("GET", EVENTS))
        with watching(control.server) as [watcher]:
            assert eventually(lambda: len(watcher.summaries) > 4, 20)
        spans = [each.span_s for each in watcher.summaries[1:]]
        assert sum(spans) / len(spans) < 2


def test_limits_and_engine_are_told(local_only: None) -> None:  # noqa: ARG001 - skips
    """A server with limits and an engine tells how full they are."""
    with running_server(*args(workers=1, rpm=10, engine="paper")) as server:
        long = {"X-OUTPUT-LENGTH": "100"}
        with watching(server) as [watcher], ThreadPoolExecutor(12) as pool:
            send = lambda _: PLAIN.post(f"{server.url}{CHAT_PATH}", json=chat(), headers=long)  # noqa: E731
            statuses = [answer.status_code for answer in pool.map(send, range(12))]
            assert eventually(lambda: sum(watcher.statuses.values()) == 12, 20)
        assert statuses.count(429) == watcher.sum("limited") >= 1
        [bucket] = watcher.summaries[-1].limits
        assert (bucket.key, bucket.kind, bucket.limit) == ("", "requests", 10)
        assert bucket.used > 0.9
        engines = [each.engine for each in watcher.summaries if each.engine is not None]
        assert max(each.running for each in engines) > 0
        assert 0 < max(each.cache for each in engines) <= 1


def test_the_server_ends_while_somebody_looks(local_only: None) -> None:  # noqa: ARG001 - skips
    """A server that is told to end does so at once, and ends the stream properly."""
    with running_server(*args(workers=2)) as server:
        watcher = Watcher(server)
        assert eventually(lambda: bool(watcher.summaries), 20)
        assert server.process is not None
        start_s = time.monotonic()
        server.process.terminate()
        server.process.wait(20)
        watcher.leave()
        watcher.wait()
        assert watcher.has_ended
        assert time.monotonic() - start_s < 15


def test_the_document_describes_the_events(control: Controller) -> None:
    """The OpenAPI document has the summary as the type of the events, and no key asked for."""
    document: dict[str, Any] = control.http("GET", "/openapi.json").json()
    operation = document["paths"][EVENTS]["get"]
    content = operation["responses"]["200"]["content"]
    assert content == {"text/event-stream": {"schema": {"$ref": "#/components/schemas/Summary"}}}
    assert "security" not in operation
    assert json.dumps(document["components"]["schemas"]["Summary"]).count("description") > 10
