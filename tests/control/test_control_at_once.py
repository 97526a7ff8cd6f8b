"""Many clients and many changes at once, against a model, and beside streams under way."""

import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.control.conftest import Controller
from tests.support.server import PLAIN
from tests.support.wire import CHAT_PATH, Post, chat, headers, post_together

CLIENTS, CHANGES_EACH = 20, 25

Model = tuple[dict[str, Any], list[dict[str, Any]]]
"""The settings that differ from the start's, and the rules."""


class Operation(NamedTuple):
    """One change as it is sent, and what it makes of the model."""

    method: str
    path: str
    body: dict[str, Any]
    apply: Callable[[Model], Model]


def times(value: int) -> Operation:
    """Change two settings at once, so that a mix would show."""
    patch = {"ttft_ms": value, "itl_ms": value}
    return Operation("PATCH", "/settings", patch, lambda model: ({**model[0], **patch}, model[1]))


def length(value: int) -> Operation:
    """Change one setting, and leave the others."""
    patch = {"output_length": value}
    return Operation("PATCH", "/settings", patch, lambda model: ({**model[0], **patch}, model[1]))


def rules(value: int) -> Operation:
    """Swap all rules."""
    made = [
        {
            "name": f"{name}{value}",
            "match": {"model": f"never-{value}"},
            "fault": {"status": 500 + value},
        }
        for name in "ab"
    ]
    return Operation("PUT", "/rules", {"rules": made}, lambda model: (model[0], made))


def reset(what: Sequence[str]) -> Operation:
    """Go back to the start's in some things."""

    def apply(model: Model) -> Model:
        changed, known = model
        return ({} if "settings" in what else changed, [] if "rules" in what else known)

    return Operation("POST", "/reset", {"what": [*what]}, apply)


OPERATIONS = st.one_of(
    st.builds(times, st.integers(0, 3)),
    st.builds(length, st.integers(1, 9)),
    st.builds(rules, st.integers(0, 3)),
    st.builds(reset, st.sampled_from([["settings"], ["rules"], ["settings", "rules", "counts"]])),
)
PLANS = st.lists(
    st.lists(OPERATIONS, min_size=CHANGES_EACH, max_size=CHANGES_EACH),
    min_size=CLIENTS,
    max_size=CLIENTS,
)


class Made(NamedTuple):
    """A change and the revision that it got."""

    revision: int
    operation: Operation
    told: dict[str, Any]


def send(control: Controller, plan: Sequence[Operation]) -> list[Made]:
    """Make changes one after the other."""
    made = []
    for operation in plan:
        told = control.done(operation.method, operation.path, operation.body)
        made.append(Made(told["revision"], operation, told))
    return made


def look(control: Controller, is_over: threading.Event) -> list[tuple[int, Model]]:
    """Read all that is in force, again and again; return each revision and what it was."""
    seen = []
    while not is_over.is_set():
        status = control.status
        seen.append((status["revision"], (status["changed"], status["rules"])))
    return seen


def ask(control: Controller, is_over: threading.Event) -> list[tuple[int, float, float, int]]:
    """Send chats, again and again; return the revision of each, its times and its length."""
    seen = []
    wanted = {"X-EMULATION-REVISION": "true", "X-EMULATION-REPORT": "true"}
    while not is_over.is_set():
        url = f"{control.server.url}{CHAT_PATH}"
        answer = PLAIN.post(url, json=chat(), headers=wanted)
        body, report = answer.json(), answer.json()["emulation"]
        asked = (report["ttft_ms"]["asked"], report["itl_ms"]["asked"])
        revision = int(answer.headers["x-emulation-revision"])
        seen.append((revision, *asked, body["usage"]["completion_tokens"]))
    return seen


