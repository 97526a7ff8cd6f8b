"""What a response repeats of its request."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from emulator.apis.responses.compaction import asks_to_compact
from emulator.apis.responses.schema.answer import Echo
from emulator.apis.responses.schema.request import ConversationReference, ResponsesRequest
from emulator.apis.responses.schema.tools import (
    NamespaceTool,
    ResponseCustomTool,
    ResponseFunction,
    SchemaFormat,
)
from emulator.contract.errors import APIError

# What a response repeats stands in its first two events and in its last.
MAX_ECHO = 1_048_576

ENCRYPTED = "reasoning.encrypted_content"


@dataclass(frozen=True, slots=True)
class Echoed:
    """What the request says of how its response is written.

    Args:
        json: What the response repeats of it.
        encrypted: Whether it has its reasoning, encrypted.
        compacts: Whether it is what is left of the conversation.
    """

    json: str
    encrypted: bool = False
    compacts: bool = False

    @classmethod
    def of(cls, request: ResponsesRequest) -> "Echoed":
        """Return what the response to a request repeats.

        Raises:
            APIError: It would repeat too much.
        """
        echo = _echo(request).model_dump_json()[1:]
        refuse_long_echo(len(echo), "instructions, tools and a format")
        return cls(echo, ENCRYPTED in (request.include or ()), asks_to_compact(request))


def refuse_long_echo(length: int, what: str) -> None:
    """Refuse a request of which an answer would repeat too much.

    Raises:
        APIError: It is more than ``MAX_ECHO`` characters of `what`.
    """
    if length > MAX_ECHO:
        raise APIError(
            f"Invalid request: expected {what} of at most {MAX_ECHO} characters, which the "
            f"response repeats, but got {length}.",
            code="string_above_max_length",
        )


def _echo(request: ResponsesRequest) -> Echo:
    """Return what a response repeats of its request, with OpenAI's defaults."""
    conversation = request.conversation
    if isinstance(conversation, ConversationReference):
        conversation = conversation.id
    reasoning = request.reasoning
    return Echo(
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        max_tool_calls=request.max_tool_calls,
        model=request.model,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        previous_response_id=request.previous_response_id,
        conversation=None if conversation is None else {"id": conversation},
        prompt=request.prompt and request.prompt.model_dump(),
        prompt_cache_options=_cache_options(request.prompt_cache_options),
        prompt_cache_key=request.prompt_cache_key,
        prompt_cache_retention=request.prompt_cache_retention,
        reasoning={
            "context": reasoning and reasoning.context,
            "effort": reasoning and reasoning.effort,
            "mode": reasoning and reasoning.mode,
            "summary": reasoning and (reasoning.summary or reasoning.generate_summary),
        },
        safety_identifier=request.safety_identifier,
        store=request.store is not False,
        temperature=1.0 if request.temperature is None else request.temperature,
        frequency_penalty=request.frequency_penalty or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        text=_text(request),
        tool_choice=_echoed(request.tool_choice or "auto"),
        tools=[_echoed(tool) for tool in request.tools or ()],
        top_logprobs=request.top_logprobs or 0,
        top_p=1.0 if request.top_p is None else request.top_p,
        truncation=request.truncation or "disabled",
        user=request.user,
        metadata=request.metadata or {},
    )


def _cache_options(given: object) -> dict[str, Any] | None:
    """Return how the prompt is cached, where the request says something of it."""
    return {"mode": "implicit", "ttl": "30m"} | given if isinstance(given, dict) else None


def _text(request: ResponsesRequest) -> dict[str, Any]:
    asked = request.text and request.text.format
    text: dict[str, Any] = {"format": _echoed(asked) if asked else {"type": "text"}}
    if isinstance(asked, SchemaFormat):
        text["format"]["strict"] = bool(asked.strict)
    return text | {"verbosity": (request.text and request.text.verbosity) or "medium"}


def _echoed(value: Any) -> Any:  # noqa: ANN401 - a tool, a choice or a format, as JSON
    """Return a part of the request as the response repeats it."""
    match value:
        case ResponseFunction():
            strict = {"strict": value.strict is not False}
            return {"description": None, "parameters": None} | _given(value) | strict
        case ResponseCustomTool():
            return _given(value)
        case NamespaceTool():
            return _given(value) | {"tools": [_echoed(tool) for tool in value.tools]}
        case BaseModel():
            return value.model_dump(by_alias=True, exclude_none=True)
        case _:
            return value


def _given(tool: BaseModel) -> dict[str, Any]:
    """Return all that a request says of a tool."""
    return tool.model_dump(by_alias=True, exclude_unset=True)
