"""The summary of a second: what is counted, what it sums up to, and who gets it."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from emulator.journal.bodies import Mark, Summary
from emulator.journal.summary import board as boards
from emulator.journal.summary.board import Board, Teller
from emulator.journal.summary.counting import MAX_MODELS, Counting, Snapshot
from emulator.journal.summary.events import MAX_WAITING, Events, Viewer
from emulator.journal.summary.summing import FAILED, MATCHED, Summing, percentile_s
from emulator.rules.counting import SharedCounts
from emulator.serving.endings import Endings
from emulator.settings import Settings
from emulator.shared_memory.document import SharedDocument
from emulator.shared_memory.files import create
from emulator.shared_memory.word import SharedWord
from emulator.state import State
from emulator.timing.pace import Pace
from emulator.timing.plan import GenerationPlan
from emulator.timing.watch import LAG_BOUNDS_S, WATCH
from emulator.transport.ending import Ending
from tests.journal.test_rows import exchange

STATE = State(Settings())


@pytest.fixture(autouse=True)
def unwatched() -> object:
    """Leave nothing on that a test has switched on."""
    yield
    WATCH.is_on = False
    WATCH.streams.clear()
    WATCH.begin()


def counting(worker: int = 1) -> Counting:
    """Return what counts for a worker, and has begun."""
    made = Counting(worker, Endings())
    made.begin()
    return made


def streamed(ttft_s: float = 0.1, itl_s: float = 0.02) -> Ending:
    """Return how a stream ended that was 1 ms late."""
    return Ending(
        kind="completion",
        is_stream=True,
        tokens=5,
        all_tokens=5,
        is_complete=True,
        ttft_s=(ttft_s, ttft_s + 0.001),
        itl_s=(itl_s, itl_s),
        total_s=(1, 1),
    )


class Second:
    """Summaries of made-up workers."""

    def __init__(self, *workers: Counting, marks: Sequence[Mark] = ()) -> None:
        self.workers = workers
        self.counts = SharedCounts(create("test"), alone=True)
        self.summing = Summing(self.read, self.counts, lambda: marks)

    def read(self) -> list[Snapshot]:
        """Return the snapshots, as if from other processes."""
        return [Snapshot.unpacked(each.snapshot(0.0).packed()) for each in self.workers]

    def summary(self, state: State = STATE) -> Summary:
        """Return what came since the last one."""
        return self.summing.summary(state)


# --------------------------------------------------------------------------------------
# Counts
# --------------------------------------------------------------------------------------


def test_workers_add_up_and_each_second_is_its_own() -> None:
    """Counts of all workers are added, and a second tells what came since the one before."""
    one, other = counting(1), counting(2)
    second = Second(one, other)
    second.summing.begin()
    for worker, status in ((one, 200), (one, 429), (other, 200)):
        worker.see(exchange(status=status), streamed())
    first = second.summary()
    one.see(exchange(status=499), None)
    then = second.summary()

    assert first.requests == {"200": 2, "429": 1}
    assert first.models["gpt-4"].requests == 3
    assert sum(first.models["gpt-4"].ttft.asked) == sum(first.models["gpt-4"].itl.actual) == 3
    assert (then.requests, then.clients_left) == ({"499": 1}, 1)
    assert sum(then.models["gpt-4"].ttft.asked) == 0


def test_what_was_counted_before_anybody_looked_is_left_out() -> None:
    """Who begins to look at a worker that counts already gets no heap of what came before."""
    worker = counting()
    worker.see(exchange(), None)
    second = Second(worker)
    second.summing.begin()
    assert second.summary().requests == {}


def test_a_worker_that_begins_anew_counts_from_zero() -> None:
    """The successor of a killed worker adds what it has counted, and takes nothing away."""
    worker = counting()
    second = Second(worker)
    worker.see(exchange(), None)
    second.summing.begin()
    worker.begin()
    worker.see(exchange(), None)
    assert second.summary().requests == {"200": 1}


def test_nothing_is_counted_while_nobody_looks() -> None:
    """A worker at which nobody looks counts neither requests nor tokens."""
    worker = Counting(1, Endings())
    worker.see(exchange(), streamed())
    paced = Pace(GenerationPlan(2, "stop", 0, 0.1), 100.0, 1, keep_gaps=False)
    paced.mark(100.0, 1)
    assert worker.snapshot(0.0).statuses == {}
    assert WATCH.timed == 0


def test_many_models_are_twenty() -> None:
    """Of many models nineteen have their names, and the others are together, in each worker."""
    one, other = counting(1), counting(2)
    for number in range(50):
        one.see(exchange(model=f"a{number}"), None)
        other.see(exchange(model=f"b{number}" + "x" * 500), None)
    second = Second(one, other)
    models = second.summary().models
    assert len(models) == MAX_MODELS
    assert sum(each.requests for each in models.values()) == 100
    assert models["other"].requests == 100 - 19
    assert len(one.snapshot(0.0).packed()) < boards.MAX_SNAPSHOT_BYTES


def test_fullest_limits() -> None:
    """The ten fullest limits are told, each as its last request has left it."""
    worker = counting()
    for number in range(15):
        for left in (50, 100 - number):
            came = exchange(model=f"m{number}")
            came.limits_left = [("requests", left, 100)]
            worker.see(came, None)
    refused = exchange(status=429)
    refused.limits_left = [("tokens", 0, 1000)]
    worker.see(refused, None)
    summary = Second(worker).summary()
    assert len(summary.limits) == 10
    assert [(each.kind, each.used, each.limit) for each in summary.limits[:2]] == [
        ("tokens", 1, 1000),
        ("requests", 0.14, 100),
    ]
    assert summary.limited == 1


def test_rules_and_faults_are_told_since_the_start() -> None:
    """Matches and failures are counts that all workers share, whether or not anybody looks."""
    second = Second(counting())
    second.counts.add(FAILED + "reset")
    second.counts.add(f"{MATCHED}busy")
    assert second.summary().faults == {"reset": 1}
    assert second.summary().rules == {}  # there is none of this name


# --------------------------------------------------------------------------------------
# Lags
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("settle_after", [1, 5, 40])
def test_lags_of_tokens(settle_after: int) -> None:
    """Each token counts with how late it left, however many are taken in at once."""
    worker = counting()
    paced = Pace(GenerationPlan(40, "stop", 0, 0.1), 100.0, 1, keep_gaps=False)
    WATCH.streams[paced] = 2
    for event in range(40):
        paced.note(100.0 + event * 0.1 + (0.004 if event % 4 == 0 else 0.00004))
        if event % settle_after == settle_after - 1:
            paced.settle()
    lag = Second(worker).summary().lag
    assert (lag.timed, lag.late) == (40, 10)
    assert sum(lag.buckets) == 40
    assert lag.p50_ms is not None
    assert lag.p99_ms is not None
    assert lag.p50_ms < 0.05
    assert 3 < lag.p99_ms <= 4.001
    assert lag.max_ms == pytest.approx(4, abs=0.001)
    assert Second(worker).summary().tokens == 80


def test_waiting_for_a_client_is_no_lag() -> None:
    """A token that could not leave before the client took the one before it is in time."""
    worker = counting()
    paced = Pace(GenerationPlan(2, "stop", 0, 0.1), 100.0, 1, keep_gaps=False)
    paced.mark(100.0, 1)
    paced.block(100.0, 102.0)
    paced.mark(102.0, 1)
    assert Second(worker).summary().lag.late == 0


def test_percentiles_lie_within_their_buckets() -> None:
    """A percentile is between the bounds of its bucket, and never above the largest."""
    buckets = [0] * (len(LAG_BOUNDS_S) + 1)
    assert percentile_s(buckets, 0.5, 0.0) is None
    buckets[0], buckets[6] = 99, 1
    assert percentile_s(buckets, 0.5, 0.0009) == pytest.approx(50e-6 * 50 / 99)
    assert percentile_s(buckets, 0.999, 0.0009) == 0.0009
    buckets[-1] = 1000
    assert percentile_s(buckets, 0.99, 30.0) == pytest.approx(30, rel=0.02)


# --------------------------------------------------------------------------------------
# The board, and who looks
# --------------------------------------------------------------------------------------


class Worker:
    """One worker with a board that another process could share."""

    def __init__(self) -> None:
        part = SharedDocument(create("board"), boards.MAX_SNAPSHOT_BYTES)
        self.board = Board([part], SharedWord(None))
        self.counting = Counting(1, Endings())
        self.later: list[Callable[[], None]] = []
        self.teller = Teller(self.board, self.counting, 0.025, self._later)

    def _later(self, _: float, call: Callable[[], None]) -> None:
        self.later.append(call)


def test_a_worker_counts_while_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins when somebody looks, puts what it has on the board each second, and ends."""
    worker, at = Worker(), 1000.0
    monkeypatch.setattr("emulator.journal.summary.board.time.time", lambda: at)
    worker.teller.tick()
    assert (worker.counting.is_on, worker.board.read()) == (False, [])

    worker.board.watch()
    worker.teller.tick()
    assert worker.counting.is_on
    worker.counting.see(exchange(), None)
    worker.teller.tick()
    assert worker.board.read()[0].statuses == {}  # the second is not over
    at += 1
    worker.teller.tick()
    assert worker.board.read()[0].statuses == {200: 1}

    worker.board._until[0] = 0
    worker.teller.tick()
    assert (worker.counting.is_on, WATCH.is_on) == (False, False)


