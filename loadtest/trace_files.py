"""Recorded production traces as requests: when each one came, and how long it was.

Nothing here knows of locust. Files are read line by line, so that one of any size takes no memory.
"""

import csv
import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from math import inf, isfinite, nan
from pathlib import Path
from typing import Any, NamedTuple, TextIO

BLOCK_TOKENS = 512  # what one of Mooncake's hash_ids stands for
MAX_PROMPT_TOKENS = 2**21
MAX_OUTPUT_TOKENS = 2**17  # as many as the emulator gives
MAX_BLOCK_ID = 2**63 - 1
MAX_LINE_CHARACTERS = 2**20
IN_DISORDER = 1024  # lines among which a file's requests may stand in any order
CHECKED_BEFOREHAND = 100_000


class TraceError(ValueError):
    """A trace that cannot be read; the message says file, line, what was expected and what came."""


class TraceRequest(NamedTuple):
    """One recorded request.

    Args:
        arrival_s: When it came, in seconds after the trace's first request.
        prompt_tokens: The prompt's length.
        output_tokens: The answer's length, 1 or more.
        blocks: What the prompt begins with, an id for each 512 tokens; equal ids are equal text.
    """

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


@dataclass
class Trace:
    """The requests of a file in the order in which they came.

    Args:
        path: An Azure LLM or BurstGPT trace (CSV), or one of Mooncake's (JSONL).
        limit: Only the first so many requests.

    Attributes:
        unanswered: Lines that were left out as their answer has no token: recorded failures.
    """

    path: Path
    limit: int | None = None
    unanswered: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[TraceRequest]:
        """Read the file.

        Raises:
            TraceError: It is no trace, or a line is not what it should be.
        """
        self.unanswered = 0
        first_s = None
        for request in _in_order(self.path, islice(self._answered(), self.limit)):
            first_s = request.arrival_s if first_s is None else first_s
            yield request._replace(arrival_s=request.arrival_s - first_s)
        if first_s is None:
            raise TraceError(f"{self.path}: expected requests with an answer, but it has none")

    def check(self) -> None:
        """Read the first 100,000 requests, so that most bad files are refused before a test.

        Raises:
            TraceError: One of them is not what it should be.
        """
        for _ in islice(self, CHECKED_BEFOREHAND):
            pass

    def _answered(self) -> Iterator[tuple[int, TraceRequest]]:
        """Yield the number of each line that holds a request with an answer, and the request."""
        for line, request in _read(self.path):
            if request.output_tokens:
                yield line, request
            else:
                self.unanswered += 1


def _in_order(path: Path, requests: Iterable[tuple[int, TraceRequest]]) -> Iterator[TraceRequest]:
    """Yield requests by their time, from lines that are out of order by 1,024 at the most."""
    waiting: list[tuple[float, int, TraceRequest]] = []
    last_s = -inf
    for line, request in requests:
        if request.arrival_s < last_s:
            raise TraceError(
                f"{path}:{line}: expected times in order, but this one is "
                f"{last_s - request.arrival_s:g} s before that of a line over {IN_DISORDER} above"
            )
        heapq.heappush(waiting, (request.arrival_s, line, request))
        if len(waiting) > IN_DISORDER:
            last_s, _, first = heapq.heappop(waiting)
            yield first
    while waiting:
        yield heapq.heappop(waiting)[2]


# --------------------------------------------------------------------------------------
# Formats
# --------------------------------------------------------------------------------------


