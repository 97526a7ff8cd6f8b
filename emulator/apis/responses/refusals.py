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
from emulator.apis.responses.ids import says_unstored
from emulator.apis.responses.schema.input import (
    CompactionTrigger,
    CustomCallItem,
    CustomOutputItem,
    FunctionCallItem,
    FunctionOutputItem,
    Item,
    ItemReference,
    ItemWithTools,
    ReasoningInput,
)
from emulator.apis.responses.schema.request import (
    InputTokensRequest,
    ResponsesRequest,
    not_found,
)
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
    refuse_early_trigger(asked.input)
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
    refuse_loose_functions(chat.tools or (), param)
    if asked.tool_choice not in (None, "none", "auto") and not _has_tools(asked):
        raise without_tools("tool_choice")
    model = reasoning_model(asked.model)
    if model is not None and model.reasons(chat.reasoning_effort):
        refuse_sampling(asked)


def refuse_sampling(asked: ResponsesRequest) -> None:
    """Refuse what a model does not take while it reasons.

    Raises:
        APIError: In OpenAI's words.
    """
    defaults = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}
    for name, default in defaults.items():
        if getattr(asked, name) not in (None, default):
            raise unsupported(name, None)
    if asked.top_logprobs or LOGPROBS in (asked.include or ()):
        raise APIError(
            "logprobs are not supported with reasoning models.",
            param="top_logprobs" if asked.top_logprobs else "include",
            code="unsupported_parameter",
        )


def _has_tools(asked: ResponsesRequest) -> bool:
    """Tell whether there are tools, be they OpenAI's own."""
    items = asked.input if isinstance(asked.input, list) else ()
    return bool(asked.tools) or any(isinstance(i, ItemWithTools) and i.tools for i in items)


def _input_texts(asked: ResponsesRequest, chat: ChatCompletionRequest) -> Sequence[str]:
    """Return the texts of the input, without the instructions, which are the first message."""
    first = 0 if asked.instructions is None else 1
    return gather(chat.messages[first:]).texts


def refuse_unstored(asked: InputTokensRequest) -> None:
    """Refuse a request that needs what was not stored, as its id tells.

    Raises:
        APIError: It goes on from such a response, or refers to such an item, or has the reasoning
            of one without its encrypted content.
    """
    earlier = asked.previous_response_id
    if earlier is not None and says_unstored(earlier):
        message, code, param = not_found(earlier)
        raise APIError(message, code=code, param=param)
    for item in asked.input if isinstance(asked.input, list) else ():
        match item:
            case (
                ItemReference(id=str(needed))
                | ReasoningInput(id=str(needed), encrypted_content=None)
            ) if says_unstored(needed):
                raise APIError(
                    f"Item with id '{needed[:128]}' not found. Items are not persisted when "
                    "`store` is set to false. Try again with `store` set to true, or remove this "
                    "item from your input.",
                    status=404,
                    param="input",
                )


def refuse_early_trigger(items: str | Sequence[Item] | None) -> None:
    """Refuse what asks to compact before the input's end.

    Raises:
        APIError: It is not the last item.
    """
    if not isinstance(items, list):
        return
    for index, item in enumerate(items[:-1]):
        if isinstance(item, CompactionTrigger):
            raise APIError(
                "Invalid value: 'compaction_trigger'. It must be the final input item.",
                param=f"input[{index}]",
                code="invalid_value",
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
