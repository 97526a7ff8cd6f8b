"""Changes on a real server of two workers: when they hold, for whom, and what is refused."""

import json
import os
import re
import signal
import statistics
import time
from typing import Any

import httpx
import pytest

from tests.control.conftest import JSON, Controller
from tests.support.reference import least
from tests.support.server import PLAIN, eventually
from tests.support.wire import CHAT_PATH, Answer, Post, chat, post, post_together

TOLD = {"X-EMULATION-REVISION": "true", "X-EMULATION-REPORT": "true", "X-OUTPUT-LENGTH": "5"}


def posted(control: Controller, /, *, headers: dict[str, str] | None = None, **body: Any) -> Any:  # noqa: ANN401
    """Return the answer to a chat."""
    return PLAIN.post(f"{control.server.url}{CHAT_PATH}", json=chat(**body), headers=headers)


def asked_itl(answer: Answer) -> float:
    """Return the ITL that an answer was made by, in ms."""
    itl: float = answer.report["itl_ms"]["asked"]
    return itl


# --------------------------------------------------------------------------------------
# When changes hold
# --------------------------------------------------------------------------------------


def test_a_change_holds_for_what_begins_after_it_and_nothing_before(control: Controller) -> None:
    """Beside 100 streams under way a change holds for every later request, on both workers."""
    control.patch(ttft_ms=400, itl_ms=20)
    base = control.status["revision"]
    later: list[Answer] = []

    def begun() -> float:
        """Return how many completions have begun, over or not."""
        metrics = control.server.metrics()
        names = ("openai_emulator_active_streams", "openai_emulator_completions_total")
        return sum(map(metrics.total, names))

    def change() -> None:
        assert eventually(lambda: begun() - begun_before == len(posts))
        told = control.patch(itl_ms=5)
        assert (told["revision"], told["applied"]) == (base + 1, "2 of 2")
        later.extend(post_together(control.server.address, posts))

    posts = [Post(chat(stream=True), TOLD)] * 100
    begun_before = begun()
    before = post_together(control.server.address, posts, meanwhile=change)

    assert {(a.headers["x-emulation-revision"], asked_itl(a)) for a in before} == {(f"{base}", 20)}
    assert {(a.headers["x-emulation-revision"], asked_itl(a)) for a in later} == {
        (f"{base + 1}", 5)
    }
    # One worker may have accepted all of them.
    for worker in control.server.workers:
        with control.server.alone(worker):
            answer = post(control.server.address, chat(), TOLD)
        assert (answer.headers["x-emulation-revision"], asked_itl(answer)) == (f"{base + 1}", 5)


def test_each_change_answers_when_all_workers_have_it(control: Controller) -> None:
    """Answers come soon, say that both workers have it, and revisions rise by one."""

    def median_s() -> float:
        """Make 30 changes; return the median of how long they took."""
        first = control.status["revision"]
        took_s = []
        for number in range(1, 31):
            start_s = time.monotonic()
            told = control.patch(itl_ms=number)
            took_s.append(time.monotonic() - start_s)
            assert (told["revision"], told["applied"]) == (first + number, "2 of 2")
            assert told["settings"]["itl_ms"] == number
        return statistics.median(took_s)

    assert least(median_s, below=0.1) < 0.1


def test_metric_tells_the_revision(control: Controller) -> None:
    """The metric is the revision that all workers have."""
    revision = control.patch(itl_ms=1)["revision"]
    assert control.server.metrics().total("openai_emulator_revision") == revision


FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}


@pytest.mark.parametrize("body", [{}, {"response_format": FORMAT}], ids=["text", "JSON"])
def test_helpers_answer_by_the_snapshot(control: Controller, body: dict[str, Any]) -> None:
    """What a helper reads is answered by the settings of the request, each time they change."""
    large = {**chat("word " * 60_000), **body}
    for length, ttft_ms in ((3, 1), (7, 2), (4, 3)):
        control.patch(output_length=length, ttft_ms=ttft_ms, itl_ms=0, models=[f"m{length}"])
        url = f"{control.server.url}{CHAT_PATH}"
        answer = PLAIN.post(url, json=large, headers={"X-EMULATION-REPORT": "true"}).json()
        assert answer["emulation"]["ttft_ms"]["asked"] == ttft_ms
        if not body:
            assert answer["usage"]["completion_tokens"] == length
        models = control.http("GET", "/v1/models").json()["data"]
        assert [model["id"] for model in models] == [f"m{length}"]


