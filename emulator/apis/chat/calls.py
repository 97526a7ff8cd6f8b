"""The tools that a chat's answer may call."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from emulator.answers.ask import CallKind, OfferedCall
from emulator.apis.chat.messages import AssistantMessage, FunctionToolCall
from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.chat.tools import (
    AllowedToolsChoice,
    CustomChoice,
    CustomDefinition,
    FunctionChoice,
    FunctionTool,
    GrammarFormat,
    NamedTool,
    Tool,
)
from emulator.contract.bounds import MAX_TOOL_CALLS
from emulator.contract.errors import APIError
from emulator.contract.parts import FunctionDefinition

SchemaParam = Callable[[int], str]
"""Returns the path of the schema of a tool, by its place in ``tools``."""


class Calls(NamedTuple):
    """The calls that an answer may make; the fields are those of `Ask`."""

    offered: tuple[OfferedCall, ...] = ()
    must_call: bool = False
    names_call: bool = False
    most_calls: int = MAX_TOOL_CALLS


NO_CALLS = Calls()
RESULT_ROLES = ("tool", "function")


def schema_param(tool: int) -> str:
    """Return the path of the schema of a tool in a chat."""
    return f"tools[{tool}].function.parameters"


def calls_of(
    chat: ChatCompletionRequest, param: SchemaParam | None = None, *, strict: bool = False
) -> Calls:
    """Return the calls that the answer to a chat may make.

    A required or named tool has to be called. With ``auto`` none has to be, and none may be after
    the result of a tool, so that an agent whose every request asks for calls comes to an end.
    Tools that were not called since the user last spoke come first, so that an agent ends whose
    last tool gives the answer; where results come as the user's messages, the number of the
    assistant's turns the wheel.

    Args:
        chat: The chat.
        param: Returns the path of what a tool's input has to be like, if it is not a chat's.
        strict: Whether a function is strict that does not say so.

    Raises:
        APIError: The named tool, or every allowed one, is not among the tools.
    """
    if not chat.tools and not chat.functions:
        return NO_CALLS
    offered, must_call = _offered(chat, param or partial(_input_param, chat.tools), strict=strict)
    last = chat.messages[-1].role if chat.messages else None
    if not offered or (not must_call and last in RESULT_ROLES):
        return NO_CALLS
    if must_call and not any(message.role in RESULT_ROLES for message in chat.messages):
        turn = sum(message.role == "assistant" for message in chat.messages) % len(offered)
        offered = [*offered[turn:], *offered[:turn]]
    else:
        called = _called(chat)
        offered.sort(key=lambda call: (call.kind, call.name) in called)
    is_single = chat.parallel_tool_calls is False or offered[0].kind == "function_call"
    names_call = isinstance(chat.tool_choice, FunctionChoice | CustomChoice)
    return Calls(tuple(offered), must_call, names_call, 1 if is_single else MAX_TOOL_CALLS)


def _input_param(tools: Sequence[Tool] | None, tool: int) -> str:
    """Return the path of what the input of a chat's tool has to be like."""
    if isinstance((tools or ())[tool], FunctionTool):
        return schema_param(tool)
    return f"tools[{tool}].custom.format.grammar.definition"


def _called(chat: ChatCompletionRequest) -> set[tuple[CallKind, str]]:
    """Return kind and name of every tool that was called since the user last spoke."""
    called: set[tuple[CallKind, str]] = set()
    for message in reversed(chat.messages):
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


def _offered(
    chat: ChatCompletionRequest, param: SchemaParam, *, strict: bool
) -> tuple[list[OfferedCall], bool]:
    """Return the calls that may be made, and whether one must be."""
    if chat.tools is None:
        return _offered_functions(chat)
    offered = [
        _function(tool.function, "function", param(i), strict=strict)
        if isinstance(tool, FunctionTool)
        else _custom(tool.custom, param(i))
        for i, tool in enumerate(chat.tools)
    ]
    match chat.tool_choice:
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


def _offered_functions(chat: ChatCompletionRequest) -> tuple[list[OfferedCall], bool]:
    offered = [
        _function(function, "function_call", f"functions[{i}].parameters", strict=False)
        for i, function in enumerate(chat.functions or ())
    ]
    match chat.function_call:
        case NamedTool(name=name):
            return [_named(offered, name, "function_call", "function_call")], True
        case "none":
            return [], False
        case _:
            return offered, False


def _function(
    function: FunctionDefinition, kind: CallKind, param: str, *, strict: bool
) -> OfferedCall:
    schema = {"type": "object", **(function.parameters or {})}
    is_strict = strict if function.strict is None else function.strict
    return OfferedCall(function.name, kind, schema, param, is_strict)


def _custom(custom: CustomDefinition, param: str) -> OfferedCall:
    asked = custom.format
    grammar = None
    if isinstance(asked, GrammarFormat):
        grammar = (asked.grammar.syntax, asked.grammar.definition)
    return OfferedCall(custom.name, "custom", None, param, grammar=grammar)


def _named(offered: Sequence[OfferedCall], name: str, kind: CallKind, param: str) -> OfferedCall:
    for call in offered:
        if (call.name, call.kind) == (name, kind):
            return call
    tools = "functions" if kind == "function_call" else "tools"
    raise APIError(
        f"Invalid value for '{param}': no {kind.replace('_call', '')} named '{name}' was "
        f"specified in the '{tools}' parameter.",
        param=param,
    )
