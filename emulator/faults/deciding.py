"""Whether a request fails, and how; the same arguments give the same decision."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from emulator.faults.asking import DEFAULT_SLICE_BYTES, DEFAULT_STATUS, FaultHeaders, Wish
from emulator.faults.codes import CODES
from emulator.faults.kinds import KINDS, Kind
from emulator.faults.rules import Match, Rule, Span


@dataclass(frozen=True, slots=True)
class Call:
    """The properties of a request that rules match, and the seed of random decisions.

    ``says_failed``: whether the answers of its API can say that they failed.
    """

    model: str
    path: str
    stream: bool
    user: str | None = None
    api_key: str = ""
    seed: int | None = None
    says_failed: bool = False


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


def first_match(rules: Sequence[Rule], call: Call) -> tuple[int, Rule] | None:
    """Return the index of the first rule that matches a call, and the rule.

    Rules whose kind does not fit whole answers, or the API, match the others only.
    """
    for index, rule in enumerate(rules):
        if fits(kind_of(rule), call) and matches(rule.match, call):
            return index, rule
    return None


def fits(kind: Kind, call: Call) -> bool:
    """Tell whether the answer to a call can fail so."""
    return kind.fits(stream=call.stream, says_failed=call.says_failed)


def matches(match: Match, call: Call) -> bool:
    """Return whether all given conditions match."""
    return (
        (match.stream is None or match.stream == call.stream)
        and (match.model is None or fnmatchcase(call.model, match.model))
        and (match.path is None or fnmatchcase(call.path, match.path))
        and (match.user is None or fnmatchcase(call.user or "", match.user))
        and (match.api_key is None or fnmatchcase(_sha256(call.api_key), match.api_key))
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def kind_of(wish: Wish) -> Kind:
    """Return the kind of options that do not contradict each other."""
    return KINDS[wish.kind_name or ""]


def decide(wish: FaultHeaders | Rule, attempt: int, seed: int | None) -> Fault | None:
    """Return the failure of this attempt, or None.

    Args:
        wish: Options without contradictions.
        attempt: The number of attempts before this one, 0 where they are not counted.
        seed: The seed of random decisions; None for irreproducible ones.
    """
    if wish.attempts is not None and attempt >= wish.attempts:
        return None
    # Python hashes texts with sha512, so that the draws of similar seeds are independent.
    chance = random if seed is None else random.Random(f"fault {seed}")
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
