"""What the check prints."""

import time

STARTED_S = time.monotonic()
FAILED: list[str] = []


def tell(line: str) -> None:
    """Print a line with the time since the start."""
    print(f"[{time.monotonic() - STARTED_S:3.0f} s] {line}", flush=True)


def check(claim: str, holds: bool, seen: object) -> None:
    """Print whether a claim holds."""
    tell(f"{'ok' if holds else 'FAILED'}: {claim} ({seen})")
    if not holds:
        FAILED.append(claim)
