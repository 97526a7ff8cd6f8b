"""Messages as the chat that asks for the same, as vLLM turns one into the other."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.messages.schema import InputTool, InputToolChoice, MessagesRequest, TurnMessage
from emulator.contract.error_words import request_error
from emulator.contract.errors import APIError

Json = dict[str, Any]


def to_chat(request: MessagesRequest) -> ChatCompletionRequest:
    """Return a request as a chat.

    Raises:
        APIError: A block is not what its type says, or of no known type.
    """
    system = [{"role": "system", "content": _text(request.system)}] if request.system else []
    turns = [each for message in request.messages for each in _turn(message)]
    body: Json = {
        "model": request.model,
        "messages": [*system, *turns],
        "max_tokens": request.max_tokens,
        "stop": request.stop_sequences or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stream": request.stream,
    }
    if request.stream:
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        body["tool_choice"] = _choice(request.tool_choice)
    try:
        return ChatCompletionRequest.model_validate(body)
    except ValidationError as error:
        raise request_error(error) from None


def _text(content: str | Sequence[Json]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(block.get("text", "")) for block in content)


def _turn(message: TurnMessage) -> Iterator[Json]:
    """Yield the messages of a chat that say what one turn does."""
    if isinstance(message.content, str):
        yield {"role": message.role, "content": message.content}
        return
    parts: list[Json] = []
    calls: list[Json] = []
    for block in message.content:
        match block.get("type"):
            case "text":
                parts.append({"type": "text", "text": block.get("text")})
            case "image":
                parts.append({"type": "image_url", "image_url": {"url": _picture(block)}})
            case "tool_use":
                calls.append(_call(block))
            case "tool_result":
                content = block.get("content") or ""
                call = block.get("tool_use_id")
                yield {"role": "tool", "tool_call_id": call, "content": _text(content)}
            case "thinking" | "redacted_thinking":
                pass
            case kind:
                raise APIError(
                    f"Invalid value: '{str(kind)[:64]}'. Supported values are: 'text', 'image', "
                    "'tool_use', 'tool_result', and 'thinking'.",
                    param="messages",
                    code="invalid_value",
                )
    if parts or calls:
        yield {
            "role": message.role,
            "content": parts or None,
            **({"tool_calls": calls} if calls else {}),
        }


def _picture(block: Json) -> object:
    source = block.get("source")
    if not isinstance(source, dict):
        return None
    if source.get("type") == "base64":
        return f"data:{source.get('media_type')};base64,{source.get('data')}"
    return source.get("url")


def _call(block: Json) -> Json:
    function = {"name": block.get("name"), "arguments": json.dumps(block.get("input") or {})}
    return {"id": block.get("id"), "type": "function", "function": function}


def _tool(tool: InputTool) -> Json:
    function: Json = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _choice(choice: InputToolChoice | None) -> str | Json:
    if choice is None:
        return "auto"
    if choice.type == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return "required" if choice.type == "any" else choice.type
