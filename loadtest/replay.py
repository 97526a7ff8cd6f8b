"""Replaying a recorded trace: who sends which of its requests, and when.

The process that was given the file, which is the master or the only one, deals its requests out in
time to those that have a `ReplayUser`; so each is sent once, however many workers there are, and
workers need no file.
"""

import logging
import random
import time
from collections import Counter, defaultdict
from itertools import count
from math import ceil, inf
from pathlib import Path
from typing import Any

import gevent
from gevent import Greenlet
from gevent.queue import Queue
from locust import constant
from locust.env import Environment
from locust.exception import StopTest
from locust.runners import LocalRunner, MasterRunner, Runner, WorkerRunner

from loadtest.options import Options
from loadtest.prompts import prompt
from loadtest.trace_files import Trace, TraceError, TraceRequest
from loadtest.user import ChatUser, Timing, sleep_until

logger = logging.getLogger(__name__)

START_DELAY_S = 1.0  # at least, between all users' start and the first request
LEAD_S = 2.0  # how long before it is due a request is dealt out
PATIENCE_S = 5.0
BATCH = 200
REPORT_INTERVAL_S = 0.25

Dealt = tuple[Any, ...]  # when a request is due, its number, and what a `TraceRequest` has

# Messages between the dealer's process and those that send.
READY, REQUESTS, ANSWERED = "trace_ready", "trace_requests", "trace_answered"


class Feed:
    """What this process has been dealt, and has still to send."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the run before."""
        self.requests: Queue[tuple[float, int, TraceRequest]] = Queue()
        self.start_s = inf
        self.answered = self.reported = 0

    def take(self, message: Any) -> None:
        """Take requests, which are due so long after the start of the replay.

        Machines have clocks of their own: the start is told by how long ago it was, and the message
        that took the shortest way tells it best.
        """
        self.start_s = min(self.start_s, time.perf_counter() - message.data["started_s_ago"])
        for due_s, number, *recorded in message.data["requests"]:
            self.requests.put((due_s, number, TraceRequest(*recorded)))

    def count(self, _: Greenlet) -> None:
        """Count a request that was answered, or has failed."""
        self.answered += 1

    def report(self, runner: Runner) -> None:
        """Tell the dealer of what was answered, while this process lives."""
        while True:
            gevent.sleep(REPORT_INTERVAL_S)
            if self.answered > self.reported:
                runner.send_message(ANSWERED, {"count": self.answered - self.reported})
                self.reported = self.answered


THE_FEED = Feed()


class ReplayUser(ChatUser):
    """Sends what its process is dealt, each request when it is due, answered or not."""

    abstract = True
    only_when_picked = True
    wait_time = constant(0)

    def on_start(self) -> None:
        """Tell the dealer that this process can send."""
        super().on_start()
        if self.options.trace is None:  # picked in the web UI, which does not ask for files
            raise StopTest("TraceUser needs a file to replay: --trace FILE")
        self.environment.runner.send_message(READY, {})

    def replay_next(self, name: str) -> None:
        """Wait for the next request and until it is due, and start it."""
        after_start_s, number, recorded = THE_FEED.requests.get()
        messages = [{"role": "user", "content": prompt(recorded, number)}]
        timing = Timing(None, None, recorded.output_tokens, varies=True)
        has_extension = self.options.no_emulation_headers and not self.options.no_ignore_eos
        parameters = {"ignore_eos": True} if has_extension else {}
        due_s = THE_FEED.start_s + after_start_s
        sleep_until(due_s)
        chat = self.start_chat(name, timing, messages, start_s=due_s, **parameters)
        chat.link(THE_FEED.count)


