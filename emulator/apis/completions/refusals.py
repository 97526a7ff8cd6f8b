"""Legacy requests that OpenAI refuses though each parameter of them is valid, or ignored here."""

from emulator.apis.completions.schema import CompletionRequest
from emulator.contract.errors import APIError


def refuse_completion(completion: CompletionRequest) -> None:
    """Refuse what OpenAI does.

    Raises:
        APIError: It is made of a chat's parameters, or wants the best of several answers as a
            stream, where which that is shows at the end alone.
    """
    if completion.messages is not None:
        raise _unrecognized("messages", "Did you mean POST /v1/chat/completions?")
    if completion.max_completion_tokens is not None and completion.max_tokens is None:
        raise _unrecognized("max_completion_tokens", "Did you mean 'max_tokens'?")
    n, best_of = completion.n or 1, completion.best_of or 1
    if completion.stream and best_of > n:
        raise APIError(
            f"Results cannot be streamed when 'best_of' is greater than 'n'. Expected {n}, or no "
            f"'stream', but got {best_of}.",
            param="best_of",
            code="invalid_value",
        )


def _unrecognized(name: str, advice: str) -> APIError:
    return APIError(f"Unrecognized request argument supplied: {name}. {advice}")
