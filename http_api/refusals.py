"""What OpenAI refuses though each parameter is valid by itself: mistakes that find real bugs."""

import re
from collections.abc import Callable, Iterable, Sequence

from schema_instances import strict_fault
from schemas import (
    APIError,
    AssistantMessage,
    ChatCompletionRequest,
    FunctionTool,
    JsonObjectFormat,
    JsonSchema,
    JsonSchemaFormat,
    Message,
    Prompt,
    ResponseFormat,
    ToolMessage,
)

MAX_IDS_TOLD = 16
_match_reasoning_model = re.compile(r"(?:ft:)?(?:o[134]|gpt-5)(?!-chat)(?:[-.:]|$)").match
_say_json = re.compile("json", re.IGNORECASE).search


def refuse_chat(chat: ChatCompletionRequest, prompt: Prompt) -> None:
    """Refuse a chat that OpenAI refuses.

    Raises:
        APIError: In OpenAI's words.
    """
    refuse_loose_tool_messages(chat.messages)
    if chat.response_format is not None:
        _refuse_format(chat.response_format, prompt)
    if chat.tools is not None:
        refuse_loose_functions(chat, "tools[{}].function.parameters".format)
    elif chat.tool_choice is not None:
        raise APIError(
            "Invalid value for 'tool_choice': "
            "'tool_choice' is only allowed when 'tools' are specified.",
            param="tool_choice",
        )
    if chat.max_tokens is not None and is_reasoning_model(chat.model):
        raise APIError(
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            param="max_tokens",
            code="unsupported_parameter",
        )
    refuse_temperature(chat.temperature, chat.model)


def _refuse_format(response_format: ResponseFormat, prompt: Prompt) -> None:
    match response_format:
        case JsonObjectFormat():
            refuse_json_unsaid(prompt.texts)
        case JsonSchemaFormat(json_schema=named) if named.strict:
            refuse_loose_format(named.name, named.schema_, "response_format")


def refuse_loose_tool_messages(messages: Sequence[Message]) -> None:
    """Refuse results of tools without their calls, and calls without their results.

    Raises:
        APIError: A tool message follows no assistant message with its call, or a message or the
            end comes before all calls have their results.
    """
    called: set[str] = set()
    awaited: dict[str, None] = {}
    for index, message in enumerate(messages):
        if message.role == "user" and not called:  # most are: it is the quickest way past them
            continue
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in called:
                raise APIError(
                    "Invalid parameter: messages with role 'tool' must be a response to a "
                    "preceeding message with 'tool_calls'.",
                    param=f"messages.[{index}].role",
                )
            awaited.pop(message.tool_call_id, None)
            continue
        if awaited:
            raise _unanswered(awaited, index)
        called = set()
        if isinstance(message, AssistantMessage) and message.tool_calls:
            called = {call.id for call in message.tool_calls}
            awaited = dict.fromkeys(call.id for call in message.tool_calls)
    if awaited:
        raise _unanswered(awaited, len(messages) - 1)


def _unanswered(ids: Iterable[str], index: int) -> APIError:
    told = [call_id[:64] for call_id in ids]
    more = f" and {len(told) - MAX_IDS_TOLD} more" if len(told) > MAX_IDS_TOLD else ""
    return APIError(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to "
        "each 'tool_call_id'. The following tool_call_ids did not have response messages: "
        f"{', '.join(told[:MAX_IDS_TOLD])}{more}",
        param=f"messages.[{index}].role",
    )


def refuse_json_unsaid(texts: Iterable[str]) -> None:
    """Refuse a chat that asks for a JSON object and does not say so to the model.

    Raises:
        APIError: No text holds the word.
    """
    if not any(map(_say_json, texts)):
        raise APIError(
            "'messages' must contain the word 'json' in some form, to use 'response_format' of "
            "type 'json_object'.",
            param="messages",
        )


def refuse_loose_format(name: str, schema: JsonSchema | None, param: str) -> None:
    """Refuse the schema of a strict format that breaks the rules of strict mode.

    Raises:
        APIError: An object allows other properties, or does not require one of its own.
    """
    fault = strict_fault(schema)
    if fault is not None:
        raise APIError(f"Invalid schema for response_format '{name}': {fault}", param=param)


def refuse_loose_functions(chat: ChatCompletionRequest, param: Callable[[int], str]) -> None:
    """Refuse a strict function whose schema breaks the rules of strict mode.

    Args:
        chat: Has the tools.
        param: Returns the path of the schema of the tool with this index.

    Raises:
        APIError: An object allows other properties, or does not require one of its own.
    """
    for index, tool in enumerate(chat.tools or ()):
        if not isinstance(tool, FunctionTool) or not tool.function.strict:
            continue
        fault = strict_fault(tool.function.parameters)
        if fault is not None:
            raise APIError(
                f"Invalid schema for function '{tool.function.name}': {fault}",
                param=param(index),
                code="invalid_function_parameters",
            )


def is_reasoning_model(model: str) -> bool:
    """Tell whether OpenAI's model of this name reasons, and takes fewer parameters for that."""
    return _match_reasoning_model(model) is not None


def refuse_temperature(temperature: float | None, model: str) -> None:
    """Refuse a temperature for a model that has but one.

    Raises:
        APIError: It is none that the model takes.
    """
    if temperature is not None and temperature != 1 and is_reasoning_model(model):
        raise APIError(
            f"Unsupported value: 'temperature' does not support {temperature} with this model. "
            "Only the default (1) value is supported.",
            param="temperature",
            code="unsupported_value",
        )
