"""The prompts of a legacy completion: counted, as token ids, and echoed."""

from collections.abc import Sequence

from emulator.apis.completions.schema import CompletionRequest
from emulator.contract.bounds import MAX_CHARACTERS_ECHOED
from emulator.contract.errors import APIError
from tokenizer import count_tokens, decode_tokens, encode


class CompletionPrompt:
    """The prompts of one request.

    Special tokens in texts are tokens where log probabilities are told of them, as scorers put
    ``<|endoftext|>`` before what they score; else they are ordinary text.
    """

    def __init__(self, completion: CompletionRequest) -> None:
        self._prompts = completion.prompt
        self._model = completion.model
        self._has_specials = completion.scores_prompt
        self.texts = tuple(prompt for prompt in completion.prompt if isinstance(prompt, str))
        self._ids: Sequence[Sequence[int]] | None = None

    def count(self) -> int:
        """Return the tokens of all prompts."""
        if self._has_specials:
            return sum(map(len, self.ids()))
        return sum(
            count_tokens(prompt, self._model) if isinstance(prompt, str) else len(prompt)
            for prompt in self._prompts
        )

    def ids(self) -> Sequence[Sequence[int]]:
        """Return the token ids of each prompt."""
        if self._ids is None:
            self._ids = [
                encode(prompt, self._model, specials=self._has_specials)
                if isinstance(prompt, str)
                else list(prompt)
                for prompt in self._prompts
            ]
        return self._ids


def echoes(completion: CompletionRequest) -> list[str]:
    """Return for each choice the prompt in front of its text: empty without ``echo``.

    Raises:
        APIError: A prompt of token ids has one that its encoding does not have, or the choices
            would repeat too much.
    """
    if not completion.echo:
        return [""] * completion.choices
    texts = []
    for prompt in completion.prompt:
        try:
            texts.append(
                prompt if isinstance(prompt, str) else decode_tokens(prompt, completion.model)
            )
        except KeyError as error:
            raise unknown_token(completion.model, error) from None
    n = completion.n or 1
    refuse_long_echoes(sum(map(len, texts)) * n)
    return [text for text in texts for _ in range(n)]


def refuse_long_echoes(characters: int) -> None:
    """Refuse to repeat more characters than all choices may.

    Raises:
        APIError: There are more.
    """
    if characters > MAX_CHARACTERS_ECHOED:
        raise APIError(
            f"Invalid 'echo': expected prompts of at most {MAX_CHARACTERS_ECHOED} characters in "
            f"all choices, but got {characters}.",
            param="echo",
            code="string_above_max_length",
        )


def unknown_token(model: str, error: KeyError) -> APIError:
    """Refuse a prompt with a token id that the encoding of `model` does not have."""
    return APIError(
        f"Invalid 'prompt': expected token ids of {model}, but got {error}.",
        param="prompt",
        code="invalid_value",
    )