def test_a_successor_of_a_killed_worker_has_the_state(control: Controller) -> None:
    """After kill -9 changes go on, and the worker that takes the place answers by all of them."""
    control.patch(output_length=3, ttft_ms=0, itl_ms=0)
    pids = control.status["workers"]["pids"]
    os.kill(pids[0], signal.SIGKILL)
    told = control.patch(output_length=4)
    assert told["applied"] == "1 of 1"
    control.put_rules({"name": "busy", "match": {"model": "busy"}, "fault": {"status": 503}})

    assert eventually(lambda: control.status["workers"]["count"] == 2)
    status = control.status
    assert status["workers"]["applied"] == "2 of 2"
    assert pids[0] not in status["workers"]["pids"]
    log_start = len(control.server.log())
    for _ in range(40):
        assert posted(control).json()["usage"]["completion_tokens"] == 4
        assert posted(control, model="busy").status_code == 503
    workers = r"openai_emulator:(\d+)\] completion "
    assert eventually(lambda: len({*re.findall(workers, control.server.log()[log_start:])}) == 2)


# --------------------------------------------------------------------------------------
# What can be changed
# --------------------------------------------------------------------------------------


def test_settings_go_back_to_the_start(control: Controller) -> None:
    """Null goes back for one setting, and DELETE for all."""
    start = control.done("GET", "/settings")
    control.patch(itl_ms=1, ttft_ms=2, reasoning_lengths={"low": 3})
    assert control.patch(itl_ms=None)["changed"] == {"ttft_ms": 2, "reasoning_lengths": {"low": 3}}
    told = control.done("DELETE", "/settings")
    assert (told["settings"], told["changed"]) == (start["settings"], {})
    assert control.done("GET", "/settings")["settings"] == start["settings"]


def test_settings_as_told_can_be_sent_back(control: Controller) -> None:
    """What GET tells is what PATCH takes."""
    control.patch(itl_ms=1, models=["a"], rpm=100)
    settings = control.status["settings"]
    assert control.patch(**settings)["settings"] == settings


def test_rules_are_swapped_and_changed_one_by_one(control: Controller) -> None:
    """PUT swaps all; one rule is put, moved and taken away; each holds at once."""
    rule = {"match": {"model": "gpt-4"}, "fault": {"status": 503}}
    control.put_rules({"name": "a", **rule}, {"name": "b", **rule, "fault": {"status": 500}})
    assert posted(control).status_code == 503
    told = control.done("PUT", "/rules/b?before=a", {**rule, "fault": {"status": 502}})
    assert told["rules"] == [{"name": "b", **rule, "fault": {"status": 502}}]
    assert posted(control).status_code == 502
    names = [each["name"] for each in control.done("GET", "/rules")["rules"]]
    assert names == ["b", "a"]
    control.done("DELETE", "/rules/b")
    assert posted(control).status_code == 503
    rules = control.done("GET", "/rules")["rules"]
    assert control.done("PUT", "/rules", {"rules": rules})["rules"] == rules
    control.put_rules()
    assert posted(control, headers=TOLD).status_code == 200


def test_a_rule_ends_by_itself(control: Controller) -> None:
    """A rule with ttl_s is gone when its time is over, on both workers."""

    def holds(ttl_s: float) -> bool:
        """Tell whether the rule holds for a request that is answered before its end."""
        start_s = time.monotonic()
        control.put_rules({"name": "short", "match": {}, "fault": {"status": 503}, "ttl_s": ttl_s})
        status: int = posted(control, headers=TOLD).status_code
        assert status == 503 or time.monotonic() - start_s > ttl_s
        return bool(status == 503)

    ttl_s = 0.4
    while not holds(ttl_s):  # a busy machine took longer than the rule lasts
        ttl_s *= 2
    assert eventually(lambda: control.done("GET", "/rules")["rules"] == [])
    assert {posted(control, headers=TOLD).status_code for _ in range(10)} == {200}


def test_rate_limits_change_and_keep_what_is_counted(control: Controller) -> None:
    """A limit that is raised has counted what came before; a reset forgets that."""
    control.patch(rpm=3, ttft_ms=0, itl_ms=0)
    assert [posted(control).status_code for _ in range(4)] == [200, 200, 200, 429]
    control.patch(rpm=5)
    assert [posted(control).status_code for _ in range(3)] == [200, 200, 429]
    control.reset("limits")
    assert posted(control).headers["x-ratelimit-remaining-requests"] == "4"
    control.patch(limits={"limits": [{"model": "gpt-4", "rpm": 2}]})
    assert posted(control).headers["x-ratelimit-limit-requests"] == "2"
    control.patch(rpm=None, limits=None)
    assert "x-ratelimit-limit-requests" not in posted(control).headers


