"""Chats that OpenAI refuses though each parameter is valid by itself: they find real bugs."""

import re
from collections.abc import Iterable, Sequence

from emulator.apis.chat.calls import SchemaParam, schema_param
from emulator.apis.chat.messages import AssistantMessage, Message, ToolMessage
from emulator.apis.chat.reasoning_models import reasoning_model, refuse_unsupported
from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.chat.tools import FunctionTool, JsonSchemaFormat, Tool
from emulator.contract.errors import APIError
from emulator.contract.parts import JsonObjectFormat, JsonSchema
from emulator.schema_instances import strict_fault

MAX_IDS_TOLD = 16
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
        raise without_tools("tool_choice")
    elif chat.parallel_tool_calls is not None:
        raise without_tools("parallel_tool_calls")
    model = reasoning_model(chat.model)
    if model is not None:
        refuse_unsupported(chat, model)


def without_tools(param: str) -> APIError:
    """Refuse a parameter that says something of tools where there are none."""
    return APIError(
        f"Invalid value for '{param}': '{param}' is only allowed when 'tools' are specified.",
        param=param,
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
            else:
                _refuse_emptiness(message, index)
    if awaited:
        raise _unanswered(awaited, len(messages) - 1)


def _refuse_emptiness(message: AssistantMessage, index: int) -> None:
    if message.tool_calls is not None:
        param = f"messages[{index}].tool_calls"
        raise APIError(
            f"Invalid '{param}': empty array. Expected an array with minimum length 1, but got an "
            "empty array instead.",
            param=param,
            code="empty_array",
        )
    if says_nothing(message):
        raise APIError(
            "Invalid value for 'content': expected a string, got null.",
            param=f"messages.[{index}].content",
        )


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