class Dealer:
    """Deals the requests of a trace out to the processes that send them, and ends the run."""

    def __init__(self, runner: Runner, trace: Trace, speed: float) -> None:
        self.runner = runner
        self.trace = trace
        self.speed = speed
        self.ready: list[str] = []
        self.dealt: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.greenlet: Greenlet | None = None

    def add(self, client_id: str) -> None:
        """Deal to a process from now on."""
        if client_id not in self.ready:
            self.ready.append(client_id)

    def start(self) -> None:
        """Begin to deal, if that has not begun."""
        if self.greenlet is None:
            self.greenlet = gevent.spawn(self.run)

    def stop(self) -> None:
        """Deal no more."""
        if self.greenlet is not None:
            self.greenlet.kill(block=False)

    def run(self) -> None:
        """Deal the trace out, wait for the answers, and end the run."""
        now_s = time.time()
        start_unix_s = ceil(now_s + START_DELAY_S)  # locust counts by whole seconds
        start_s = time.perf_counter() + start_unix_s - now_s
        logger.info("Replay of %s from Unix time %d", self.trace.path, start_unix_s)
        try:
            self.deal(start_s)
        except TraceError as error:
            logger.error("%s", error)  # noqa: TRY400 - the message says all
            self.runner.log_exception("trace", str(error), "")
        while self.unanswered():
            gevent.sleep(REPORT_INTERVAL_S)
        text = "Replayed %d requests of %s in %.1f s; %d lines without an answer were left out"
        lasted_s = time.perf_counter() - start_s
        left_out = self.trace.unanswered
        logger.info(text, self.dealt.total(), self.trace.path, lasted_s, left_out)
        gevent.spawn(self.end)

    def end(self) -> None:
        """End the run, and locust too where it has no web UI."""
        options = self.runner.environment.parsed_options
        if options is not None and options.headless:
            self.runner.quit()
        else:
            self.runner.stop()

    def deal(self, start_s: float) -> None:
        """Deal every request out shortly before it is due.

        Raises:
            TraceError: A line of the file is not what it should be.
        """
        numbers = count(random.getrandbits(31) << 32)  # new prompts in each run
        hands: dict[str, list[Dealt]] = defaultdict(list)
        clients = self._await_ready()
        for turn, (number, request) in enumerate(zip(numbers, self.trace, strict=False)):
            due_s = request.arrival_s / self.speed
            early_s = start_s + due_s - time.perf_counter() - LEAD_S
            if turn % BATCH == 0 or early_s > 0:
                self._hand_out(hands, start_s)
                gevent.sleep(max(0.0, early_s))
                clients = self._await_ready()
            hand = hands[clients[turn % len(clients)]]
            fields = (
                request.arrival_s,
                request.prompt_tokens,
                request.output_tokens,
                request.blocks,
            )
            hand.append((due_s, number, *fields))
        self._hand_out(hands, start_s)

    def _await_ready(self) -> list[str]:
        """Return the processes that can send, once there is one."""
        warn_s = time.perf_counter() + PATIENCE_S
        while not (clients := self.alive()):
            gevent.sleep(0.05)
            if time.perf_counter() > warn_s:
                logger.warning("No user runs that could replay the trace: -u is too small?")
                warn_s += 60
        return clients

    def _hand_out(self, hands: dict[str, list[Dealt]], start_s: float) -> None:
        for client_id, requests in hands.items():
            self.dealt[client_id] += len(requests)
            started_s_ago = time.perf_counter() - start_s
            data = {"started_s_ago": started_s_ago, "requests": requests}
            self.runner.send_message(REQUESTS, data, client_id)
        hands.clear()

    def alive(self) -> list[str]:
        """Return the processes that can send."""
        if not isinstance(self.runner, MasterRunner):
            return self.ready
        clients = self.runner.clients
        here = {client.id for client in clients.running + clients.spawning + clients.ready}
        return [client_id for client_id in self.ready if client_id in here]

    def unanswered(self) -> int:
        """Return how many requests the processes that live have not seen the end of."""
        return sum(self.dealt[client_id] - self.answered[client_id] for client_id in self.alive())


def register_replay(environment: Environment, trace: Trace | None) -> None:
    """Have this process deal a trace out, or send what it is dealt, or both.

    Args:
        environment: Locust's.
        trace: What to replay, None in a worker.
    """
    runner = environment.runner
    assert runner is not None  # noqa: S101 - locust has made it before
    if isinstance(runner, LocalRunner | WorkerRunner):
        runner.register_message(REQUESTS, lambda msg, **_: THE_FEED.take(msg))
        environment.events.test_start.add_listener(lambda **_: THE_FEED.clear())
        gevent.spawn(THE_FEED.report, runner)
    if trace is not None:
        _register_dealer(environment, runner, trace)


def _register_dealer(environment: Environment, runner: Runner, trace: Trace) -> None:
    dealers: list[Dealer] = []

    def deal_anew(**_: Any) -> None:
        speed = Options.of(environment.parsed_options).trace_speed
        dealers[:] = [Dealer(runner, trace, speed)]

    def note_ready(msg: Any, **_: Any) -> None:
        dealers[0].add(msg.node_id)

    def note_answered(msg: Any, **_: Any) -> None:
        dealers[0].answered[msg.node_id] += msg.data["count"]

    runner.register_message(READY, note_ready)
    runner.register_message(ANSWERED, note_answered)
    environment.events.test_start.add_listener(deal_anew)
    environment.events.spawning_complete.add_listener(lambda **_: dealers[0].start())
    environment.events.test_stopping.add_listener(lambda **_: dealers[0].stop())


def trace_of(options: Options) -> Trace | None:
    """Return the trace that the options name, once its beginning was read.

    Raises:
        TraceError: It is none.
    """
    if options.trace is None:
        return None
    trace = Trace(Path(options.trace), options.trace_limit)
    trace.check()
    return trace
