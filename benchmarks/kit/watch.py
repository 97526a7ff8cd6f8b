"""The neighbours of an attack: streams, whose gaps tell of any freeze, and the server's memory."""

import multiprocessing
import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from multiprocessing.connection import Connection
from threading import Event, Thread

import psutil

from benchmarks.kit.attacker import Address, Call, Reply, make_call
from benchmarks.kit.attacks import post, schema
from benchmarks.kit.client import Chat, Stream, no_garbage_collection
from benchmarks.kit.steady import ITL_MS, percentile

_TOKENS = 16_000
_START_TIMEOUT_S = 15.0
_SAMPLE_S = 0.1
_NEIGHBOUR_S = 0.1
_NEIGHBOUR_PATIENCE_S = 60.0
_MB = 1_000_000

Arrivals = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Gaps:
    """How far gaps between two tokens were from what was asked at p99, and the largest gap."""

    p99_ms: float
    largest_ms: float


def gaps(arrivals: Arrivals, begin_ns: int, end_ns: int) -> Gaps:
    """Return what the gaps say that reach into a window, ns on CLOCK_REALTIME."""
    lengths_ms = [
        (later - earlier) / 1e6
        for stream in arrivals
        for earlier, later in pairwise(stream)
        if later > begin_ns and earlier < end_ns
    ]
    errors_ms = [abs(length_ms - ITL_MS) for length_ms in lengths_ms]
    return Gaps(percentile(errors_ms, 99), max(lengths_ms, default=float("nan")))


def _watch(address: Address, streams: int, pipe: Connection) -> None:
    """Read streams until the pipe says to end, then send when each token of each arrived.

    A stream that ends or stands still by then has its last gap at the end.
    """
    chat = Chat(True, 0, ITL_MS, _TOKENS)
    watched = [Stream(address) for _ in range(streams)]
    with no_garbage_collection(), selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        for stream in watched:
            stream.send(replace(chat, ttft_ms=100).encode(address[0]))
            selector.register(stream.socket, selectors.EVENT_READ, stream)
            time.sleep(ITL_MS / 1000 / streams)
        began = False
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    arrivals = [[*stream.result.arrived_ns, time.time_ns()] for stream in watched]
                    pipe.send(arrivals)
                    return
                if not _goes_on(key.data):
                    selector.unregister(key.fileobj)
            if not began and all(stream.result.arrived_ns for stream in watched):
                began = True
                pipe.send("began")


def _goes_on(stream: Stream) -> bool:
    try:
        return stream.read()
    except OSError:
        return False


@contextmanager
def watching(address: Address, streams: int) -> Iterator[Callable[[], Arrivals]]:
    """Run streams in a process of its own; yield what ends them and tells of their tokens.

    Raises:
        RuntimeError: Not all streams began.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_watch, args=(address, streams, theirs), daemon=True)
    process.start()

    def end() -> Arrivals:
        ours.send("end")
        arrivals: Arrivals = ours.recv()
        return arrivals

    try:
        if not ours.poll(_START_TIMEOUT_S):
            raise RuntimeError("The streams do not begin.")
        ours.recv()
        yield end
    finally:
        process.kill()
        process.join()


@dataclass
class Memory:
    """What a worker and its helpers, all processes below it, hold in memory; MB of 10**6 bytes."""

    worker: psutil.Process
    limit_mb: float
    worker_peak_mb: float = 0.0
    helpers_peak_mb: float = 0.0
    exceeded: bool = False
    _stop: Event = field(default_factory=Event)

    def now_mb(self) -> float:
        """Return what the worker holds; infinity once it is dead."""
        try:
            return float(self.worker.memory_info().rss) / _MB
        except psutil.Error:
            return float("inf")

    def sample(self) -> None:
        """Look once, and kill the worker if it and its helpers take all that is there."""
        try:
            worker_mb = self.now_mb()
            helpers_mb = sum(map(_rss_mb, self.worker.children(recursive=True)))
        except psutil.Error:
            return
        self.worker_peak_mb = max(self.worker_peak_mb, worker_mb)
        self.helpers_peak_mb = max(self.helpers_peak_mb, helpers_mb)
        if worker_mb + helpers_mb > self.limit_mb:
            self.exceeded = True
            self.worker.kill()

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Look over and over while the body runs."""

        def run() -> None:
            while not self._stop.wait(_SAMPLE_S):
                self.sample()

        with _thread(run, self._stop):
            yield


def _rss_mb(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / _MB
    except psutil.Error:
        return 0.0


@dataclass
class Neighbour:
    """One who asks for a small instance of a schema now and then, and waits for its answer."""

    address: Address
    replies: list[tuple[float, Reply]] = field(default_factory=list)
    _stop: Event = field(default_factory=Event)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask over and over while the body runs."""
        (call,) = post("/v1/chat/completions", schema({"type": "integer"}))

        def run() -> None:
            while not self._stop.wait(_NEIGHBOUR_S):
                self.ask(call)

        with _thread(run, self._stop):
            yield

    def ask(self, call: Call) -> None:
        """Ask once."""
        start_s = time.time()
        self.replies.append((start_s, make_call(call, self.address, _NEIGHBOUR_PATIENCE_S)))

    def slowest_s(self, begin_ns: int, end_ns: int) -> float:
        """Return the longest time that an answer took to a request of the window."""
        asked = [r for at_s, r in self.replies if begin_ns <= at_s * 1e9 < end_ns]
        return max((reply.took_s for reply in asked), default=0.0)

    def refusals(self) -> list[Reply]:
        """Return the answers that were no 200."""
        return [reply for _, reply in self.replies if reply.status != 200]


@contextmanager
def _thread(run: Callable[[], None], stop: Event) -> Iterator[None]:
    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
