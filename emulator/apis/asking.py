"""What the parameters that chat and legacy completions share ask of an answer."""

from typing import Any

from emulator.answers.ask import Ask
from emulator.contract.bodies import GenerationRequest


def ask_of(body: GenerationRequest, **more: Any) -> Ask:  # noqa: ANN401 - the fields of Ask
    """Return what a body asks; `more` are the fields that its API fills in another way."""
    streams = bool(body.stream)
    return Ask(
        model=body.model,
        stream=streams,
        n=body.n or 1,
        seed=body.seed,
        user=body.user,
        min_tokens=body.min_tokens or 0,
        ignore_eos=body.ignore_eos,
        stops=body.stops,
        include_usage=streams and body.include_usage,
        continuous_usage=streams and body.continuous_usage,
        **more,
    )
