"""Runs the service on an event loop whose time is simulated: no machine is too slow for it.

`python -m tests.support.simulated.program SETTINGS`, a JSON object, reads a line of JSON with
requests for each run and answers with a line. Each run is in a fork: all begin alike, at 0 s.
"""

import time


def at_first_s() -> float:
    """Return the time before any loop runs."""
    return 0.0


now_s = at_first_s  # while a loop runs, that of the loop


def monotonic() -> float:
    """Return the simulated time, in seconds."""
    return now_s()


# Before the product is imported, which holds this function by its name.
time.monotonic = monotonic

import asyncio  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Mapping  # noqa: E402
from typing import Any  # noqa: E402

from bentoml._internal.utils.args import set_arguments  # noqa: E402

from emulator.timing import clock  # noqa: E402
from tests.support.simulated.loop import LoopAlarm, SimulatedLoop, run_on, wait_until  # noqa: E402

LONGEST_S = 60  # of a run, in real time: a loop that turns without end would never tell


class Call:
    """One request to the application, and what it sent back: when, in seconds from the start."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self._asked = asked
        self._body_is_read = False
        self.sent: list[tuple[float, dict[str, Any]]] = []

    async def run(self, application: Any) -> dict[str, Any]:  # noqa: ANN401 - an ASGI application
        """Ask at its time, and return the answer as JSON."""
        await wait_until(self._asked["at_s"])
        await application(self._scope(), self._receive, self._send)
        (_, start), *rest = self.sent
        return {
            "status": start["status"],
            "headers": {name.decode(): value.decode() for name, value in start["headers"]},
            "blocks": [
                (at_s, message["body"].decode()) for at_s, message in rest if message.get("body")
            ],
            "ended_s": self.sent[-1][0],
        }

    def _scope(self) -> dict[str, Any]:
        path = self._asked["path"]
        headers = {"host": "simulated", "content-type": "application/json"}
        headers |= {name.lower(): value for name, value in self._asked["headers"].items()}
        headers["content-length"] = str(len(self._asked["body"].encode()))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }

    async def _receive(self) -> dict[str, Any]:
        """Return the body, when it is there, and then that the client has gone away."""
        if not self._body_is_read:
            self._body_is_read = True
            await wait_until(self._asked["at_s"] + self._asked["body_after_s"])
            body = self._asked["body"].encode()
            return {"type": "http.request", "body": body, "more_body": False}
        if self._asked["leaves_s"] is None:
            await asyncio.get_running_loop().create_future()
        await wait_until(self._asked["leaves_s"])
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append((monotonic() - self._asked["at_s"], message))


def run(application: Any, requests: list[Mapping[str, Any]]) -> list[dict[str, Any]]:  # noqa: ANN401
    """Send an ASGI application requests, and return their answers."""
    global now_s  # noqa: PLW0603 - there is one time in a process
    loop = SimulatedLoop()
    now_s = loop.time
    clock._alarm = LoopAlarm

    async def ask_all() -> list[dict[str, Any]]:
        return await asyncio.gather(*(Call(asked).run(application) for asked in requests))

    return run_on(loop, ask_all())


def forked(application: Any, line: str) -> str:  # noqa: ANN401
    """Return what a run in a fork of this process answers, as JSON; a fault is a text."""
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        signal.alarm(LONGEST_S)
        try:
            answer: object = run(application, json.loads(line))
        except BaseException:  # noqa: BLE001 - told to whoever asked
            answer = traceback.format_exc()
        try:
            with open(writing, "w") as pipe:
                json.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        answered = pipe.read()
    os.waitpid(pid, 0)
    return answered


def main() -> None:
    """Answer until there are no more lines."""
    set_arguments(json.loads(sys.argv[1]))
    from service import OpenAIEmulator, application  # noqa: PLC0415 - reads its settings

    OpenAIEmulator.inner()  # type: ignore[attr-defined]  # bentoml.service returns a Service
    for line in sys.stdin:
        print(forked(application, line), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
