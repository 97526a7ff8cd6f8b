"""Asks the service on simulated time, and returns its answers with their simulated times."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from tests.support.server import REPOSITORY, clean_environment
from tests.support.wire import CHAT_PATH, Answer, Block, Post, chat


@dataclass(frozen=True)
class Timed:
    """A request: when it is sent, how long its body takes, and when its client goes away, in s."""

    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = CHAT_PATH
    at_s: float = 0.0
    body_after_s: float = 0.0
    leaves_s: float | None = None

    @property
    def as_json(self) -> dict[str, Any]:
        """What the program is sent."""
        return {**asdict(self), "body": json.dumps(self.body)}


class Simulated:
    """The service on simulated time, which begins anew with each call.

    It has neither connections nor helpers: what cuts the first or needs the second is not for it.
    """

    def __init__(self, process: "subprocess.Popen[str]", errors: IO[str]) -> None:
        self._process = process
        self._errors = errors

    def answers(self, *requests: Timed | Post) -> list[Answer]:
        """Send requests at their times; `arrival_s` counts from when each was sent."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = [Timed(r.body, r.headers) if isinstance(r, Post) else r for r in requests]
        self._process.stdin.write(json.dumps([request.as_json for request in asked]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the program has ended:\n{self._told()}"
        answered = json.loads(line)
        assert isinstance(answered, list), answered
        return [_answer(**answer) for answer in answered]

    def _told(self) -> str:
        """Return what the program has written as its errors."""
        self._errors.seek(0)
        return self._errors.read()

    def stream(self, extra: Mapping[str, str] | None = None, /, **parameters: object) -> Answer:
        """Ask for a stream, as `tests.support.wire.stream` does."""
        (answer,) = self.answers(Timed({**chat(stream=True), **parameters}, extra or {}))
        return answer

    def whole(self, extra: Mapping[str, str] | None = None, /, **parameters: object) -> Answer:
        """Ask for a whole answer."""
        (answer,) = self.answers(Timed({**chat(), **parameters}, extra or {}))
        return answer


def _answer(
    status: int, headers: Mapping[str, str], blocks: Sequence[tuple[float, str]], ended_s: float
) -> Answer:
    timed = [Block(at_s, data.encode()) for at_s, data in blocks]
    return Answer(status, headers, [*timed, Block(ended_s, b"")])


@contextmanager
def running_simulation(**settings: object) -> Iterator[Simulated]:
    """Run the program with these settings of the service while the body runs."""
    told = json.dumps({name: str(value) for name, value in settings.items()})
    command = [sys.executable, "-m", "tests.support.simulated.program", told]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(  # noqa: S603 - our own program
            command,
            cwd=REPOSITORY,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        yield Simulated(process, errors)
