"""Log probabilities of prompts, as vLLM's ``prompt_logprobs`` tells them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence

from emulator.answers.ask import too_many_logprobs
from emulator.answers.logprobs import ScoredPrompts, TextLogprobs
from emulator.contract.bounds import MAX_LOGPROBS
from emulator.reading.reader import NO_TEXT
from tokenizer import encode, token_bytes

# What has no text has one byte here, which no token is.
_NO_BYTES = b"\xff"
NO_MARKERS: Mapping[int, str] = {}


class PromptLogprobs:
    """What makes them.

    Args:
        ids: Returns the token ids of each prompt.
        model: The model, whose encoding has them.
        top: How many of the likeliest tokens are told beside the prompt's own.
        choices: How often each prompt is told.
        markers: The texts of tokens that the encoding does not have.
    """

    is_quick = False

    def __init__(
        self,
        ids: Callable[[], Sequence[Sequence[int]]],
        model: str,
        top: int,
        *,
        choices: int = 1,
        markers: Mapping[int, str] = NO_MARKERS,
    ) -> None:
        self._markers = markers
        self._ids = ids
        self._model = model
        self._top = top
        self._choices = choices

    def make(self) -> ScoredPrompts:
        """Return the prompts with their log probabilities: of each a line, as JSON.

        Raises:
            APIError: There are too many of them.
        """
        prompts = self._ids()
        figures = sum(map(len, prompts)) * (1 + self._top) * self._choices
        if figures > MAX_LOGPROBS:
            raise too_many_logprobs(self._top)
        ends: list[int] = []
        parts: list[bytes] = []
        for ids in prompts:
            scores = TextLogprobs(TextLogprobs.start(self._model), max(self._top, 1))
            texts = list(self._texts(ids))
            scores.follow(texts)
            ends.append(scores.end)
            told = [self._place(scores, *each) for each in zip(ids, texts, strict=True)]
            parts.append(json.dumps([None, *told[1:]], separators=(",", ":")).encode() + b"\n")
        return ScoredPrompts(ends, figures, parts)

    def _texts(self, ids: Sequence[int]) -> Iterator[bytes]:
        """Yield the bytes of each token; of functions and pictures there are none."""
        for token in ids:
            marker = self._markers.get(token)
            if marker is not None:
                yield marker.encode()
                continue
            try:
                yield _NO_BYTES if token < NO_TEXT else token_bytes([token], self._model)[0]
            except KeyError:
                yield _NO_BYTES

    def _place(self, scores: TextLogprobs, token: int, utf8: bytes) -> dict[str, object]:
        """Return what is told of one token: itself, and the likeliest at its place."""
        text = utf8.decode("utf-8", "replace")
        likely = scores.entry(text).top
        ranks = {other: (rank, logprob) for rank, (other, logprob) in enumerate(likely, 1)}
        own_rank, own = ranks[text]
        told: dict[str, object] = {str(max(token, NO_TEXT)): _told(own_rank, own, text)}
        for other, (rank, logprob) in ranks.items():
            if rank <= self._top and other != text:
                told.setdefault(str(encode(other, self._model)[0]), _told(rank, logprob, other))
        return told


def _told(rank: int, logprob: float, text: str) -> dict[str, object]:
    return {"logprob": logprob, "rank": rank, "decoded_token": text}
