"""Responses requests that OpenAI refuses though each parameter is valid by itself."""

from collections.abc import Sequence

from emulator.apis.chat.calls import SchemaParam
from emulator.apis.chat.prompt import gather
from emulator.apis.chat.reasoning_models import reasoning_model, unsupported
from emulator.apis.chat.refusals import (
    refuse_loose_format,
    refuse_loose_functions,
    says_json,
    without_tools,
)
from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.responses.asking import LOGPROBS
from emulator.apis.responses.schema.input import (
    CustomCallItem,
    CustomOutputItem,
    FunctionCallItem,
    FunctionOutputItem,
    Item,
    ItemReference,
)
from emulator.apis.responses.schema.request import ResponsesRequest
from emulator.apis.responses.schema.tools import SchemaFormat
from emulator.contract.errors import APIError
from emulator.contract.parts import JsonObjectFormat


def refuse_response(
    asked: ResponsesRequest, chat: ChatCompletionRequest, param: SchemaParam
) -> None:
    """Refuse a Responses request that OpenAI refuses.

    Args:
        asked: The request.
        chat: The chat that asks for the same.
        param: Returns the path of the schema of a tool of the chat.

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
        refuse_loose_functions(chat.tools or (), param)
    elif asked.tool_choice not in (None, "none", "auto"):
        raise without_tools("tool_choice")
    model = reasoning_model(asked.model)
    if model is not None and model.reasons(chat.reasoning_effort):
        refuse_sampling(asked)


def refuse_sampling(asked: ResponsesRequest) -> None:
    """Refuse what a model does not take while it reasons.

    Raises:
        APIError: In OpenAI's words.
    """
    for name in ("temperature", "top_p"):
        if getattr(asked, name) not in (None, 1):
            raise unsupported(name, None)
    if asked.top_logprobs or LOGPROBS in (asked.include or ()):
        raise APIError(
            "logprobs are not supported with reasoning models.",
            param="top_logprobs" if asked.top_logprobs else "include",
            code="unsupported_parameter",
        )


def _input_texts(asked: ResponsesRequest, chat: ChatCompletionRequest) -> Sequence[str]:
    """Return the texts of the input, without the instructions, which are the first message."""
    first = 0 if asked.instructions is None else 1
    return gather(chat.messages[first:]).texts


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