def _read(path: Path) -> Iterator[tuple[int, TraceRequest]]:
    """Yield each line's number, from 1, and its request, in the order of the file.

    Raises:
        TraceError: A line is not what it should be, or the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            is_json = file.read(1) == "{"
            file.seek(0)
            yield from (_read_jsonl if is_json else _read_csv)(_Lines(path, file))
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from None


@dataclass
class _Lines:
    """The lines of a file, each of a length that is bounded, and what is wrong with them."""

    path: Path
    file: TextIO
    number: int = 0

    def __iter__(self) -> Iterator[str]:
        while line := self.file.readline(MAX_LINE_CHARACTERS):
            self.number += 1
            if len(line) == MAX_LINE_CHARACTERS:
                raise self.error(f"a line of less than {MAX_LINE_CHARACTERS} characters", "more")
            yield line

    def error(self, expected: str, got: object) -> TraceError:
        """Return the error that says what was expected in the current line, and what came."""
        shown = str(got)
        shown = shown if len(shown) <= 80 else f"{shown[:80]}..."
        return TraceError(f"{self.path}:{self.number}: expected {expected}, but got {shown}")

    def count(self, fields: Mapping[str, Any], name: str, most: int) -> int:
        """Return the tokens that a field says.

        Raises:
            TraceError: They are no whole number from 0 to `most`.
        """
        number = self.number_of(fields, name)
        if not (0 <= number <= most and number == int(number)):
            raise self.error(f"a whole number from 0 to {most} as {name}", repr(fields.get(name)))
        return int(number)

    def number_of(self, fields: Mapping[str, Any], name: str) -> float:
        """Return the number that a field says.

        Raises:
            TraceError: It says none.
        """
        value = fields.get(name)
        try:
            number = nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = nan
        if not isfinite(number):
            raise self.error(f"a number as {name}", repr(value))
        return number


def _read_jsonl(lines: _Lines) -> Iterator[tuple[int, TraceRequest]]:
    """Read Mooncake's format, one JSON object a line."""
    for line in lines:
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise lines.error("a JSON object", repr(line.strip()))
        prompt_tokens = lines.count(fields, "input_length", MAX_PROMPT_TOKENS)
        yield (
            lines.number,
            TraceRequest(
                lines.number_of(fields, "timestamp") / 1000,
                prompt_tokens,
                lines.count(fields, "output_length", MAX_OUTPUT_TOKENS),
                _blocks(lines, fields.get("hash_ids", []), prompt_tokens),
            ),
        )


def _blocks(lines: _Lines, ids: Any, prompt_tokens: int) -> tuple[int, ...]:
    most = -(-prompt_tokens // BLOCK_TOKENS)
    if not isinstance(ids, list) or not all(
        type(block) is int and 0 <= block <= MAX_BLOCK_ID for block in ids
    ):
        raise lines.error("a list of whole numbers of at least 0 as hash_ids", repr(ids))
    if len(ids) > most:
        expected = f"at most {most} hash_ids, one for each {BLOCK_TOKENS} of {prompt_tokens} tokens"
        raise lines.error(expected, len(ids))
    return tuple(ids)


def _azure_s(lines: _Lines, fields: Mapping[str, Any]) -> float:
    """Return the time that Azure's traces give as a date, with or without an offset."""
    text = fields["TIMESTAMP"]
    try:
        instant = datetime.fromisoformat(text.strip())
    except ValueError:
        raise lines.error("a time like 2023-11-16 18:17:03.97 as TIMESTAMP", repr(text)) from None
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()


def _burst_s(lines: _Lines, fields: Mapping[str, Any]) -> float:
    """Return the time that BurstGPT gives in seconds."""
    return lines.number_of(fields, "Timestamp")


# The columns that a CSV trace is known by (time, prompt, answer), and what reads its time.
_CSV_FORMATS: dict[tuple[str, str, str], Callable[[_Lines, Mapping[str, Any]], float]] = {
    ("TIMESTAMP", "ContextTokens", "GeneratedTokens"): _azure_s,
    ("Timestamp", "Request tokens", "Response tokens"): _burst_s,
}


def _read_csv(lines: _Lines) -> Iterator[tuple[int, TraceRequest]]:
    """Read the formats that are CSV; columns are found by name, and further ones may be there."""
    reader = csv.reader(iter(lines))
    try:
        header = [name.strip() for name in next(reader, [])]
        columns = next((names for names in _CSV_FORMATS if set(names) <= set(header)), None)
        if columns is None:
            known = " or ".join(",".join(names) for names in _CSV_FORMATS)
            raise lines.error(f"the columns {known}, or lines of JSON", repr(",".join(header)))
        _, prompt, answer = columns
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise lines.error(f"{len(header)} columns", len(row))
            fields = dict(zip(header, row, strict=True))
            yield (
                lines.number,
                TraceRequest(
                    _CSV_FORMATS[columns](lines, fields),
                    lines.count(fields, prompt, MAX_PROMPT_TOKENS),
                    lines.count(fields, answer, MAX_OUTPUT_TOKENS),
                ),
            )
    except csv.Error as error:
        raise lines.error("a line of CSV", error) from None
