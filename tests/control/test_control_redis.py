"""Changes that several hosts share through a real Redis: soon everywhere, and agreed on again."""

import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.control.conftest import Controller
from tests.support.process import free_port
from tests.support.reference import least
from tests.support.server import args, eventually, running_server

pytest.importorskip("redis", reason="the package redis is optional")
if shutil.which("redis-server") is None:
    pytest.skip("needs Debian's redis-server", allow_module_level=True)

from tests.limits.test_limits_redis import running_redis


@contextmanager
def emulators(port: int, count: int = 2) -> Iterator[list[Controller]]:
    """Run emulators that share a Redis."""
    arguments = args(store=f"redis://127.0.0.1:{port}", workers=1)
    with running_server(*arguments) as server:
        if count == 1:
            yield [Controller(server)]
            return
        with emulators(port, count - 1) as others:
            yield [Controller(server), *others]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Yield the port of a Redis that runs."""
    chosen = free_port()
    with running_redis(chosen):
        yield chosen


@pytest.fixture(scope="module")
def running_pair(local_only: None, port: int) -> Iterator[list[Controller]]:  # noqa: ARG001 - skips
    """Yield two emulators that share a Redis."""
    with emulators(port) as controllers:
        yield controllers


@pytest.fixture
def pair(running_pair: list[Controller]) -> Iterator[list[Controller]]:
    """Yield these two; after the test they are as at their start."""
    yield running_pair
    running_pair[0].reset()


def agree(controllers: Sequence[Controller]) -> bool:
    """Tell whether all have the same revision, settings and rules."""
    states = [controller.status for controller in controllers]
    told = [[state[name] for name in ("revision", "settings", "rules")] for state in states]
    return told[1:] == told[:-1]


def is_away(controller: Controller) -> bool:
    """Tell whether a host says that it cannot reach the store, in its status and its metrics."""
    metric = controller.server.metrics().total("openai_emulator_store_away")
    return bool(controller.status["store"]["problem"]) and metric == 1


def other_has_it_s(one: Controller, other: Controller, itl_ms: int) -> float:
    """Change the ITL on one host; return how many seconds later the other one has it."""
    told = one.patch(itl_ms=itl_ms)
    started_s = time.monotonic()
    assert eventually(lambda: bool(other.status["revision"] == told["revision"]))
    took_s = time.monotonic() - started_s
    assert other.status["settings"]["itl_ms"] == itl_ms
    return took_s


def test_a_change_reaches_the_other_host(pair: list[Controller]) -> None:
    """What one host changes holds on the other within a second, in both directions."""
    for turn in range(4):
        one, other = (pair[turn % 2], pair[(turn + 1) % 2])
        assert least(lambda: other_has_it_s(one, other, turn), below=1) < 1  # noqa: B023 - at once
    pair[0].put_rules({"name": "a", "match": {}, "fault": {"status": 503}})
    assert eventually(lambda: agree(pair))
    assert pair[1].status["rules"][0]["name"] == "a"


def test_a_host_that_starts_later_has_all_changes(pair: list[Controller], port: int) -> None:
    """A new host begins with what the others share."""
    told = pair[0].patch(itl_ms=8)
    with emulators(port, 1) as (late,):
        assert late.status["revision"] == told["revision"]
        assert late.status["settings"]["itl_ms"] == 8


def test_hosts_at_once_take_turns(pair: list[Controller]) -> None:
    """Of changes of both hosts at once none is lost, and revisions rise by one."""
    first = pair[0].status["revision"]

    def change(number: int) -> int:
        told = pair[number % 2].patch(reasoning_lengths={f"n{number}": number})
        revision: int = told["revision"]
        return revision

    with ThreadPoolExecutor(8) as pool:
        revisions = sorted(pool.map(change, range(40)))
    assert revisions == [*range(first + 1, first + 41)]
    assert eventually(lambda: agree(pair))
    assert pair[1].status["settings"]["reasoning_lengths"] == {f"n{n}": n for n in range(40)}


@pytest.mark.slow
def test_hosts_agree_again_when_redis_is_back(
    local_only: None,  # noqa: ARG001 - skips
) -> None:
    """Without Redis nothing changes and it is told; an empty Redis gets what the hosts have."""
    port = free_port()
    with running_redis(port) as process, emulators(port) as pair:
        told = pair[0].patch(itl_ms=5)
        assert eventually(lambda: agree(pair))
        process.kill()
        process.wait()
        answer = pair[0].ask("PATCH", "/settings", {"itl_ms": 6})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_is_away")
        assert answer.headers["retry-after"] == "1"
        assert eventually(lambda: all(map(is_away, pair)))
        states = [controller.status for controller in pair]
        assert [state["revision"] for state in states] == [told["revision"]] * 2
        assert [state["settings"]["itl_ms"] for state in states] == [5, 5]
        with running_redis(port):
            assert eventually(lambda: not any(map(is_away, pair)))
            assert pair[1].patch(ttft_ms=7)["revision"] == told["revision"] + 1
            assert eventually(lambda: agree(pair))
            assert pair[0].status["settings"]["itl_ms"] == 5
            with emulators(port, 1) as (late,):
                assert agree([*pair, late])
        logs = [each.server.log() for each in pair]
    assert all(log.count("control store=") == 2 for log in logs)
