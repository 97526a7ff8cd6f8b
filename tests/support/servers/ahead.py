"""What many tests share and what takes seconds to start: begun before the first test asks for it.

A server's start takes 3 s, in which the tests before it can run as well.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias

import pytest

# Given an empty folder.
Start: TypeAlias = Callable[[Path], AbstractContextManager[Any]]

BEGUN = 2  # or wait for their first test


class Ahead:
    """Starts things in the order in which the tests to come ask for them, two at a time."""

    def __init__(self) -> None:
        self._starts: dict[str, Start] = {}
        self._to_come: deque[str] = deque()
        self._begun: dict[str, Future[tuple[Any, ExitStack]]] = {}
        self._starter = ThreadPoolExecutor(BEGUN)

    def know(self, name: str, start: Start) -> None:
        """Note what starts the thing of this name."""
        self._starts[name] = start

    def expect(self, names: Iterable[str]) -> None:
        """Begin with the first of the things that tests will ask for, by the tests' order."""
        self._to_come = deque(dict.fromkeys(name for name in names if name in self._starts))
        self._begin()

    @contextmanager
    def running(self, name: str) -> Iterator[Any]:
        """Yield a thing when it has started, and end it after the body."""
        if name in self._to_come:
            self._to_come.remove(name)
        started = self._begun.pop(name, None) or self._submit(name)
        self._begin()
        thing, stack = started.result()
        with stack:
            yield thing

    def close(self) -> None:
        """End what has begun and was not asked for, as a run of tests may be cut short."""
        self._to_come.clear()
        while self._begun:
            _, started = self._begun.popitem()
            if not started.cancel() and not started.exception():
                started.result()[1].close()

    def _begin(self) -> None:
        while self._to_come and len(self._begun) < BEGUN:
            name = self._to_come.popleft()
            self._begun[name] = self._submit(name)

    def _submit(self, name: str) -> Future[tuple[Any, ExitStack]]:
        return self._starter.submit(_started, self._starts[name])


def _started(start: Start) -> tuple[Any, ExitStack]:
    stack = ExitStack()
    try:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        return stack.enter_context(start(folder)), stack
    except BaseException:
        stack.close()
        raise


AHEAD = Ahead()


def shared(scope: Literal["session", "module"] = "session") -> Callable[[Start], Any]:
    """Make a fixture of a function that returns a context manager, entered ahead of its tests."""

    def decorate(start: Start) -> Any:  # noqa: ANN401 - a fixture
        name = start.__name__
        AHEAD.know(name, start)

        def fixture(local_only: None) -> Iterator[Any]:  # noqa: ARG001 - skips
            with AHEAD.running(name) as thing:
                yield thing

        fixture.__doc__ = start.__doc__
        return pytest.fixture(fixture, scope=scope, name=name)

    return decorate
