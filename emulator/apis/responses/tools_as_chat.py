"""The tools of a Responses request, wherever they stand, as those of a chat.

A chat has no namespaces. A tool within one has its namespace in front of its name there, with a dot
between them, which names of tools and of namespaces do not have.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from emulator.apis.chat.tools import (
    AllowedTool,
    AllowedToolsChoice,
    CustomChoice,
    CustomDefinition,
    CustomTool,
    FunctionChoice,
    FunctionTool,
    GrammarDefinition,
    GrammarFormat,
    NamedTool,
    Tool,
    ToolChoice,
)
from emulator.apis.chat.tools import AllowedTools as ChatAllowedTools
from emulator.apis.responses.schema.input import CustomCallItem, FunctionCallItem, ItemWithTools
from emulator.apis.responses.schema.request import InputTokensRequest
from emulator.apis.responses.schema.tools import (
    AllowedTools,
    NamespaceTool,
    ResponseCustomTool,
    ResponseFunction,
    ResponseGrammarFormat,
    ToolReference,
)
from emulator.contract.bounds import MAX_ALL_TOOLS
from emulator.contract.errors import APIError
from emulator.contract.parts import FunctionDefinition


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A function or a custom tool that may be called.

    Args:
        tool: What it is.
        namespace: The namespace that it stands in, if it stands in one.
        path: Where it stands in the body.
    """

    tool: ResponseFunction | ResponseCustomTool
    namespace: str | None
    path: str

    @property
    def name(self) -> str:
        """Its name in a chat."""
        return qualified(self.namespace, self.tool.name)

    @property
    def schema_path(self) -> str:
        """Where what its input has to be like stands."""
        part = "parameters" if self.tool.type == "function" else "format.definition"
        return f"{self.path}.{part}"

    def as_chat(self) -> Tool:
        """Return it as a chat's tool."""
        tool = self.tool
        if isinstance(tool, ResponseFunction):
            function = FunctionDefinition.model_construct(
                name=self.name,
                description=tool.description,
                parameters=tool.parameters,
                strict=tool.strict,
            )
            return FunctionTool.model_construct(type="function", function=function)
        custom = CustomDefinition.model_construct(
            name=self.name, description=tool.description, format=_format(tool)
        )
        return CustomTool.model_construct(type="custom", custom=custom)


def qualified(namespace: str | None, name: str) -> str:
    """Return the name that a tool has in a chat."""
    return name if namespace is None else f"{namespace}.{name}"


def split_name(name: str) -> tuple[str | None, str]:
    """Return the namespace, None for none, and the name of a tool of a chat."""
    namespace, _, own = name.rpartition(".")
    return namespace or None, own


