"""Which tools an answer calls."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emulator.answers.answer import CallKind
from emulator.apis.chat.messages import AssistantMessage, FunctionToolCall
from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.chat.tools import (
    AllowedToolsChoice,
    CustomChoice,
    FunctionChoice,
    FunctionTool,
    NamedTool,
)
from emulator.contract.errors import APIError
from emulator.contract.parts import FunctionDefinition


@dataclass(slots=True)
class PlannedCall:
    """A call to be made; ``schema`` is None for a tool that takes free text."""

    name: str
    kind: CallKind
    schema: dict[str, Any] | None
    param: str


def call_id(rng: random.Random) -> str:
    """Return a new id of a tool call."""
    return f"call_{''.join(rng.choices(_ALPHANUMERIC, k=24))}"


_ALPHANUMERIC = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def tool_calls(request: ChatCompletionRequest, asked: int) -> list[PlannedCall]:
    """Return the calls to make: none for a text.

    A required or named tool is called once, or `asked` times. With ``auto`` tools are called only
    if calls are asked for, and never after the result of a tool, so that an agent whose every
    request asks for calls comes to an end. Several calls go through the tools in turn; those that
    were not called since the user last spoke come first, so that an agent ends whose last tool
    gives the answer.

    Raises:
        APIError: The named tool, or every allowed one, is not among the tools.
    """
    offered, required = _offered_calls(request)
    if not offered:
        return []
    if not required and request.messages[-1].role in ("tool", "function"):
        return []
    count = max(asked, 1) if required else asked
    if request.parallel_tool_calls is False or offered[0].kind == "function_call":
        count = min(count, 1)
    called = _called(request)
    offered.sort(key=lambda call: (call.kind, call.name) in called)
    return [offered[number % len(offered)] for number in range(count)]


def is_named(request: ChatCompletionRequest) -> bool:
    """Tell whether ``tool_choice`` names the tool to call, after which OpenAI says ``stop``."""
    return isinstance(request.tool_choice, FunctionChoice | CustomChoice)


def _called(request: ChatCompletionRequest) -> set[tuple[CallKind, str]]:
    """Return kind and name of every tool that was called since the user last spoke."""
    called: set[tuple[CallKind, str]] = set()
    for message in reversed(request.messages):
        if message.role == "user":
            break
        if not isinstance(message, AssistantMessage):
            continue
        if message.function_call is not None:
            called.add(("function_call", message.function_call.name))
        for call in message.tool_calls or ():
            made = call.function if isinstance(call, FunctionToolCall) else call.custom
            called.add((call.type, made.name))
    return called


def _offered_calls(request: ChatCompletionRequest) -> tuple[list[PlannedCall], bool]:
    """Return the calls that may be made, and whether one must be."""
    if request.tools is None:
        return _offered_functions(request)
    offered = [
        _planned(tool.function, "function", request.schema_param(i))
        if isinstance(tool, FunctionTool)
        else PlannedCall(tool.custom.name, "custom", None, f"tools[{i}].custom")
        for i, tool in enumerate(request.tools)
    ]
    match request.tool_choice:
        case FunctionChoice() | CustomChoice() as choice:
            return [_named(offered, choice.name, choice.type, "tool_choice")], True
        case AllowedToolsChoice(allowed_tools=allowed):
            names = {(tool.type, tool.name) for tool in allowed.tools}
            chosen = [call for call in offered if (call.kind, call.name) in names]
            if not chosen:
                raise APIError(
                    "Invalid value for 'tool_choice': none of the allowed tools was specified in "
                    "the 'tools' parameter.",
                    param="tool_choice",
                )
            return chosen, allowed.mode == "required"
        case "none":
            return [], False
        case mode:
            return offered, mode == "required"


def _offered_functions(request: ChatCompletionRequest) -> tuple[list[PlannedCall], bool]:
    offered = [
        _planned(function, "function_call", f"functions[{i}].parameters")
        for i, function in enumerate(request.functions or ())
    ]
    match request.function_call:
        case NamedTool(name=name):
            return [_named(offered, name, "function_call", "function_call")], True
        case "none":
            return [], False
        case _:
            return offered, False


def _planned(function: FunctionDefinition, kind: CallKind, param: str) -> PlannedCall:
    schema = {"type": "object", **(function.parameters or {})}
    return PlannedCall(function.name, kind, schema, param)


def _named(offered: Sequence[PlannedCall], name: str, kind: CallKind, param: str) -> PlannedCall:
    for call in offered:
        if (call.name, call.kind) == (name, kind):
            return call
    tools = "functions" if kind == "function_call" else "tools"
    raise APIError(
        f"Invalid value for '{param}': no {kind.replace('_call', '')} named '{name}' was "
        f"specified in the '{tools}' parameter.",
        param=param,
    )
