"""What hangs on locust's events: options, rows, limits and charts."""

import logging
import sys
import time
from argparse import Namespace
from math import inf
from typing import Any

import gevent
import psutil
from flask import Response, jsonify, request
from locust import User
from locust.env import Environment
from locust.event import Events
from locust.runners import MasterRunner, WorkerRunner
from locust.web import WebUI

from loadtest.chart import add_charts
from loadtest.limits import broken_limits, exit_code, unjudged
from loadtest.options import Options, add_options
from loadtest.replay import ReplayUser, register_replay, trace_of
from loadtest.report import (
    THE_STOP,
    extend_run,
    extend_run_every_second,
    summary,
    use_fine_buckets,
)
from loadtest.user import ChatUser

logger = logging.getLogger(__name__)


def register(events: Events) -> None:
    """Register everything with locust, in every process of a run."""
    use_fine_buckets()
    events.init_command_line_parser.add_listener(add_options)
    events.init.add_listener(prepare)
    events.init.add_listener(measure_length)
    events.test_start.add_listener(forget_stop)
    events.test_stopping.add_listener(note_stop)
    events.test_stop.add_listener(warn_of_unanswered)
    events.test_stop.add_listener(tell_of_injected)
    events.quitting.add_listener(conclude)


def prepare(environment: Environment, web_ui: WebUI | None = None, **_: Any) -> None:
    """Choose the user classes that run, and extend the web UI.

    Workers keep all classes: their master, which alone knows what was picked, names those to run.
    """
    if isinstance(environment.runner, WorkerRunner):
        register_replay(environment, None)
        return
    try:
        trace = trace_of(Options.of(environment.parsed_options))
        choose_classes(environment, has_trace=trace is not None)
    except ValueError as error:
        end_workers(environment)
        sys.exit(f"locust: {error}")
    if environment.runner is not None:
        register_replay(environment, trace)
    if web_ui:
        add_charts(web_ui)
        assert web_ui.app is not None  # noqa: S101 - it is set in WebUI.__init__
        web_ui.app.before_request(refuse_bad_options)


def end_workers(environment: Environment) -> None:
    """Kill the workers of ``--processes``: none has begun, and they would wait for this master.

    To ask them to end is not enough. One that connects too late to be told ignores the signal that
    locust sends it then, and locust waits for it for ever.
    """
    started = getattr(environment.parsed_options, "processes", None)
    if started and isinstance(environment.runner, MasterRunner):
        for worker in psutil.Process().children():
            worker.kill()


def choose_classes(environment: Environment, has_trace: bool = False) -> None:
    """Leave the user classes that run; where none is picked, a trace is replayed alone.

    Raises:
        ValueError: There is a trace and no class to replay it, or the other way round.
    """
    options = environment.parsed_options
    tags = set(getattr(options, "tags", None) or ())
    excluded = set(getattr(options, "exclude_tags", None) or ())
    picked = bool(getattr(options, "user_classes", None)) or bool(tags)
    environment.user_classes[:] = [
        user_class
        for user_class in environment.user_classes
        if (picked or _runs_unpicked(user_class, has_trace))
        and _has_task(user_class, tags, excluded)
    ]
    replays = any(issubclass(user_class, ReplayUser) for user_class in environment.user_classes)
    if replays and not has_trace:
        raise ValueError("TraceUser needs a file to replay: --trace FILE")
    if has_trace and not replays:
        raise ValueError("--trace needs TraceUser, which was not picked")


def _runs_unpicked(user_class: type[User], has_trace: bool) -> bool:
    if has_trace:
        return issubclass(user_class, ReplayUser)
    return not getattr(user_class, "only_when_picked", False)


def refuse_bad_options() -> Response | None:
    """Answer a form with a bad option, before a test starts with it, with what the form shows."""
    if request.endpoint != "locust.swarm":
        return None
    try:
        Options.of(Namespace(**request.form.to_dict()))
    except ValueError as error:
        return jsonify({"success": False, "message": str(error)})
    return None


def measure_length(environment: Environment, **_: Any) -> None:
    """Have every process take the test's own length for that of its statistics."""
    gevent.spawn(extend_run_every_second, environment)
    environment.events.test_stopping.add_listener(lambda **_: extend_run(environment.stats))


def forget_stop(**_: Any) -> None:
    """Forget the stop of the run before."""
    THE_STOP.at_s = inf


def note_stop(**_: Any) -> None:
    """Note when this process stops its users."""
    THE_STOP.at_s = time.perf_counter()


def _has_task(user_class: type[User], tags: set[str], excluded: set[str]) -> bool:
    """Return whether locust leaves the class a task; it would try to run classes without one."""
    tags_of_tasks: list[set[str]] = [getattr(t, "locust_tag_set", set()) for t in user_class.tasks]
    return any((not tags or tags & own) and not excluded & own for own in tags_of_tasks)


def warn_of_unanswered(**_: Any) -> None:
    """Say how many of this process's requests are in no row of requests and failures."""
    ages_s = ChatUser.unanswered_s
    if ages_s:
        text = (
            "%d requests were still unanswered at the end; the oldest had been sent %.1f s before"
        )
        logger.warning(text, len(ages_s), max(ages_s))
    ages_s.clear()


def tell_of_injected(**_: Any) -> None:
    """Say how many of this process's answers the emulator broke on purpose, and which it saw."""
    for kind in sorted({kind for kind, _ in ChatUser.injected}):
        seen, unseen = ChatUser.injected[kind, True], ChatUser.injected[kind, False]
        text = "%d answers had the fault %s injected; %d of them failed"
        logger.info(text, seen + unseen, kind, seen)
    ChatUser.injected.clear()


def conclude(environment: Environment, **_: Any) -> None:
    """Log the run's figures and the limits that broke, and set the exit code."""
    if isinstance(environment.runner, WorkerRunner):
        return
    options = Options.of(environment.parsed_options)
    logger.info(summary(environment.stats))
    for line in unjudged(environment.stats, options):
        logger.warning("Not judged: %s", line)
    for line in broken_limits(environment.stats, options):
        logger.error("Limit broken: %s", line)
    code = exit_code(environment.stats, options)
    has_exceptions = environment.runner is not None and bool(environment.runner.exceptions)
    if code == 1 or (code == 0 and not has_exceptions):
        environment.process_exit_code = code
