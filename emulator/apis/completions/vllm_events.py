"""JSON and server-sent events of legacy completions, as vLLM 0.32 writes them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic_core import from_json, to_json

from emulator.answers.answer import Answer, Segment
from emulator.answers.logprobs import Likelihood
from emulator.apis.completions.likelihoods import pieces
from emulator.contract.usage import Usage
from emulator.rendering.frames import with_logprobs
from emulator.rendering.renderer import SLOT, AnswerStream, CountUsage, Header
from emulator.rendering.vllm_parts import (
    FINGERPRINT,
    NO_PROMPT_LOGPROBS,
    VLLMRenderer,
    all_ids,
    whole_usage,
)

Json = dict[str, Any]


class VLLMCompletionRenderer(VLLMRenderer):
    """Writes legacy completions as vLLM does.

    Args:
        header: What every chunk says.
        echoes: For each choice the prompt that comes before its text.
        include_usage: Whether a stream ends with its usage.
        details: Whether the usage tells how many tokens of the prompt were cached.
        prompt_ids: The token ids of each prompt as JSON, where they are told.
        parts: The log probabilities of prompts, a line of JSON each, cut anywhere.
    """

    object = "text_completion"

    def __init__(
        self,
        header: Header,
        echoes: Sequence[str],
        *,
        include_usage: bool,
        details: bool,
        prompt_ids: Sequence[str] | None = None,
        parts: Sequence[bytes | bytearray] = (),
    ) -> None:
        super().__init__(
            header,
            include_usage=include_usage,
            details=details,
            prompt_ids=prompt_ids,
            parts=parts,
        )
        self._echoes = echoes

    def whole(self, answers: Sequence[Answer], usage: Usage) -> bytes | bytearray:
        """Return the whole answer as JSON."""
        completion = {
            **self._start(),
            "choices": [self._whole_choice(answer, len(answers)) for answer in answers],
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": whole_usage(usage, details=self._details),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
        start, *rest = to_json(completion).decode().split(NO_PROMPT_LOGPROBS)
        told = [self._prompt_logprobs_of(answer, len(answers)) for answer in answers]
        pairs = zip(told, rest, strict=True)
        pieces = (f'"prompt_logprobs":{each}{after}' for each, after in pairs)
        return with_logprobs("".join([start, *pieces]), self, answers)

    def stream(
        self, answers: Sequence[Answer], tokens_per_event: int, count_usage: CountUsage | None
    ) -> AnswerStream:
        """Return what renders the events as their tokens are due."""
        if self._prompt_ids is not None:
            for answer in answers:
                answer.prompt_ids = self._ids_of(answer, len(answers))
        return super().stream(answers, tokens_per_event, count_usage)

    def preamble(self, answer: Answer, segment: Segment) -> str:  # noqa: ARG002
        """Return the prompt, if it is to be echoed."""
        echo = self._echoes[answer.index]
        return self._text(answer, echo) if echo else ""

    def token(self, answer: Answer, segment: Segment) -> str:  # noqa: ARG002
        """Return the event of one token, with `SLOT` for its text."""
        return self._text(answer, SLOT)

    def logprobs(
        self,
        answer: Answer,  # noqa: ARG002
        entries: Iterable[Likelihood],
        offset: int,
    ) -> Iterator[str]:
        """Return the log probabilities of some tokens as JSON; `offset` counts characters."""
        return pieces(entries, offset)

    def finish(self, answer: Answer) -> str:
        """Return the event that ends a choice by itself."""
        return self.ended(self._text(answer, ""), answer)

    def _prompt_logprobs_of(self, answer: Answer, choices: int) -> str:
        """Return the log probabilities of the prompt of a choice, null if none are told."""
        parts = self._prompt_logprobs
        return parts[answer.index // (choices // len(parts))] if parts else "null"

    def _ids_of(self, answer: Answer, choices: int) -> str:
        """Return the ids of the prompt of a choice."""
        prompts = self._prompt_ids or ()
        return prompts[answer.index // (choices // len(prompts))]

    def _text(self, answer: Answer, text: str) -> str:
        return self._chunk(
            {
                "index": answer.index,
                "text": text,
                "logprobs": None,
                "finish_reason": None,
                "stop_reason": None,
                "prompt_token_ids": None,
                "token_ids": None,
            }
        )

    def _whole_choice(self, answer: Answer, choices: int) -> Json:
        told = self._prompt_ids is not None
        return {
            "index": answer.index,
            "text": self._echoes[answer.index] + "".join([s.text for s in answer.segments]),
            "logprobs": None,
            "finish_reason": answer.finish_reason,
            "stop_reason": answer.stop_reason,
            "token_ids": all_ids(answer),
            "prompt_logprobs": None,
            "prompt_token_ids": from_json(self._ids_of(answer, choices)) if told else None,
            "routed_experts": None,
        }
