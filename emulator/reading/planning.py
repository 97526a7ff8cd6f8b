"""The plan of an answer: from what is asked to lengths and due times."""

import math

from emulator.answers.ask import Ask, too_many_tokens
from emulator.contract.bounds import MAX_TOKENS_OF_ALL_CHOICES
from emulator.contract.errors import APIError
from emulator.contract.headers import EmulationHeaders
from emulator.settings import Settings
from emulator.timing.plan import GenerationPlan

NOTHING = GenerationPlan(output_tokens=0, finish_reason="stop", ttft_s=0.0, itl_s=0.0)


def plan_generation(ask: Ask, headers: EmulationHeaders, settings: Settings) -> GenerationPlan:
    """Decide the length and the times of one answer of plain text.

    Raises:
        APIError: The answer with its reasoning, or all choices together, would be longer than the
            server allows, or ``min_tokens`` exceeds the client's own limit.
    """
    if not ask.generates:
        return NOTHING
    ttft_ms = settings.ttft_ms if headers.ttft_ms is None else headers.ttft_ms
    itl_ms = settings.itl_ms if headers.itl_ms is None else headers.itl_ms
    limit = ask.token_limit
    script = ask.script if ask.script is not None and ask.script.parts else None
    reasoning = headers.reasoning_length
    thoughts = 0 if script is None else len(script.reasoning)
    if thoughts:
        reasoning = thoughts
    elif reasoning is None:
        reasoning = settings.reasoning_lengths.get(ask.effort or "", 0)
    if limit is not None:
        reasoning = min(reasoning, limit)
    shown = (settings.shows_reasoning or bool(thoughts)) and ask.can_show_reasoning
    length = _output_length(ask, headers, settings)
    if script is not None:
        length = script.visible_tokens
    visible_limit = None if limit is None else limit - reasoning
    tokens = length if visible_limit is None else min(length, visible_limit)
    if script is not None:
        most = settings.max_output_length
        reasoning = min(reasoning, most)
        tokens = min(tokens, headers.output_length or most, most - reasoning)
    if reasoning + tokens > settings.max_output_length:
        source = ask.names.effort if headers.reasoning_length is None else "X-REASONING-LENGTH"
        raise _too_long(source, reasoning + tokens, settings)
    if max(reasoning + tokens, 1) * ask.choices > MAX_TOKENS_OF_ALL_CHOICES:
        raise too_many_tokens(ask, "prompt")
    return GenerationPlan(
        output_tokens=int(tokens),
        finish_reason="length" if length > tokens else "stop",
        ttft_s=ttft_ms / 1000,
        itl_s=itl_ms / 1000,
        sse_batch_size=headers.sse_batch_size,
        reasoning_tokens=reasoning,
        hidden_tokens=0 if shown else reasoning,
        token_limit=visible_limit,
    )


def _output_length(ask: Ask, headers: EmulationHeaders, settings: Settings) -> float:
    """Return how long the answer would be if the client's limit did not cut it."""
    limit, least = ask.token_limit, ask.min_tokens
    ignores_eos = settings.ignore_eos if ask.ignore_eos is None else ask.ignore_eos
    length: float
    if limit is not None and least > limit:
        raise APIError(
            f"Invalid 'min_tokens': integer above maximum value. "
            f"Expected a value <= {limit} (the request's token limit), but got {least} instead.",
            param="min_tokens",
            code="integer_above_max_value",
        )
    if headers.output_length is not None:
        length, source = headers.output_length, "X-OUTPUT-LENGTH"
    elif ignores_eos and limit is not None:
        length, source = math.inf, ask.names.limit
    else:
        length, source = settings.output_length, "output_length"
    if least > length:
        length, source = least, "min_tokens"
    tokens = length if limit is None else min(length, limit)
    if tokens > settings.max_output_length:
        raise _too_long(source, tokens, settings)
    return length


def _too_long(source: str, tokens: float, settings: Settings) -> APIError:
    return APIError(
        f"Invalid '{source}': expected at most {settings.max_output_length} tokens, reasoning "
        f"included, which is the most this server generates, but got {tokens}.",
        param=source,
        code="integer_above_max_value",
    )
