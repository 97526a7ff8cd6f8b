"""The log lines of completions, which leave a few times a second: each alone costs 20 us."""

import asyncio
import logging

from metrics import FLUSH_EVERY_S

logger = logging.getLogger("bentoml.openai_emulator")


class LogLines:
    """Gathers lines, and hands them to the handlers of the service's logger.

    A handler formats its part of a line, such as time and worker, once for all lines that are
    handed over together; they are at most `FLUSH_EVERY_S` apart.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Add a line of level INFO."""
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH_EVERY_S, self.flush)
        self._lines.append(line)

    def flush(self) -> None:
        """Hand over the lines."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        for handler in _handlers():
            if isinstance(handler, logging.StreamHandler) and handler.filter(record := _record("")):
                before = handler.format(record)
                handler.acquire()
                try:
                    handler.stream.write("".join([f"{before}{line}\n" for line in lines]))
                    handler.flush()
                finally:
                    handler.release()
            else:
                for line in lines:
                    handler.handle(_record(line))


LINES = LogLines()


def _record(line: str) -> logging.LogRecord:
    return logging.LogRecord(logger.name, logging.INFO, __file__, 0, line, None, None)


def _handlers() -> list[logging.Handler]:
    """Return the handlers of the logger and of those above it."""
    handlers: list[logging.Handler] = []
    current: logging.Logger | None = logger
    while current is not None:
        handlers += [handler for handler in current.handlers if handler.level <= logging.INFO]
        current = current.parent if current.propagate else None
    return handlers
