"""The log lines of completions, which leave a few times a second: each alone costs 20 us."""

import asyncio
import logging

from emulator.metrics import FLUSH_EVERY_S

logger = logging.getLogger("bentoml.openai_emulator")

# More are not kept: to hand over so many takes about 0.15 ms.
_LINES_KEPT = 32

_FORMATTER = logging.Formatter()


def printable(text: str) -> str:
    """Return a text with escapes for all that a terminal could act on, line ends too."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Printable(logging.Filter):
    """Makes each record one printable line, and a traceback some of them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change a record, and let it pass."""
        message = record.getMessage()
        if not message.isprintable():
            record.msg, record.args = printable(message.rstrip("\n")), None
        if record.exc_info and not record.exc_text:
            traceback = _FORMATTER.formatException(record.exc_info)
            record.exc_text = "\n".join(map(printable, traceback.split("\n")))
        return True


def keep_lines_printable() -> None:
    """Let no handler of this process write what a terminal could act on."""
    server = logging.getLogger("uvicorn.error")
    # BentoML gives it a handler that the root has too: each traceback would be there twice.
    server.propagate = False
    known = {*logging.getLogger().handlers, *server.handlers, *_handlers()}
    for handler in known:
        handler.addFilter(Printable())


class LogLines:
    """Gathers lines, and hands them to the handlers of the service's logger.

    A handler formats its part of a line, such as time and worker, once for all lines that are
    handed over together; they are at most `FLUSH_EVERY_S` apart.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, line: str) -> None:
        """Add a line of level INFO."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_EVERY_S, self.flush)
        self._lines.append(line)
        if len(self._lines) >= _LINES_KEPT:
            self.flush()

    def flush(self) -> None:
        """Hand over the lines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        if not lines:
            return
        for handler in _handlers():
            if isinstance(handler, logging.StreamHandler) and handler.filter(record := _record("")):
                before = handler.format(record)
                handler.acquire()
                try:
                    text = "".join([f"{before}{printable(line)}\n" for line in lines])
                    handler.stream.write(text)
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