@settings(
    max_examples=2,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[*HealthCheck],
)
@given(plans=PLANS)
def test_changes_at_once_are_one_after_the_other(
    control: Controller, plans: list[list[Operation]]
) -> None:
    """Of 500 changes by 20 clients each gets the next revision, and each state is the model's.

    That holds for the state that is read meanwhile, and for the requests that are answered: none
    sees a mix of two.
    """
    control.reset()
    start = control.status
    is_over = threading.Event()
    with ThreadPoolExecutor(CLIENTS + 4) as pool:
        lookers = [pool.submit(look, control, is_over) for _ in range(2)]
        askers = [pool.submit(ask, control, is_over) for _ in range(2)]
        try:
            sent = [*pool.map(lambda plan: send(control, plan), plans)]
        finally:
            is_over.set()
    made = sorted((each for some in sent for each in some), key=lambda each: each.revision)
    first = start["revision"]
    assert [each.revision for each in made] == [*range(first + 1, first + 1 + len(made))]

    states: dict[int, Model] = {first: ({}, [])}
    for each in made:
        states[each.revision] = each.operation.apply(states[each.revision - 1])
        if each.operation.method == "PATCH":
            assert each.told["changed"] == states[each.revision][0]
    seen = [state for looker in lookers for state in looker.result()]
    assert len({revision for revision, _ in seen}) > 10
    assert [state for revision, state in seen if state != states[revision]] == []
    answered = [answer for asker in askers for answer in asker.result()]
    assert answered
    for revision, ttft_ms, itl_ms, tokens in answered:
        changed = states[revision][0]
        assert (ttft_ms, itl_ms) == (changed.get("ttft_ms", 100), changed.get("itl_ms", 50))
        assert tokens == changed.get("output_length", 20)


# --------------------------------------------------------------------------------------
# Beside streams
# --------------------------------------------------------------------------------------

STREAMS, ITL_MS, TOKENS, ROUNDS, CHANGES_A_ROUND = 200, 50, 60, 10, 100
SECONDS_BETWEEN_STREAMS = 0.002

# A process of its own, so that it takes nothing from the clients of the streams.
_CHANGER = """
import http.client, json, sys
port, count = map(int, sys.argv[1:])
connection = http.client.HTTPConnection("localhost", port)
head = {"Content-Type": "application/json"}
for number in range(count):
    body = json.dumps({"ttft_ms": number, "models": ["m%d" % number]})
    connection.request("PATCH", "/emulator/settings", body, head)
    told = json.loads(connection.getresponse().read())
    assert told["applied"] == "2 of 2", told
"""


def change(control: Controller, count: int) -> None:
    """Make changes in a row."""
    command = [sys.executable, "-S", "-c", _CHANGER, str(control.server.address[1]), str(count)]
    subprocess.run(command, check=True, timeout=60)  # noqa: S603 - our own program


def gaps_p99_ms(control: Controller, meanwhile: Callable[[], None]) -> list[float]:
    """Return the 99th percentile of the gaps of each of many streams, as the server left them."""
    wanted = {**headers(0, ITL_MS, TOKENS), "X-EMULATION-REPORT": "true"}
    posts = [Post(chat(stream=True), wanted)] * STREAMS
    answers = post_together(
        control.server.address, posts, apart_s=SECONDS_BETWEEN_STREAMS, meanwhile=meanwhile
    )
    return [answer.report["itl_ms"]["p99"] for answer in answers]


def rss(control: Controller) -> int:
    """Return the memory of all workers, in bytes."""
    return sum(worker.memory_info().rss for worker in control.server.workers)


@pytest.mark.slow
def test_many_changes_disturb_no_stream(control: Controller) -> None:
    """Beside 200 streams come 1,000 changes in a row: the gaps are as those without changes.

    Rounds with changes and without take turns, so that what else the machine does is in both.
    """
    alone: list[float] = []
    changing: list[float] = []
    for _ in range(ROUNDS):
        alone += gaps_p99_ms(control, lambda: None)
        changing += gaps_p99_ms(control, lambda: change(control, CHANGES_A_ROUND))
    assert control.status["revision"] >= ROUNDS * CHANGES_A_ROUND
    assert statistics.median(changing) - statistics.median(alone) < 1


@pytest.mark.slow
def test_many_changes_leave_no_memory(control: Controller) -> None:
    """A thousand changes and requests more take no more memory than those before."""
    change(control, 500)
    before = rss(control)
    change(control, 1000)
    assert rss(control) - before < 3_000_000
