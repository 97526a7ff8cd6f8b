"""A Responses request as the chat that asks for the same, so that one composer answers both."""

from collections.abc import Iterator, Sequence
from typing import Any

from emulator.apis.chat.calls import SchemaParam
from emulator.apis.chat.messages import (
    AssistantMessage,
    AssistantPart,
    CustomCall,
    CustomToolCall,
    FunctionCall,
    FunctionToolCall,
    ImagePart,
    InstructionMessage,
    Message,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
    UserPart,
)
from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.chat.tools import JsonSchemaFormat, NamedSchema, ResponseFormat
from emulator.apis.responses.compaction import opened
from emulator.apis.responses.schema.input import (
    AssistantItem,
    Compaction,
    ConfigurationUpdate,
    CustomCallItem,
    CustomOutputItem,
    FunctionCallItem,
    FunctionOutputItem,
    InputImage,
    InputMessage,
    InputText,
    Item,
    OutputText,
)
from emulator.apis.responses.schema.request import InputTokensRequest
from emulator.apis.responses.schema.tools import SchemaFormat
from emulator.apis.responses.tools_as_chat import OfferedTools
from emulator.contract.parts import ImageURL, RefusalPart, TextFormat


def to_chat(request: InputTokensRequest) -> tuple[ChatCompletionRequest, SchemaParam]:
    """Return the chat that asks for the same, and the paths of its tools' schemas.

    What was checked in the request is not checked again.

    Raises:
        APIError: There are too many tools, or a namespace that has to be called is not there.
    """
    reasoning, text = request.reasoning, request.text
    tools = OfferedTools(request)
    chat: dict[str, Any] = {
        "model": request.model or "",
        "messages": list(_messages(request, tools)),
        "tools": tools.as_chat(),
        "tool_choice": tools.choice(request.tool_choice),
        "parallel_tool_calls": request.parallel_tool_calls,
        "response_format": _response_format(request),
        "reasoning_effort": _updated_effort(request) or (reasoning and reasoning.effort),
        "verbosity": text and text.verbosity,
    }
    return ChatCompletionRequest.model_construct(**chat), tools.schema_path


def _updated_effort(request: InputTokensRequest) -> str | None:
    """Return the effort that the last item to say one asks for."""
    efforts = (
        item.reasoning.effort
        for item in reversed(request.input if isinstance(request.input, list) else [])
        if isinstance(item, ConfigurationUpdate) and item.reasoning is not None
    )
    return next(filter(None, efforts), None)


# --------------------------------------------------------------------------------------
# Messages
# --------------------------------------------------------------------------------------


def _messages(request: InputTokensRequest, tools: OfferedTools) -> Iterator[Message]:
    """Yield the instructions and the input as messages; calls in a row are one message."""
    if request.instructions is not None:
        yield InstructionMessage.model_construct(role="system", content=request.instructions)
    if isinstance(request.input, str):
        yield UserMessage.model_construct(role="user", content=request.input)
        return
    calls: list[ToolCall] = []
    for item in request.input or ():
        call = _call(item, tools)
        if call is not None:
            calls.append(call)
            continue
        message = _message(item)
        if message is None:
            continue
        if calls:
            yield _calling(calls)
            calls = []
        yield message
    if calls:
        yield _calling(calls)


def _calling(calls: list[ToolCall]) -> AssistantMessage:
    return AssistantMessage.model_construct(role="assistant", content=None, tool_calls=calls)


def _call(item: Item, tools: OfferedTools) -> ToolCall | None:
    match item:
        case FunctionCallItem(call_id=call_id, arguments=arguments):
            function = FunctionCall.model_construct(name=tools.called(item), arguments=arguments)
            return FunctionToolCall.model_construct(id=call_id, type="function", function=function)
        case CustomCallItem(call_id=call_id, input=text):
            custom = CustomCall.model_construct(name=tools.called(item), input=text)
            return CustomToolCall.model_construct(id=call_id, type="custom", custom=custom)
        case _:
            return None


def _message(item: Item) -> Message | None:
    """Return an item as a message; None for one that adds nothing to a prompt."""
    match item:
        case InputMessage(role="user", content=content):
            parts = content if isinstance(content, str) else list(_user_parts(content))
            return UserMessage.model_construct(role="user", content=parts)
        case InputMessage(role=("system" | "developer") as role, content=content):
            texts = content if isinstance(content, str) else list(_text_parts(content))
            return InstructionMessage.model_construct(role=role, content=texts)
        case AssistantItem(content=content):
            said = content if isinstance(content, str) else list(map(_assistant_part, content))
            return AssistantMessage.model_construct(role="assistant", content=said)
        case Compaction(encrypted_content=content):
            return AssistantMessage.model_construct(role="assistant", content=opened(content))
        case FunctionOutputItem() | CustomOutputItem():
            output = item.output
            # A tool's result may hold pictures, which a chat's may not.
            result: Any = output if isinstance(output, str) else list(_user_parts(output))
            return ToolMessage.model_construct(
                role="tool", content=result, tool_call_id=item.call_id
            )
        case _:
            return None


def _text_parts(parts: Sequence[object]) -> Iterator[TextPart]:
    for part in parts:
        if isinstance(part, InputText):
            yield TextPart.model_construct(type="text", text=part.text)


def _user_parts(parts: Sequence[object]) -> Iterator[UserPart]:
    """Yield texts and pictures; files and sounds are not counted in a chat either."""
    for part in parts:
        if isinstance(part, InputText):
            yield TextPart.model_construct(type="text", text=part.text)
        elif isinstance(part, InputImage) and part.image_url is not None:
            picture = ImageURL.model_construct(url=part.image_url, detail=part.detail)
            yield ImagePart.model_construct(type="image_url", image_url=picture)


def _assistant_part(part: OutputText | RefusalPart) -> AssistantPart:
    if isinstance(part, OutputText):
        return TextPart.model_construct(type="text", text=part.text)
    return part


# --------------------------------------------------------------------------------------
# The format
# --------------------------------------------------------------------------------------


def _response_format(request: InputTokensRequest) -> ResponseFormat | None:
    asked = None if request.text is None else request.text.format
    match asked:
        case SchemaFormat():
            named = NamedSchema.model_construct(
                name=asked.name,
                description=asked.description,
                schema_=asked.schema_,
                strict=asked.strict,
            )
            return JsonSchemaFormat.model_construct(type="json_schema", json_schema=named)
        case None | TextFormat():
            return None
        case other:
            return other
