"""Chats that OpenAI refuses though each parameter is valid by itself: they find real bugs."""

import re
from collections.abc import Iterable, Sequence

from emulator.apis.chat.calls import SchemaParam, schema_param
from emulator.apis.chat.messages import AssistantMessage, Message, ToolMessage
from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.chat.tools import FunctionTool, JsonSchemaFormat, Tool
from emulator.contract.errors import APIError
from emulator.contract.parts import JsonObjectFormat, JsonSchema
from emulator.schema_instances import strict_fault

MAX_IDS_TOLD = 16
_match_reasoning_model = re.compile(r"(?:ft:)?(?:o[134]|gpt-5)(?!-chat)(?:[-.:]|$)").match
_say_json = re.compile("json", re.IGNORECASE).search


def refuse_chat(chat: ChatCompletionRequest, texts: Iterable[str]) -> None:
    """Refuse a chat that OpenAI refuses.

    Args:
        chat: The chat.
        texts: The texts of its prompt.

    Raises:
        APIError: In OpenAI's words.
    """
    refuse_loose_tool_messages(chat.messages)
    match chat.response_format:
        case None:
            pass
        case JsonObjectFormat() if not says_json(texts):
            raise APIError(
                "'messages' must contain the word 'json' in some form, to use 'response_format' "
                "of type 'json_object'.",
                param="messages",
            )
        case JsonSchemaFormat(json_schema=named) if named.strict:
            refuse_loose_format(named.name, named.schema_, "response_format")
    if chat.tools is not None:
        if chat.functions is not None:
            raise APIError(
                "Mutually exclusive parameters: 'tools' and 'functions'. Use 'tools' alone.",
                param="functions",
                code="mutually_exclusive_parameters",
            )
        refuse_loose_functions(chat.tools)
    elif chat.tool_choice is not None:
        raise choice_without_tools()
    if chat.max_tokens is not None and is_reasoning_model(chat.model):
        raise APIError(
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            param="max_tokens",
            code="unsupported_parameter",
        )
    refuse_temperature(chat.temperature, chat.model)


def choice_without_tools() -> APIError:
    """Refuse a choice of tools where there are none."""
    return APIError(
        "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are "
        "specified.",
        param="tool_choice",
    )


def refuse_loose_tool_messages(messages: Sequence[Message]) -> None:
    """Refuse results without calls, calls without results, and assistants that say nothing.

    Raises:
        APIError: A tool message follows no assistant message with its call, or a message or the
            end comes before all calls have their results, or an assistant message has no content.
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
        if isinstance(message, AssistantMessage):
            if message.tool_calls:
                called = {call.id for call in message.tool_calls}
                awaited = dict.fromkeys(call.id for call in message.tool_calls)
            elif says_nothing(message):
                raise APIError(
                    "Invalid value for 'content': expected a string, got null.",
                    param=f"messages.[{index}].content",
                )
    if awaited:
        raise _unanswered(awaited, len(messages) - 1)


def says_nothing(message: AssistantMessage) -> bool:
    """Tell whether a message without tool calls has nothing else that stands for a content."""
    stand_ins = (message.content, message.refusal, message.function_call, message.audio)
    return all(part is None for part in stand_ins)


def _unanswered(ids: Iterable[str], index: int) -> APIError:
    told = [call_id[:64] for call_id in ids]
    more = f" and {len(told) - MAX_IDS_TOLD} more" if len(told) > MAX_IDS_TOLD else ""
    return APIError(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to "
        "each 'tool_call_id'. The following tool_call_ids did not have response messages: "
        f"{', '.join(told[:MAX_IDS_TOLD])}{more}",
        param=f"messages.[{index}].role",
    )


def says_json(texts: Iterable[str]) -> bool:
    """Tell whether a text says the word, in any case of letters and as part of any other."""
    return any(map(_say_json, texts))


def refuse_loose_format(name: str, schema: JsonSchema | None, param: str) -> None:
    """Refuse the schema of a strict format that breaks the rules of strict mode.

    Raises:
        APIError: An object allows other properties, or does not require one of its own.
    """
    fault = strict_fault(schema)
    if fault is not None:
        raise APIError(f"Invalid schema for response_format '{name}': {fault}", param=param)


def refuse_loose_functions(tools: Sequence[Tool], param: SchemaParam = schema_param) -> None:
    """Refuse a strict function whose schema breaks the rules of strict mode.

    Raises:
        APIError: An object allows other properties, or does not require one of its own.
    """
    for index, tool in enumerate(tools):
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
