"""Parameters of chats that Responses have under other names, or not at all."""

from collections.abc import Mapping
from typing import Any

from emulator.contract.errors import refusal

# Those of chat completions, and where they are in Responses.
MOVED = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "logprobs": "include",
    "functions": "tools",
    "function_call": "tool_choice",
}
# vLLM's, which would decide what the answer says.
GUIDED = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")
REFUSED = frozenset([*MOVED, *GUIDED, "n"])


def refuse_chat_parameters(body: Mapping[str, Any]) -> None:
    """Refuse a parameter that is in use and would change the answer, were it understood.

    Raises:
        PydanticCustomError: In OpenAI's words; it names the parameter to use in its place.
    """
    for name in body:
        if name not in REFUSED or body[name] is None or (name == "n" and body[name] == 1):
            continue
        if name == "n":
            raise refusal("Unknown parameter: 'n'.", "unknown_parameter", "n")
        if name in GUIDED:
            raise refusal(
                f"Unsupported parameter: '{name}' is not supported in the Responses API. "
                "Use 'text.format' instead.",
                "unsupported_parameter",
                name,
            )
        raise refusal(
            f"Unsupported parameter: '{name}'. In the Responses API, this parameter has moved to "
            f"'{MOVED[name]}'. Try again with the new parameter. See the API documentation for "
            "more information: https://platform.openai.com/docs/api-reference/responses/create.",
            "unsupported_parameter",
            name,
        )
