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
from emulator.apis.chat.tools import (
    AllowedTool,
    AllowedToolsChoice,
    CustomChoice,
    CustomDefinition,
    CustomTool,
    FunctionChoice,
    FunctionTool,
    JsonSchemaFormat,
    NamedSchema,
    NamedTool,
    ResponseFormat,
    Tool,
    ToolChoice,
)
from emulator.apis.chat.tools import AllowedTools as ChatAllowedTools
from emulator.apis.responses.schema.input import (
    AssistantItem,
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
from emulator.apis.responses.schema.tools import (
    AllowedTools,
    ResponseCustomTool,
    ResponseFunction,
    SchemaFormat,
    ToolReference,
)
from emulator.contract.parts import FunctionDefinition, ImageURL, RefusalPart, TextFormat


def to_chat(request: InputTokensRequest) -> tuple[ChatCompletionRequest, SchemaParam]:
    """Return the chat that asks for the same, and the paths of its tools' schemas.

    What was checked in the request is not checked again.
    """
    reasoning, text = request.reasoning, request.text
    tools = dict(_tools(request))
    chat: dict[str, Any] = {
        "model": request.model or "",
        "messages": list(_messages(request)),
        "tools": [*tools.values()] or None,
        "tool_choice": _tool_choice(request),
        "parallel_tool_calls": request.parallel_tool_calls,
        "response_format": _response_format(request),
        "reasoning_effort": reasoning and reasoning.effort,
        "verbosity": text and text.verbosity,
    }
    positions = tuple(tools)
    return (
        ChatCompletionRequest.model_construct(**chat),
        lambda tool: f"tools[{positions[tool]}].parameters",
    )


# --------------------------------------------------------------------------------------
# Messages
# --------------------------------------------------------------------------------------


def _messages(request: InputTokensRequest) -> Iterator[Message]:
    """Yield the instructions and the input as messages; calls in a row are one message."""
    if request.instructions is not None:
        yield InstructionMessage.model_construct(role="system", content=request.instructions)
    if isinstance(request.input, str):
        yield UserMessage.model_construct(role="user", content=request.input)
        return
    calls: list[ToolCall] = []
    for item in request.input or ():
        call = _call(item)
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


def _call(item: Item) -> ToolCall | None:
    match item:
        case FunctionCallItem(call_id=call_id, name=name, arguments=arguments):
            function = FunctionCall.model_construct(name=name, arguments=arguments)
            return FunctionToolCall.model_construct(id=call_id, type="function", function=function)
        case CustomCallItem(call_id=call_id, name=name, input=text):
            custom = CustomCall.model_construct(name=name, input=text)
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
# Tools and formats
# --------------------------------------------------------------------------------------


def _tools(request: InputTokensRequest) -> Iterator[tuple[int, Tool]]:
    """Yield the functions and custom tools with their positions; OpenAI's own are never called."""
    for position, given in enumerate(request.tools or ()):
        tool = _tool(given)
        if tool is not None:
            yield position, tool


def _tool(tool: object) -> Tool | None:
    match tool:
        case ResponseFunction():
            function = FunctionDefinition.model_construct(
                name=tool.name,
                description=tool.description,
                parameters=tool.parameters,
                strict=tool.strict,
            )
            return FunctionTool.model_construct(type="function", function=function)
        case ResponseCustomTool():
            custom = CustomDefinition.model_construct(
                name=tool.name, description=tool.description, format=tool.format
            )
            return CustomTool.model_construct(type="custom", custom=custom)
        case _:
            return None


def _tool_choice(request: InputTokensRequest) -> ToolChoice | None:
    """Return the choice; one of OpenAI's own tools leaves nothing to call."""
    match request.tool_choice:
        case ToolReference() as one:
            return _named(one)
        case AllowedTools(mode=mode, tools=tools):
            allowed: list[AllowedTool] = [_named(t) for t in tools if isinstance(t, ToolReference)]
            subset = ChatAllowedTools.model_construct(mode=mode, tools=allowed)
            if not allowed:
                return "none"
            return AllowedToolsChoice.model_construct(type="allowed_tools", allowed_tools=subset)
        case dict():
            return "none"
        case mode:
            return mode


def _named(tool: ToolReference) -> FunctionChoice | CustomChoice:
    name = NamedTool.model_construct(name=tool.name)
    if tool.type == "function":
        return FunctionChoice.model_construct(type="function", function=name)
    return CustomChoice.model_construct(type="custom", custom=name)


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
