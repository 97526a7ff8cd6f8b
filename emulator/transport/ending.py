"""What is known of an answer when it has ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from emulator.timing.pace import Pace
from emulator.timing.plan import FinishReason


@dataclass(slots=True, kw_only=True)
class Ending:
    """What is known of an answer when it has ended; all times in seconds after the start.

    Args:
        kind: What was made: ``completion``, ``embeddings`` or ``moderations``.
        id: The answer's id; empty where it has none.
        is_stream: Whether it was a stream of events.
        finish_reasons: Of each choice.
        tokens_in: The tokens of the prompt, where they are counted.
        tokens: The tokens of each choice that came; of embeddings, those of the inputs.
        planned: The tokens of each choice that were planned.
        all_tokens: The tokens of all choices that came, reasoning included.
        is_complete: Whether the client got all of a proper answer.
        ttft_s: When the first token was due, and when it left.
        itl_s: The time from token to token that was asked, and its mean.
        gap_s: The gap between two events that was asked, and the largest.
        total_s: When all was due, and when it had left.
        ttft_lag_s: How late the first token of a stream left.
        itl_lag_s: By how much a gap of a stream was longer than asked, its largest.
        whole_lag_s: How late an answer that is not streamed left.
        worst_lag_s: How late the latest token left, waiting for the client aside.
        blocked_s: How long writes waited for the client.
        queue_s: How long it waited in the queue of an engine, if one made its times.
        pace: What was measured of a stream.
        fault: The failure on purpose, and after how many tokens: ``reset@12``.
        note: More for the log line.
    """

    kind: str
    id: str = ""
    is_stream: bool = False
    tokens_in: int | None = None
    finish_reasons: Sequence[FinishReason] = ()
    tokens: int
    planned: int = 0
    all_tokens: int = 0
    is_complete: bool
    ttft_s: tuple[float, float | None] = (0.0, None)
    itl_s: tuple[float, float | None] = (0.0, None)
    gap_s: tuple[float, float | None] = (0.0, None)
    total_s: tuple[float, float]
    ttft_lag_s: float | None = None
    itl_lag_s: float | None = None
    whole_lag_s: float | None = None
    worst_lag_s: float | None = None
    blocked_s: float = 0.0
    queue_s: float | None = None
    pace: Pace | None = None
    fault: str = ""
    note: str = ""


class Delivery(Protocol):
    """An answer that can tell how it ended."""

    def ending(self) -> Ending:
        """Return what is known of it by now."""

    def release(self) -> None:
        """Release the request's resources: its place in an engine, and a count under way."""
