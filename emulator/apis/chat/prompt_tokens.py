"""The prompt tokens of each API's requests, and the prompts that are echoed."""

from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.completions.schema import CompletionRequest
from emulator.contract.bounds import MAX_CHARACTERS_ECHOED
from emulator.contract.errors import APIError
from emulator.contract.parts import Prompt
from emulator.prompts.counting import count_function_tokens, count_image_tokens, count_prompt_tokens
from tokenizer import count_tokens, decode_tokens


def count_chat_prompt(chat: ChatCompletionRequest, prompt: Prompt) -> int:
    """Return the prompt tokens of a chat: its text, its images and its functions."""
    text = count_prompt_tokens(chat.model, prompt.texts, prompt.messages, prompt.named)
    images = (
        count_image_tokens(chat.model, image.url.width, image.url.height, image.detail)
        for image in prompt.images
    )
    return text + sum(images) + count_function_tokens(chat.model, prompt.functions)


def count_legacy_prompt(completion: CompletionRequest) -> int:
    """Return the prompt tokens of a legacy completion."""
    return sum(
        count_tokens(prompt, completion.model) if isinstance(prompt, str) else len(prompt)
        for prompt in completion.prompt
    )


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