class OfferedTools:
    """All functions and custom tools that the answer to a request may call.

    Those in ``tools`` come first, then those that items of the input bring. OpenAI's own are never
    called, and not among them.

    Raises:
        APIError: There are more than ``MAX_ALL_TOOLS``.
    """

    def __init__(self, request: InputTokensRequest) -> None:
        self._tools = list(_offered(request))
        if len(self._tools) > MAX_ALL_TOOLS:
            raise APIError(
                f"Invalid 'tools': too many tools. Expected at most {MAX_ALL_TOOLS} functions and "
                "custom tools in 'tools', in namespaces and in the input together, but got "
                f"{len(self._tools)} instead.",
                param="tools",
                code="array_above_max_length",
            )
        self._by_name: dict[tuple[str, str], list[OfferedTool]] = {}
        for each in self._tools:
            self._by_name.setdefault((each.tool.type, each.tool.name), []).append(each)

    def as_chat(self) -> list[Tool] | None:
        """Return them as a chat's tools; None if there are none."""
        return [tool.as_chat() for tool in self._tools] or None

    def schema_path(self, tool: int) -> str:
        """Return where what a tool's input has to be like stands, by its place in the chat."""
        return self._tools[tool].schema_path

    def called(self, call: FunctionCallItem | CustomCallItem) -> str:
        """Return the name that the tool of an earlier call has in a chat."""
        if call.namespace is not None:
            return qualified(call.namespace, call.name)
        kind = "function" if isinstance(call, FunctionCallItem) else "custom"
        return next(iter(self._named(kind, None, call.name)), call.name)

    def choice(self, asked: object) -> ToolChoice | None:
        """Return the choice of a chat; one of OpenAI's own tools leaves nothing to call.

        Raises:
            APIError: A namespace that has to be called is not there.
        """
        match asked:
            case ToolReference():
                chosen = self._referred(asked)
                return chosen[0] if len(chosen) == 1 else _allowed("required", chosen)
            case AllowedTools(mode=mode, tools=tools):
                references = [each for each in tools if isinstance(each, ToolReference)]
                if not references:
                    return "none"
                return _allowed(mode, [one for each in references for one in self._referred(each)])
            case dict():
                return "none"
            case "none" | "auto" | "required":
                return asked
            case _:
                return None

    def _referred(self, reference: ToolReference) -> list[AllowedTool]:
        """Return the tools that a reference means; one that is unknown stands for itself."""
        if reference.type == "namespace":
            return self._within(reference.name)
        names = self._named(reference.type, reference.namespace, reference.name)
        own = qualified(reference.namespace, reference.name)
        return [_choice(reference.type, name) for name in names or [own]]

    def _within(self, namespace: str) -> list[AllowedTool]:
        """Return all tools of a namespace.

        Raises:
            APIError: There is none.
        """
        inner = [each for each in self._tools if each.namespace == namespace]
        if not inner:
            raise APIError(
                f"Invalid value for 'tool_choice': no namespace named '{namespace}' was specified "
                "in the 'tools' parameter.",
                param="tool_choice",
            )
        return [_choice(each.tool.type, each.name) for each in inner]

    def _named(self, kind: str, namespace: str | None, name: str) -> list[str]:
        """Return the names in a chat of the tools of a name.

        Without a namespace that is a tool in none, else those of the name in all of them.
        """
        same = self._by_name.get((kind, name), [])
        exact = [each.name for each in same if each.namespace == namespace]
        return exact or ([each.name for each in same] if namespace is None else [])


def _format(tool: ResponseCustomTool) -> GrammarFormat | None:
    """Return the grammar of a custom tool as a chat has it."""
    asked = tool.format
    if not isinstance(asked, ResponseGrammarFormat):
        return None
    grammar = GrammarDefinition.model_construct(syntax=asked.syntax, definition=asked.definition)
    return GrammarFormat.model_construct(type="grammar", grammar=grammar)


def _offered(request: InputTokensRequest) -> Iterator[OfferedTool]:
    yield from _flat(request.tools or (), "tools")
    if isinstance(request.input, list):
        for index, item in enumerate(request.input):
            if isinstance(item, ItemWithTools):
                yield from _flat(item.tools, f"input[{index}].tools")


def _flat(tools: Iterable[object], path: str) -> Iterator[OfferedTool]:
    """Yield the tools of a list, and those of the namespaces in it."""
    for index, tool in enumerate(tools):
        at = f"{path}[{index}]"
        if isinstance(tool, NamespaceTool):
            for inner, one in enumerate(tool.tools):
                yield OfferedTool(one, tool.name, f"{at}.tools[{inner}]")
        elif isinstance(tool, ResponseFunction | ResponseCustomTool):
            yield OfferedTool(tool, None, at)


def _choice(kind: str, name: str) -> FunctionChoice | CustomChoice:
    named = NamedTool.model_construct(name=name)
    if kind == "function":
        return FunctionChoice.model_construct(type="function", function=named)
    return CustomChoice.model_construct(type="custom", custom=named)


def _allowed(mode: Literal["auto", "required"], tools: Sequence[AllowedTool]) -> AllowedToolsChoice:
    subset = ChatAllowedTools.model_construct(mode=mode, tools=list(tools))
    return AllowedToolsChoice.model_construct(type="allowed_tools", allowed_tools=subset)
