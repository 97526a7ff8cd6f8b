"""Whether a request fails, and how; the same arguments give the same decision."""

import random
from dataclasses import dataclass

from emulator.faults.asking import (
    DEFAULT_SLICE_BYTES,
    DEFAULT_STATUS,
    FaultHeaders,
    FaultRule,
    Span,
)
from emulator.faults.codes import CODES
from emulator.faults.kinds import KINDS, Kind


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure to inject.

    ``after_tokens``, ``after_s``, and ``code`` and ``message`` of the error are None if they were
    not given.
    """

    kind: Kind
    status: int = DEFAULT_STATUS
    code: str | None = None
    message: str | None = None
    after_tokens: int | None = None
    after_s: float | None = None
    retry_after_ms: int | None = None
    slice_bytes: int = DEFAULT_SLICE_BYTES


def kind_of(wish: FaultHeaders | FaultRule) -> Kind:
    """Return the kind of a wish that does not contradict itself."""
    return KINDS[wish.kind_name or ""]


def draw(wish: FaultHeaders | FaultRule, attempt: int, seed: int | None) -> Fault | None:
    """Return the failure that this attempt gets, or None.

    Args:
        wish: What is asked, without contradictions.
        attempt: How many attempts came before this one; 0 where attempts do not count.
        seed: Makes the draw of an attempt the same each time; None for chance.
    """
    if wish.attempts is not None and attempt >= wish.attempts:
        return None
    chance = chance_of("fault", attempt, seed)
    if chance.random() >= wish.probability:
        return None
    after = wish.after_tokens
    default = DEFAULT_STATUS if wish.code is None else CODES[wish.code].status
    return Fault(
        kind=kind_of(wish),
        status=wish.status or default,
        code=wish.code,
        message=wish.message,
        after_tokens=chance.randint(after.min, after.max) if isinstance(after, Span) else after,
        after_s=None if wish.after_ms is None else wish.after_ms / 1000,
        retry_after_ms=wish.retry_after_ms,
        slice_bytes=wish.slice_bytes or DEFAULT_SLICE_BYTES,
    )


def chance_of(purpose: str, attempt: int, seed: int | None) -> random.Random:
    """Return the source of an attempt's chance: one for each attempt with this seed.

    A text is hashed with sha512, so that neighbouring seeds have nothing in common.
    """
    if seed is None:
        return random.Random(random.getrandbits(64))
    return random.Random(f"{purpose} {seed} {attempt}" if attempt else f"{purpose} {seed}")
