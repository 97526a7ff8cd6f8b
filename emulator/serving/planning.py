"""From a request and its headers to the plan of its answer."""

import math
from collections.abc import Mapping, Sequence

from emulator.apis.chat.request import ChatCompletionRequest
from emulator.contract.bodies import GenerationRequest, too_many_tokens
from emulator.contract.bounds import MAX_TOKENS_OF_ALL_CHOICES
from emulator.contract.error_words import invalid_header
from emulator.contract.errors import APIError
from emulator.contract.headers import EmulationHeaders
from emulator.settings import Settings
from emulator.timing.jitter import Floats, Jitter, due_offsets
from emulator.timing.plan import GenerationPlan


def plan_generation(
    request: GenerationRequest, headers: EmulationHeaders, settings: Settings
) -> GenerationPlan:
    """Decide the length and the times of one answer of plain text.

    Raises:
        APIError: The answer with its reasoning, or all choices together, would be longer than the
            server allows, or ``min_tokens`` exceeds the client's own limit.
    """
    ttft_ms = settings.ttft_ms if headers.ttft_ms is None else headers.ttft_ms
    itl_ms = settings.itl_ms if headers.itl_ms is None else headers.itl_ms
    limit = request.token_limit[1]
    reasoning = headers.reasoning_length
    if reasoning is None:
        reasoning = settings.reasoning_lengths.get(request.effort or "", 0)
    if limit is not None:
        reasoning = min(reasoning, limit)
    shown = settings.reasoning_content and isinstance(request, ChatCompletionRequest)
    length = _output_length(request, headers, settings)
    visible_limit = None if limit is None else limit - reasoning
    tokens = length if visible_limit is None else min(length, visible_limit)
    if reasoning + tokens > settings.max_output_length:
        source = request.EFFORT_PARAM if headers.reasoning_length is None else "X-REASONING-LENGTH"
        raise _too_long(source, reasoning + tokens, settings)
    if max(reasoning + tokens, 1) * request.choices > MAX_TOKENS_OF_ALL_CHOICES:
        raise too_many_tokens(request, "prompt")
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


def _output_length(
    request: GenerationRequest, headers: EmulationHeaders, settings: Settings
) -> float:
    """Return how long the answer would be if the client's limit did not cut it."""
    (limit_name, limit), least = request.token_limit, request.min_tokens or 0
    ignores_eos = settings.ignore_eos if request.ignore_eos is None else request.ignore_eos
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
        length, source = math.inf, limit_name
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


def refuse_beyond_timeout(plan: GenerationPlan, timeout_s: float) -> None:
    """Refuse at once a whole answer that BentoML would cut off later.

    Raises:
        APIError: The last token is due after the server's timeout.
    """
    if plan.total_s >= timeout_s:
        raise APIError(
            f"This answer would take {plan.total_s:g} s, and an answer that is not streamed must "
            f"take less than {timeout_s:g} s. Set 'stream' to true, lower X-TTFT-MS, "
            "X-ITL-MS or X-OUTPUT-LENGTH, or raise the server's timeout_s.",
            param="stream",
            code="timeout_exceeded",
        )


def draw_offsets(
    plan: GenerationPlan,
    headers: EmulationHeaders,
    seed: int | None,
    traces: Mapping[str, Floats],
) -> Sequence[float]:
    """Draw when each token is due, in seconds after the start.

    Raises:
        APIError: A header names no distribution.
    """
    return due_offsets(
        plan.hidden_tokens + max(plan.output_tokens, 1),
        plan.ttft_s,
        plan.itl_s,
        ttft_jitter=parse_jitter("X-TTFT-JITTER", headers.ttft_jitter, traces),
        itl_jitter=parse_jitter("X-ITL-JITTER", headers.itl_jitter, traces),
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
