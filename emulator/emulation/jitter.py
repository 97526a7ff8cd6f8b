"""Jitter as clients ask for it: the headers X-TTFT-JITTER and X-ITL-JITTER."""

from collections.abc import Mapping, Sequence

from emulator.contract.error_words import invalid_header
from emulator.contract.headers import EmulationHeaders
from emulator.settings import Settings
from emulator.timing.jitter import Floats, Jitter, due_offsets
from emulator.timing.plan import GenerationPlan


class JitterAsked:
    """The distributions that a request asks for, checked.

    Args:
        ttft: The distribution of the TTFT, None for none.
        itl: That of the gaps.
        traces: The gaps of each trace, by name.

    Raises:
        APIError: One is no distribution.
    """

    def __init__(self, ttft: str | None, itl: str | None, traces: Mapping[str, Floats]) -> None:
        self._ttft = parse_jitter("X-TTFT-JITTER", ttft, traces)
        self._itl = parse_jitter("X-ITL-JITTER", itl, traces)

    @classmethod
    def of(
        cls, headers: EmulationHeaders, settings: Settings, traces: Mapping[str, Floats]
    ) -> "JitterAsked | None":
        """Return what is asked for, by header or else by the settings; None if nothing is.

        Raises:
            APIError: A header names no distribution.
        """
        ttft = settings.ttft_jitter if headers.ttft_jitter is None else headers.ttft_jitter
        itl = settings.itl_jitter if headers.itl_jitter is None else headers.itl_jitter
        return None if ttft is None and itl is None else cls(ttft, itl, traces)

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
