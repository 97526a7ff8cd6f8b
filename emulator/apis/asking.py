"""What the parameters that chat and legacy completions share ask of an answer."""

from dataclasses import replace
from typing import Any

from emulator.answers.ask import DEFAULT_NAMES, Ask, ParamNames
from emulator.apis.constraints import constraint_of, two_constraints
from emulator.contract.bodies import GenerationRequest
from emulator.contract.errors import APIError


def ask_of(
    body: GenerationRequest,
    *,
    schema: dict[str, Any] | None = None,
    scores_prompt: bool = False,
    names: ParamNames = DEFAULT_NAMES,
    **more: Any,  # noqa: ANN401 - the fields of Ask
) -> Ask:
    """Return what a body asks.

    Args:
        body: The body.
        schema: What its format asks the text to satisfy.
        scores_prompt: Whether log probabilities of the prompt can be told.
        names: The names of its parameters.
        more: The fields that its API fills in another way.

    Raises:
        APIError: It asks for what cannot be done.
    """
    streams = bool(body.stream)
    constraint = constraint_of(body)
    if constraint is not None:
        if schema is not None:
            raise two_constraints(constraint.param)
        if more.get("names_call"):
            raise APIError(
                "You can only either use constraints for structured outputs or tools, not both.",
                param=constraint.param,
            )
        schema = constraint.schema
        names = replace(names, format=constraint.param, schema=constraint.param)
    if body.prompt_logprobs is not None and not scores_prompt:
        raise APIError(
            "Unsupported parameter: 'prompt_logprobs' is not supported by this emulator.",
            param="prompt_logprobs",
            code="unsupported_parameter",
        )
    return Ask(
        model=body.model,
        stream=streams,
        n=body.n or 1,
        seed=body.seed,
        user=body.user,
        min_tokens=body.min_tokens or 0,
        ignore_eos=body.ignore_eos,
        stops=body.stops,
        stop_ids=frozenset(body.stop_token_ids or ()),
        keeps_stop=bool(body.include_stop_str_in_output),
        include_usage=streams and body.include_usage,
        continuous_usage=streams and body.continuous_usage,
        token_ids=bool(body.return_token_ids),
        schema=schema,
        schema_is_text=constraint is not None and constraint.is_text,
        names=names,
        **more,
    )
