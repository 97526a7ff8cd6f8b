"""What OpenAI refuses though each parameter is valid by itself: mistakes that find real bugs."""

import re
from collections.abc import Iterable, Sequence

from emulator.apis.chat.messages import AssistantMessage, Message, ToolMessage
from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.chat.tools import FunctionTool, JsonSchemaFormat
from emulator.apis.responses.as_chat import ResponsesChat
from emulator.apis.responses.schema import (
    CustomCallItem,
    CustomOutputItem,
    FunctionCallItem,
    FunctionOutputItem,
    Item,
    ItemReference,
    ResponsesRequest,
    SchemaFormat,
)
from emulator.contract.errors import APIError
from emulator.contract.parts import JsonObjectFormat, JsonSchema, Prompt
from emulator.schema_instances import strict_fault

MAX_IDS_TOLD = 16
_match_reasoning_model = re.compile(r"(?:ft:)?(?:o[134]|gpt-5)(?!-chat)(?:[-.:]|$)").match
_say_json = re.compile("json", re.IGNORECASE).search


def refuse_chat(chat: ChatCompletionRequest, prompt: Prompt) -> None:
    """Refuse a chat that OpenAI refuses.

    Raises:
        APIError: In OpenAI's words.
    """
    refuse_loose_tool_messages(chat.messages)
    match chat.response_format:
        case None:
            pass
        case JsonObjectFormat() if not says_json(prompt.texts):
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
        refuse_loose_functions(chat)
    elif chat.tool_choice is not None:
        raise _choice_without_tools()
    if chat.max_tokens is not None and is_reasoning_model(chat.model):
        raise APIError(
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            param="max_tokens",
            code="unsupported_parameter",
        )
    refuse_temperature(chat.temperature, chat.model)


def refuse_response(asked: ResponsesRequest, chat: ResponsesChat) -> None:
    """Refuse a Responses request that OpenAI refuses.

    Args:
        asked: The request.
        chat: The chat that asks for the same.

    Raises:
        APIError: In OpenAI's words.
    """
    # What is not sent again is not known here.
    is_complete = asked.previous_response_id is None and asked.conversation is None
    if is_complete and isinstance(asked.input, list):
        refuse_loose_outputs(asked.input)
    text_format = asked.text and asked.text.format
    match text_format:
        case None:
            pass
        case JsonObjectFormat() if is_complete and not says_json(_input_texts(asked, chat)):
            raise APIError(
                "Response input messages must contain the word 'json' in some form to use "
                "'text.format' of type 'json_object'.",
                param="text.format",
            )
        case SchemaFormat() if text_format.strict:
            refuse_loose_format(text_format.name, text_format.schema_, "text.format.schema")
    if asked.tools:
        refuse_loose_functions(chat)
    elif asked.tool_choice not in (None, "none", "auto"):
        raise _choice_without_tools()
    refuse_temperature(asked.temperature, asked.model)


def _input_texts(asked: ResponsesRequest, chat: ResponsesChat) -> Sequence[str]:
    """Return the texts of the input, without the instructions, which are the first message."""
    first = 0 if asked.instructions is None else 1
    return chat.model_copy(update={"messages": chat.messages[first:]}).prompt().texts


def _choice_without_tools() -> APIError:
    return APIError(
        "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are "
        "specified.",
        param="tool_choice",
    )


def refuse_loose_outputs(items: Sequence[Item]) -> None:
    """Refuse the output of a call that is not there.

    Raises:
        APIError: No call in the input has the output's id.
    """
    called: set[tuple[str, str]] = set()
    for item in items:
        match item:
            case ItemReference():
                return  # it may be any call
            case FunctionCallItem():
                called.add(("function", item.call_id))
            case CustomCallItem():
                called.add(("custom tool", item.call_id))
            case FunctionOutputItem() if ("function", item.call_id) not in called:
                raise _no_call("function", item.call_id)
            case CustomOutputItem() if ("custom tool", item.call_id) not in called:
                raise _no_call("custom tool", item.call_id)


def _no_call(kind: str, call_id: str) -> APIError:
    return APIError(
        f"No tool call found for {kind} call output with call_id {call_id[:64]}.", param="input"
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


def refuse_loose_functions(chat: ChatCompletionRequest) -> None:
    """Refuse a strict function whose schema breaks the rules of strict mode.

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
                param=chat.schema_param(index),
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
