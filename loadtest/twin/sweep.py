"""A sweep: what a server did under a series of loads, one JSON line for each load."""

import json
from collections.abc import Iterable
from enum import Enum
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_LINE_BYTES = 64_000_000
MAX_LINES = 10_000
TIME_DIGITS = 2  # of ms: what is finer, a client does not see


class TwinError(Exception):
    """What cannot be measured, fitted or checked; the message says why."""


class Arrivals(Enum):
    """How the requests of a load come."""

    CLOSED = "closed"  # each client sends its next request when its last was answered
    BURST = "burst"  # all at once
    POISSON = "poisson"  # at random


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Load(_Record):
    """What is sent: `requests` with prompts of the lengths in `prompt_tokens`, in turns.

    ``rate`` is that of Poisson arrivals, in requests/s. With ``shared`` all prompts of a length are
    the same one, so that a prefix cache finds them.
    """

    arrivals: Arrivals = Arrivals.CLOSED
    clients: int = Field(1, ge=1, le=65_536)
    requests: int = Field(ge=1, le=1_000_000)
    prompt_tokens: tuple[int, ...] = Field(min_length=1, max_length=1000)
    output_tokens: int = Field(ge=1, le=1_000_000)
    rate: float | None = Field(None, gt=0)
    shared: bool = False

    def __str__(self) -> str:
        lengths = "+".join(map(str, self.prompt_tokens))
        how = {
            Arrivals.CLOSED: f"{self.clients} client{'s' * (self.clients > 1)}",
            Arrivals.BURST: f"burst of {self.requests}",
            Arrivals.POISSON: f"{self.rate or 0:.3g}/s",
        }[self.arrivals]
        return f"{lengths} tokens{' again' * self.shared}, {how}"


class Request(_Record):
    """One answered request: times in ms, on the clock of the load.

    ``ttft_ms`` counts from ``start_ms``, each of ``gaps_ms`` from the event with text before.
    """

    start_ms: float
    prompt_tokens: int = Field(ge=1)
    output_tokens: int = Field(ge=1)
    cached_tokens: int = Field(0, ge=0)
    ttft_ms: float = Field(gt=0)
    gaps_ms: tuple[float, ...] = ()

    @classmethod
    def of(cls, start_s: float, times_s: Iterable[float], **counts: int) -> Self:
        """Return a request by the instants of its start and its events, in s."""
        times = list(times_s)
        return cls(
            start_ms=round(start_s * 1000, TIME_DIGITS),
            ttft_ms=round((times[0] - start_s) * 1000, TIME_DIGITS),
            gaps_ms=tuple(round((b - a) * 1000, TIME_DIGITS) for a, b in pairwise(times)),
            **counts,
        )

    @property
    def times_ms(self) -> list[float]:
        """The instants of the events, on the clock of the load."""
        return list(accumulate(self.gaps_ms, initial=self.start_ms + self.ttft_ms))

    @property
    def e2e_ms(self) -> float:
        """The time from the start to the last event."""
        return self.ttft_ms + sum(self.gaps_ms)


class Point(_Record):
    """A load and what came of it; ``failures`` counts requests without an answer, by their name."""

    load: Load
    requests: tuple[Request, ...] = Field(min_length=1)
    failures: dict[str, int] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """The load in words."""
        return str(self.load)


class Known(_Record):
    """What a server said of itself, or its operator; None where nobody did."""

    url: str = ""
    model: str = ""
    measured: str = Field("", description="when the sweep began, in UTC")
    counted_by: str = Field("", description="where the lengths of the prompts come from")
    max_num_seqs: int | None = Field(None, ge=1)
    max_num_batched_tokens: int | None = Field(None, ge=1)
    kv_blocks: int | None = Field(None, ge=1)
    block_size: int | None = Field(None, ge=1)
    prefix_caching: bool | None = None
    notes: tuple[str, ...] = ()


class Sweep(_Record):
    """All points of a sweep, and what is known of the server beside them."""

    known: Known
    points: tuple[Point, ...]


class _Line(_Record):
    """One line of the file: what is known, or a point."""

    known: Known | None = None
    point: Point | None = None


def read_sweep(path: Path) -> Sweep:
    """Return the sweep in a file; what is known is what its last such line says.

    Raises:
        TwinError: The file cannot be read, or a line is not what it should be.
    """
    known, points = Known(), []
    try:
        with path.open("rb") as file:
            for number, text in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), 1):
                if number > MAX_LINES:
                    raise TwinError(f"{path}: expected at most {MAX_LINES} lines")
                line = _read_line(text, f"{path}, line {number}")
                known = line.known or known
                points += [line.point] if line.point else []
    except OSError as error:
        raise TwinError(f"{path}: {error.strerror}") from None
    return Sweep(known=known, points=tuple(points))


def _read_line(text: bytes, where: str) -> _Line:
    try:
        return _Line.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise TwinError(f"{where}: {place}: {fault['msg']}".replace(": :", ":")) from None


def append(path: Path, record: Known | Point) -> None:
    """Add what is known, or a point, to a file."""
    content = record.model_dump(mode="json", exclude_defaults=True)
    field = "point" if isinstance(record, Point) else "known"
    with path.open("a") as file:
        file.write(json.dumps({field: content}, separators=(",", ":")) + "\n")
