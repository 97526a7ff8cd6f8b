"""Token counts and log probabilities, as several APIs tell them."""

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel


class PromptTokensDetails(BaseModel):
    """What the prompt's tokens were."""

    cached_tokens: int = 0
    audio_tokens: int = 0


class CompletionTokensDetails(BaseModel):
    """What the answer's tokens were."""

    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


# Most answers have these, and nobody changes them.
_NOTHING_CACHED = PromptTokensDetails()
_NOTHING_HIDDEN = CompletionTokensDetails()


class Usage(BaseModel):
    """Token counts of one request and its answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails = PromptTokensDetails()
    completion_tokens_details: CompletionTokensDetails = CompletionTokensDetails()

    @classmethod
    def of(cls, prompt: int, visible: int, hidden: int = 0, cached: int = 0) -> Self:
        """Return the usage of a request with these numbers of tokens.

        Args:
            prompt: Of the prompt.
            visible: Of the texts that the client gets.
            hidden: Of the reasoning.
            cached: Of the prompt's tokens, those from the cache; at most all.
        """
        return cls(
            prompt_tokens=prompt,
            completion_tokens=visible + hidden,
            total_tokens=prompt + visible + hidden,
            prompt_tokens_details=_NOTHING_CACHED
            if not cached
            else PromptTokensDetails(cached_tokens=min(cached, prompt)),
            completion_tokens_details=_NOTHING_HIDDEN
            if not hidden
            else CompletionTokensDetails(reasoning_tokens=hidden),
        )

    def told(self, figures: Mapping[str, int]) -> Self:
        """Return it with figures in place of some; the total is their sum if it is none of them."""
        prompt = figures.get("prompt_tokens", self.prompt_tokens)
        completion = figures.get("completion_tokens", self.completion_tokens)
        cached = figures.get("cached_tokens", self.prompt_tokens_details.cached_tokens)
        thoughts = self.completion_tokens_details.reasoning_tokens
        return type(self)(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=figures.get("total_tokens", prompt + completion),
            prompt_tokens_details=PromptTokensDetails(cached_tokens=cached),
            completion_tokens_details=CompletionTokensDetails(
                reasoning_tokens=figures.get("reasoning_tokens", thoughts)
            ),
        )


class TopLogprob(BaseModel):
    """One likely token at a position."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token of the answer, how likely it was, and what else was likely."""

    top_logprobs: list[TopLogprob]