def test_counts_begin_anew_after_a_reset(control: Controller) -> None:
    """A rule for the first attempts counts anew once counts are reset."""
    control.patch(ttft_ms=0, itl_ms=0)
    control.put_rules({"name": "twice", "match": {}, "times": 2, "fault": {"status": 503}})
    statuses = [posted(control).status_code for _ in range(4)]
    control.reset("counts")
    assert statuses == [503, 503, 200, 200]
    assert [posted(control).status_code for _ in range(3)] == [503, 503, 200]


def test_readiness_can_be_taken_away(control: Controller) -> None:
    """A server that is not ready answers as one that loads its model, and is ready again."""
    control.patch(ready=False)
    assert control.http("GET", "/readyz").status_code == 503
    answer = posted(control)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_loading")
    assert answer.headers["retry-after"] == "1"
    control.patch(ready=None)
    assert control.http("GET", "/readyz").status_code == 200


def test_origins_change(control: Controller) -> None:
    """Pages of other origins are let in, or not any more."""
    page = {"origin": "https://page.example"}

    def told() -> str | None:
        found: str | None = posted(control, headers={**TOLD, **page}).headers.get(
            "access-control-allow-origin"
        )
        return found

    assert told() == "*"
    control.patch(cors_origins=["https://page.example"], ttft_ms=0)
    assert told() == "https://page.example"
    control.patch(cors_origins=[])
    assert told() is None


def test_jitter_strictness_and_lengths_change(control: Controller) -> None:
    """What counts without headers and parameters changes, one kind after the other."""
    control.patch(itl_ms=5, ttft_ms=0, output_length=30, itl_jitter="exponential")
    reports = [
        posted(control, headers={"X-EMULATION-REPORT": "true"}).json()["emulation"]
        for _ in range(3)
    ]
    assert len({report["total_ms"]["asked"] for report in reports}) == 3
    control.patch(strict_models=True, strict_parameters=True, models=["only"], itl_ms=0)
    assert posted(control).status_code == 404
    assert posted(control, model="only", unheard_of=1).status_code == 400
    control.patch(strict_models=None, strict_parameters=None, ignore_eos=True, itl_jitter=None)
    assert posted(control, max_tokens=50).json()["usage"]["completion_tokens"] == 50


def test_a_schedule_runs_by_itself(control: Controller) -> None:
    """Steps and waves come in their time, marks are in the log, and the end leaves all as it is."""
    schedule = {
        "steps": [
            {"at_s": 0, "settings": {"itl_ms": 1}, "mark": "begin"},
            {
                "at_s": 0.5,
                "rules": [{"name": "x", "match": {}, "fault": {"status": 500}}],
                "mark": "on",
            },
            {"at_s": 1, "rules": [], "mark": "off"},
        ],
        "waves": [{"form": "ramp", "of": "ttft_ms", "from": 1, "to": 3, "over_s": 2}],
    }
    log_start = len(control.server.log())
    told = control.done("PUT", "/schedule", schedule)
    assert told["applied"] == "2 of 2"
    assert told["schedule"]["steps"][0] == schedule["steps"][0]
    seen: list[float] = []

    def is_over() -> bool:
        state = control.done("GET", "/schedule")
        seen.append(control.done("GET", "/settings")["settings"]["ttft_ms"])
        return bool(state["steps_done"] == 3 and seen[-1] == 3)

    assert eventually(is_over)
    on_the_ramp = [ttft_ms for ttft_ms in seen if ttft_ms != 100]
    assert on_the_ramp == sorted(on_the_ramp)
    assert {*on_the_ramp} <= {1, 2, 3}
    assert control.done("GET", "/settings")["changed"] == {"itl_ms": 1, "ttft_ms": 3}
    marks = re.findall(r'mark text="(\w+)"', control.server.log()[log_start:])
    assert marks == ["begin", "on", "off"]
    assert control.done("DELETE", "/schedule")["schedule"] is None


# --------------------------------------------------------------------------------------
# Bad input
# --------------------------------------------------------------------------------------

