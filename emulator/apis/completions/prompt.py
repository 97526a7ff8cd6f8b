"""The prompts of a legacy completion: counted, as token ids, and echoed."""

from collections.abc import Sequence

from emulator.apis.completions.schema import CompletionRequest
from emulator.contract.bounds import MAX_CHARACTERS_ECHOED
from emulator.contract.errors import APIError
from tokenizer import count_tokens, decode_tokens, encode


class CompletionPrompt:
    """The prompts of one request."""

    def __init__(self, completion: CompletionRequest) -> None:
        self._prompts = completion.prompt
        self._model = completion.model
        self.texts = tuple(prompt for prompt in completion.prompt if isinstance(prompt, str))

    def count(self) -> int:
        """Return the tokens of all prompts."""
        return sum(
            count_tokens(prompt, self._model) if isinstance(prompt, str) else len(prompt)
            for prompt in self._prompts
        )

    def ids(self) -> Sequence[Sequence[int]]:
        """Return the token ids of each prompt."""
        return [
            encode(prompt, self._model) if isinstance(prompt, str) else list(prompt)
            for prompt in self._prompts
        ]


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
            raise APIError(
                f"Invalid 'prompt': expected token ids of {completion.model}, but got {error}.",
                param="prompt",
                code="invalid_value",
            ) from None
    characters = sum(map(len, texts)) * (completion.n or 1)
    if characters > MAX_CHARACTERS_ECHOED:
        raise APIError(
            f"Invalid 'echo': expected prompts of at most {MAX_CHARACTERS_ECHOED} characters in "
            f"all choices, but got {characters}.",
            param="echo",
            code="string_above_max_length",
        )
    return [text for text in texts for _ in range(completion.n or 1)]
