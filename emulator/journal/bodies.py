"""The answers of the journal, and the body of a mark."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_MARK = 200

Source = Literal["header", "body", "rule", "setting"]


class Times(BaseModel):
    """A time that was asked and what it was; null where there is none."""

    asked_ms: float | None
    actual_ms: float | None


class JournalRow(BaseModel):
    """One request that has ended."""

    id: str = Field(description="the x-request-id of its answer")
    answer_id: str = Field(description="the id in the answer's body; empty where it has none")
    at: float = Field(description="when its headers came, in s since 1970")
    ended_at: float = Field(description="when it ended, in s since 1970")
    worker: int = Field(description="from 1")
    revision: int = Field(description="of the changes that it came under")
    scope: str = Field(description="empty for none")
    key: str = Field(description="the name of its key in the file of keys; empty for none")
    method: str
    path: str
    model: str
    stream: bool | None = Field(description="null where it was refused before that was known")
    status: int = Field(description="499 if the client left before its end")
    code: str = Field(description="the code or type of the error; empty for none")
    finish_reason: str = Field(description="of the first choice; empty for none")
    tokens_in: int | None = Field(description="null where nobody has counted them")
    tokens_out: int = Field(description="of all choices, as far as they came")
    ttft: Times
    itl: Times = Field(description="from token to token; the actual one is the mean")
    total: Times
    worst_lag_ms: float | None = Field(
        description="how late its latest token left, waiting for the client aside"
    )
    blocked_ms: float = Field(description="how long writes waited for the client")
    fault: str = Field(description="the failure on purpose, as reset@12; empty for none")
    rules: list[str] = Field(description="the names of those that decided something")
    decided: dict[str, str] = Field(
        description="what said each value that is not the setting's: header X-TTFT-MS, "
        "body emulation.ttft_ms, rule slow.ttft_ms"
    )
    queue_ms: float | None = Field(description="the wait in an engine's queue; null without one")
    bytes_in: int = Field(description="of the body")
    client_left: bool


class Mark(BaseModel):
    """A text with a time."""

    at: float = Field(description="in s since 1970")
    text: str


class JournalPage(BaseModel):
    """Requests that have ended, the newest last, and where the next ones begin."""

    requests: list[JournalRow]
    next: str = Field(description="`after` of the next page: what ends from now on, or was left")
    marks: list[Mark] = Field(description="the last 100, the newest last")


class TokenInstant(BaseModel):
    """When a token was due and when it left, in ms after the request came."""

    due_ms: float
    left_ms: float | None = Field(description="null where its text left with a later token's")


class JournalEntry(JournalRow):
    """One request with the instants of its tokens."""

    tokens: list[TokenInstant] = Field(
        description="of a stream the first 512 events, which are tokens unless they were batched; "
        "none where they were overwritten"
    )
    body: str | None = Field(
        description="the first 64 KB of what came; null unless journal_bodies is set"
    )


class NewMark(BaseModel):
    """A text for journal, charts and log."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: Annotated[str, Field(min_length=1, max_length=MAX_MARK)]


class InFlight(BaseModel):
    """What is under way at that instant."""

    requests: int
    streams: int = Field(description="those of the requests whose head has left")


class Bounds(BaseModel):
    """The upper bounds of the buckets, in ms; each histogram has one bucket more, for the rest."""

    lag: list[float]
    ttft: list[float]
    itl: list[float]


class Lag(BaseModel):
    """How long after they were due tokens left in this second, waiting for clients aside."""

    timed: int = Field(description="tokens of streams, and whole answers, that were looked at")
    late: int = Field(description="those of them that were late by over 1 ms")
    p50_ms: float | None = Field(description="null where there were none")
    p99_ms: float | None
    max_ms: float | None
    buckets: list[int]


class Spread(BaseModel):
    """Two histograms of a time in this second, as it was asked and as it was, and their means."""

    asked: list[int]
    actual: list[int]
    asked_mean_ms: float | None = Field(description="null where there were none")
    actual_mean_ms: float | None


class ModelTimes(BaseModel):
    """The requests of a model that ended in this second."""

    requests: int
    ttft: Spread = Field(description="of streams")
    itl: Spread = Field(description="of streams, each with its mean")


class WorkerLoad(BaseModel):
    """One worker in this second."""

    worker: int = Field(description="from 1")
    pid: int
    cpu: float = Field(description="in % of one core; helpers aside")
    loop_lag_ms: float = Field(description="how late its event loop was, at most")
    requests: int = Field(description="under way")
    streams: int = Field(description="under way")


class EngineLoad(BaseModel):
    """The engines of all workers together."""

    running: int
    waiting: int
    cache: float = Field(description="the part of the blocks that is held, 0 to 1")
    prefix_queries: int = Field(description="tokens that were looked up in this second")
    prefix_hits: int = Field(description="tokens of them that were found")
    preemptions: int = Field(description="in this second")


class FullBucket(BaseModel):
    """A limit as it was after the last request of a key and a model."""

    key: str = Field(description="its name; empty for keys without one")
    model: str
    kind: Literal["requests", "tokens"]
    used: float = Field(description="0 to 1")
    limit: int


class Summary(BaseModel):
    """One second of all workers of this server; counts are of this second if nothing else is said.

    Summaries of several seconds add up: counts and buckets are sums.
    """

    at: float = Field(description="the end of the second, in s since 1970")
    span_s: float = Field(description="how long it was; longer after a gap")
    uptime_s: float
    revision: int
    requests: dict[str, int] = Field(description="that ended, by status")
    in_flight: InFlight
    tokens: int = Field(description="that left")
    lag: Lag
    bounds_ms: Bounds
    models: dict[str, ModelTimes] = Field(description="at most 20; the others are in 'other'")
    workers: list[WorkerLoad]
    engine: EngineLoad | None = Field(description="null without an engine")
    limits: list[FullBucket] = Field(description="the ten fullest")
    limited: int = Field(description="requests that a limit refused")
    faults: dict[str, int] = Field(description="failures on purpose since the start, by kind")
    rules: dict[str, int] = Field(description="matches of each rule since counts were set back")
    clients_left: int
    blocked: int = Field(description="streams that ended after a write had waited for the client")
    marks: list[Mark] = Field(description="of the last 5 minutes, at most 20")
