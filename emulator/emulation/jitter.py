"""Jitter as clients ask for it: the headers X-TTFT-JITTER and X-ITL-JITTER."""

from collections.abc import Mapping, Sequence

from emulator.contract.error_words import invalid_header
from emulator.contract.headers import EmulationHeaders
from emulator.timing.jitter import Floats, Jitter, due_offsets
from emulator.timing.plan import GenerationPlan


class JitterAsked:
    """The distributions that a request asks for, checked.

    Args:
        headers: The X-* headers.
        traces: The gaps of each trace, by name.

    Raises:
        APIError: A header names no distribution.
    """

    def __init__(self, headers: EmulationHeaders, traces: Mapping[str, Floats]) -> None:
        self._ttft = parse_jitter("X-TTFT-JITTER", headers.ttft_jitter, traces)
        self._itl = parse_jitter("X-ITL-JITTER", headers.itl_jitter, traces)

    @classmethod
    def of(cls, headers: EmulationHeaders, traces: Mapping[str, Floats]) -> "JitterAsked | None":
        """Return what is asked for; None if nothing is.

        Raises:
            APIError: A header names no distribution.
        """
        if headers.ttft_jitter is None and headers.itl_jitter is None:
            return None
        return cls(headers, traces)

    def draw(self, plan: GenerationPlan, seed: int | None) -> Sequence[float]:
        """Draw when each token of a plan is due, in seconds after the start."""
        return due_offsets(
            plan.hidden_tokens + max(plan.output_tokens, 1),
            plan.ttft_s,
            plan.itl_s,
            ttft_jitter=self._ttft,
            itl_jitter=self._itl,
            seed=seed,
        )


def parse_jitter(name: str, text: str | None, traces: Mapping[str, Floats]) -> Jitter | None:
    """Read a distribution.

    Raises:
        APIError: The header names none.
    """
    try:
        return None if text is None else Jitter.parse(text, traces)
    except ValueError as error:
        raise invalid_header(name, str(error)) from None
