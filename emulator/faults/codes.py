"""OpenAI's errors by their code: status, type and words.

The bodies are those that public reports hold, beside OpenAI's own: NextChat #3664, dataline #175,
one-api #737, pal-mcp-server #178, Home Assistant core #120072, openplayground #143, opencode #6071,
crewAI-examples #121; ``content_filter`` is Azure's (openai-dotnet #55).
"""

from dataclasses import dataclass

from emulator.limits.words import wrong_key

INVALID = "invalid_request_error"


@dataclass(frozen=True, slots=True)
class Code:
    """What OpenAI sends with a code.

    Args:
        status: The HTTP status.
        type: The error's type.
        message: Its words, with places for ``model``, ``limit``, ``requested``, ``wait``, ``key``.
        param: Its parameter.
        waits: Whether to wait helps, so that there may be a ``retry-after``.
    """

    status: int
    type: str
    message: str
    param: str | None = None
    waits: bool = False


CODES: dict[str, Code] = {
    "rate_limit_exceeded": Code(
        429,
        "tokens",
        "Rate limit reached for {model} in organization org-x on tokens per min (TPM): Limit "
        "{limit}, Used {limit}, Requested {requested}. Please try again in {wait}. Visit "
        "https://platform.openai.com/account/rate-limits to learn more.",
        waits=True,
    ),
    "insufficient_quota": Code(
        429,
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details. For more "
        "information on this error, read the docs: "
        "https://platform.openai.com/docs/guides/error-codes/api-errors.",
    ),
    "billing_not_active": Code(
        429,
        "billing_not_active",
        "Your account is not active, please check your billing details on our website.",
    ),
    "billing_hard_limit_reached": Code(400, INVALID, "Billing hard limit has been reached"),
    "context_length_exceeded": Code(
        400,
        INVALID,
        "This model's maximum context length is 8192 tokens. However, your messages resulted in "
        "8227 tokens. Please reduce the length of the messages.",
        "messages",
    ),
    "invalid_prompt": Code(
        400,
        INVALID,
        "Invalid prompt: your prompt was flagged as potentially violating our usage policy. Please "
        "try again with a different prompt: "
        "https://platform.openai.com/docs/guides/reasoning#advice-on-prompting",
    ),
    "content_policy_violation": Code(
        400,
        INVALID,
        "Your request was rejected as a result of our safety system. Your prompt may contain text "
        "that is not allowed by our safety system.",
    ),
    "content_filter": Code(
        400,
        INVALID,
        "The response was filtered due to the prompt triggering Azure OpenAI's content management "
        "policy. Please modify your prompt and retry. To learn more about our content filtering "
        "policies please read our documentation: https://go.microsoft.com/fwlink/?linkid=2198766",
        "prompt",
    ),
    "invalid_api_key": Code(401, INVALID, wrong_key("{key}").message),  # it is shown in full
    "account_deactivated": Code(
        401,
        INVALID,
        "The OpenAI account associated with this API key has been deactivated. If you are the "
        "developer for this OpenAI app, please check your email for more information. If you are "
        "seeing this error while using another app or site, please reach out to them for more "
        "help.",
    ),
    "unsupported_country_region_territory": Code(
        403, "request_forbidden", "Country, region, or territory not supported"
    ),
    "model_not_found": Code(
        404, INVALID, "The model `{model}` does not exist or you do not have access to it."
    ),
    "server_error": Code(
        500,
        "server_error",
        "The server had an error while processing your request. Sorry about that!",
        waits=True,
    ),
    "server_is_overloaded": Code(
        503,
        "service_unavailable_error",
        "The server is currently overloaded. Please try again later.",
        waits=True,
    ),
}

# A prompt that is too long, in the words of the APIs that have others than chats: param, message.
TOO_LONG: dict[str, tuple[str | None, str]] = {
    "/v1/responses": (
        "input",
        "Your input exceeds the context window of this model. Please adjust your input and try "
        "again.",
    ),
    "/v1/completions": (
        None,
        "This model's maximum context length is 8192 tokens, however you requested 8227 tokens "
        "(8207 in your prompt; 20 for the completion). Please reduce your prompt; or completion "
        "length.",
    ),
    "/v1/embeddings": (
        None,
        "This model's maximum context length is 8192 tokens, however you requested 8227 tokens "
        "(8227 in your prompt; 0 for the completion). Please reduce your prompt; or completion "
        "length.",
    ),
}