BAD: dict[str, tuple[str, str, Any, dict[str, str], int, str | None]] = {
    "an unknown field": ("PATCH", "/settings", {"itl": 5}, {}, 400, "itl"),
    "out of range": ("PATCH", "/settings", {"itl_ms": -5}, {}, 400, "itl_ms"),
    "good and bad": ("PATCH", "/settings", {"ttft_ms": 1, "itl_ms": -5}, {}, 400, "itl_ms"),
    "no object": ("PATCH", "/settings", [1], {}, 400, None),
    "a rule's unknown field": (
        *("PUT", "/rules", {"rules": [{"statu": 500}]}, {}, 400),
        "rules[0].statu",
    ),
    "a rule that contradicts itself": (
        *("PUT", "/rules/a", {"fault": {"status": 500, "after_ms": 1, "after_tokens": 1}}, {}, 400),
        "fault.after_ms",
    ),
    "no rules": ("PUT", "/rules", {}, {}, 400, "rules"),
    "no such rule": ("DELETE", "/rules/none", None, {}, 404, "name"),
    "before no rule": ("PUT", "/rules/a?before=b", {"fault": {"status": 500}}, {}, 404, "before"),
    "an unknown parameter": (
        "PUT",
        "/rules/a?befor=b",
        {"fault": {"status": 500}},
        {},
        400,
        "befor",
    ),
    "another name": ("PUT", "/rules/a", {"name": "b", "fault": {"status": 500}}, {}, 400, "name"),
    "a stale revision": ("PATCH", "/settings", {}, {"if_match": '"1000000"'}, 409, "If-Match"),
    "no revision": ("PATCH", "/settings", {}, {"if_match": "new"}, 400, "If-Match"),
    "a form": (
        *("PATCH", "/settings", {}, {"content_type": "application/x-www-form-urlencoded"}, 415),
        "Content-Type",
    ),
    "a text": ("POST", "/reset", {}, {"content_type": "text/plain"}, 415, "Content-Type"),
    "gzip": ("POST", "/reset", {}, {"content_encoding": "gzip"}, 415, "Content-Encoding"),
    "an unknown reset": ("POST", "/reset", {"what": ["all"]}, {}, 400, "what[0]"),
    "a reset of nothing": ("POST", "/reset", {"what": []}, {}, 400, "what"),
    "a bad scope": ("POST", "/reset", {"scope": "a b"}, {}, 400, "scope"),
    "no such path": ("POST", "/rests", {}, {}, 404, None),
    "no such method": ("POST", "/settings", {}, {}, 405, None),
    "a GET of reset": ("GET", "/reset", None, {}, 405, None),
}


@pytest.mark.parametrize(
    ("method", "path", "body", "extra", "status", "param"), BAD.values(), ids=BAD.keys()
)
def test_bad_input_is_refused_and_changes_nothing(
    control: Controller,
    method: str,
    path: str,
    body: Any,  # noqa: ANN401 - JSON
    extra: dict[str, str],
    status: int,
    param: str | None,
) -> None:
    """What is wrong is refused in OpenAI's envelope with the field's path; all stays as it was."""
    before = control.status
    answer = control.ask(method, path, body, **extra)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    after = control.status
    assert {n: after[n] for n in ("revision", "settings", "rules")} == {
        n: before[n] for n in ("revision", "settings", "rules")
    }


def test_a_fresh_revision_is_taken(control: Controller) -> None:
    """With the revision that holds in If-Match a change is made; its answer tells the next."""
    etag = control.ask("GET", "/settings").headers["etag"]
    answer = control.ask("PATCH", "/settings", {"itl_ms": 4}, if_match=etag)
    assert answer.status_code == 200
    assert int(answer.headers["etag"].strip('"')) == int(etag.strip('"')) + 1
    assert control.ask("PATCH", "/settings", {"itl_ms": 5}, if_match=etag).status_code == 409
    assert control.ask("PATCH", "/settings", {"itl_ms": 5}, if_match="*").status_code == 200


@pytest.mark.parametrize("chunked", [False, True], ids=["told", "in parts"])
def test_a_large_body_is_refused(control: Controller, *, chunked: bool) -> None:
    """More than 1 MB is a 413, whether its length is told or not."""
    body = json.dumps({"rules": ["x" * 1_000_000]}).encode()
    answer = httpx.put(
        f"{control.server.url}/emulator/rules",
        content=iter([body[:1000], body[1000:]]) if chunked else body,
        headers=JSON,
        trust_env=False,
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_a_delete_needs_its_type(control: Controller) -> None:
    """A DELETE without a content type is refused, as a page's form could send one."""
    answer = control.http("DELETE", "/emulator/settings")
    assert answer.status_code == 415


def test_get_changes_nothing(control: Controller) -> None:
    """Whatever is read, the revision stays."""
    revision = control.status["revision"]
    for path in ("", "/settings", "/rules", "/schedule"):
        assert control.done("GET", path)["revision"] == revision
