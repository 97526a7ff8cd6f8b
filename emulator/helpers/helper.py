"""The loop of a helper: it receives jobs over a connection and sends their results."""

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
    """Serve jobs until the worker closes the connection, or one fails or uses the helper up.

    Args:
        connection: The connection to the worker.
        work: Does a job.
        begin: Called before each job.
        is_used_up: Called after each job: whether the helper should exit.
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
        except Exception:  # noqa: BLE001 - the worker logs it
            kind, content = Kind.FAILED, traceback.format_exc()
        job = body = result = blob = None  # type: ignore[assignment]  # so that they do not count
        if kind is Kind.DONE and is_used_up():
            kind = Kind.LEAVING
        send(connection, kind, content)
        if kind is not Kind.DONE:
            return
