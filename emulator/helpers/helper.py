"""A helper: does one job after the other, as they come over a connection."""

import socket
import traceback
from collections.abc import Callable

from emulator.helpers.wire import Kind, Work, receive, send


def serve(
    connection: socket.socket,
    work: Work,
    begin: Callable[[], None],
    is_used_up: Callable[[], bool],
) -> None:
    """Do the jobs that come, until the worker closes the connection or one of them fails.

    Args:
        connection: Leads to the worker.
        work: Does a job.
        begin: Is called before each job.
        is_used_up: Is asked after each job whether the helper has to end.
    """
    while (job := receive(connection)) is not None:
        begin()
        kind, content = Kind.DONE, ""
        try:
            (content_of_job, state), body = job
            if state is not None:
                work.adopt(state)
            for result, blob in work(content_of_job, body):
                send(connection, Kind.RESULT, result, blob)
        except MemoryError:
            kind = Kind.TOO_LARGE
        except Exception:  # noqa: BLE001 - the worker tells of it
            kind, content = Kind.FAILED, traceback.format_exc()
        job = body = result = blob = None  # type: ignore[assignment]  # the memory is looked at without them
        if kind is Kind.DONE and is_used_up():
            kind = Kind.LEAVING
        send(connection, kind, content)
        if kind is not Kind.DONE:
            return