def test_many_streams_are_taken_in_a_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between pieces other work gets its turn, and all is on the board after the last."""
    worker, at = Worker(), 1000.0
    monkeypatch.setattr("emulator.journal.summary.board.time.time", lambda: at)
    monkeypatch.setattr(boards, "PIECE_S", 0.0)
    worker.board.watch()
    worker.teller.tick()
    for _ in range(3):
        paced = Pace(GenerationPlan(2, "stop", 0, 0.1), 100.0, 1, keep_gaps=False)
        WATCH.streams[paced] = 1
        paced.note(100.0)
    at += 1
    worker.teller.tick()
    pieces = 0
    while worker.later:
        assert worker.board.read()[0].counts.get("timed", 0) == 0
        worker.later.pop()()
        pieces += 1
    assert pieces == 3
    assert worker.board.read()[0].counts["timed"] == 3


def test_one_who_does_not_read_is_told_how_much_it_missed() -> None:
    """The oldest events give way, and the next one read begins with their number."""

    async def read() -> list[bytes | None]:
        viewer = Viewer()
        for number in range(MAX_WAITING + 3):
            viewer.give(b"%d\n\n" % number)
        found = [await viewer.next() for _ in range(2)]
        viewer.end()
        return [*found, await viewer.next()]

    assert asyncio.run(read()) == [
        b'event: missed\ndata: {"missed":3}\n\n3\n\n',
        b"4\n\n",
        None,
    ]


def test_fifty_viewers_cost_one_summary_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many look, the summary is made once; when all have left nothing is made."""
    made = 0
    second = Second(counting())

    async def summary() -> Summary:
        nonlocal made
        made += 1
        return second.summary()

    async def look() -> set[bytes | None]:
        events = Events(second.summing.begin, lambda: None, summary)
        viewers = [events.join() for _ in range(50)]
        found = {await viewer.next() for viewer in viewers}
        events.viewers.clear()
        task = events._task
        assert task is not None
        await task
        return found

    monkeypatch.setattr("emulator.journal.summary.events.time.time", lambda: 1000.149)
    assert len(asyncio.run(look())) == 1
    assert made <= 2


def test_the_end_of_the_server_lets_all_go() -> None:
    """When the server is told to end viewers get no more, and new ones nothing."""

    async def look() -> list[bytes | None]:
        async def summary() -> Summary:
            raise AssertionError

        events = Events(lambda: None, lambda: None, summary)
        viewer = events.join()
        events.close()
        return [await viewer.next(), await events.join().next()]

    assert asyncio.run(look()) == [None, None]
