"""The tools of a response, and the formats of its text."""

from typing import Annotated, Any, Literal

from pydantic import Field, Tag
from typing_extensions import TypeAliasType

from emulator.contract.bodies import RequestModel
from emulator.contract.bounds import MAX_TOOLS, AnyObject, Members, Name, NonEmptyText, Text
from emulator.contract.parts import (
    GrammarSyntax,
    JsonObjectFormat,
    JsonSchema,
    TextFormat,
    ToolMode,
    ToolName,
)
from emulator.contract.unions import json_type, other, typed, variant


class ResponseFunction(RequestModel):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    type: Literal["function"]
    name: ToolName
    description: Text | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None
    allowed_callers: Any = None
    async_: Any = Field(None, alias="async")
    defer_loading: Any = None
    output_schema: Any = None


class ResponseGrammarFormat(RequestModel):
    """A text that follows a grammar."""

    type: Literal["grammar"]
    syntax: GrammarSyntax
    definition: NonEmptyText


ResponseCustomFormat = TypeAliasType(
    "ResponseCustomFormat",
    Annotated[
        Annotated[TextFormat, Tag("<text>")] | Annotated[ResponseGrammarFormat, Tag("<grammar>")],
        variant("type", "text", "grammar"),
    ],
)


class ResponseCustomTool(RequestModel):
    """A tool that takes text, free or by a grammar."""

    type: Literal["custom"]
    name: ToolName
    description: Text | None = None
    format: ResponseCustomFormat | None = None
    allowed_callers: Any = None
    async_: Any = Field(None, alias="async")
    defer_loading: Any = None


# OpenAI's own tools: accepted, and never called.
BUILT_IN_TOOLS = (
    "apply_patch",
    "code_interpreter",
    "computer",
    "computer_use",
    "computer_use_preview",
    "file_search",
    "image_generation",
    "local_shell",
    "mcp",
    "programmatic_tool_calling",
    "shell",
    "tool_search",
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
)

InnerTool = TypeAliasType(
    "InnerTool",
    Annotated[
        Annotated[ResponseFunction, Tag("<function>")]
        | Annotated[ResponseCustomTool, Tag("<custom>")],
        variant("type", "function", "custom"),
    ],
)


class NamespaceTool(RequestModel):
    """Functions and custom tools under one name."""

    type: Literal["namespace"]
    name: ToolName
    description: Text | None = None
    tools: Annotated[list[InnerTool], Members(MAX_TOOLS)]


_NAMED = ("function", "custom", "namespace")
ResponseTool = TypeAliasType(
    "ResponseTool",
    Annotated[
        Annotated[ResponseFunction, Tag("<function>")]
        | Annotated[ResponseCustomTool, Tag("<custom>")]
        | Annotated[NamespaceTool, Tag("<namespace>")]
        | Annotated[AnyObject, other(*BUILT_IN_TOOLS), Tag("<other>")],
        typed(*_NAMED, others=BUILT_IN_TOOLS, guess=lambda _: None),
    ],
)


class ToolReference(RequestModel):
    """A function or a custom tool, or all of a namespace, by name."""

    type: Literal["function", "custom", "namespace"]
    name: Name
    namespace: Name | None = None


AllowedTool = TypeAliasType(
    "AllowedTool",
    Annotated[
        Annotated[ToolReference, Tag("<function>")]
        | Annotated[ToolReference, Tag("<custom>")]
        | Annotated[ToolReference, Tag("<namespace>")]
        | Annotated[AnyObject, other(*BUILT_IN_TOOLS), Tag("<other>")],
        typed(*_NAMED, others=BUILT_IN_TOOLS, guess=lambda _: None),
    ],
)


class AllowedTools(RequestModel):
    """The tools that may be called, or of which one must be."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedTool], Members(MAX_TOOLS)]


ResponseNamedTool = TypeAliasType(
    "ResponseNamedTool",
    Annotated[
        Annotated[ToolReference, Tag("<function>")]
        | Annotated[ToolReference, Tag("<custom>")]
        | Annotated[ToolReference, Tag("<namespace>")]
        | Annotated[AllowedTools, Tag("<allowed_tools>")]
        | Annotated[AnyObject, other(*BUILT_IN_TOOLS), Tag("<other>")],
        typed(*_NAMED, "allowed_tools", others=BUILT_IN_TOOLS, guess=lambda _: None),
    ],
)
ResponseToolChoice = TypeAliasType(
    "ResponseToolChoice",
    Annotated[
        Annotated[ToolMode, Tag("<mode>")] | Annotated[ResponseNamedTool, Tag("<named>")],
        json_type("one of a string or object", mode=str, named=dict),
    ],
)


class SchemaFormat(RequestModel):
    """An instance of a JSON schema."""

    type: Literal["json_schema"]
    name: ToolName
    description: Text | None = None
    schema_: JsonSchema = Field(alias="schema")
    strict: bool | None = None


ResponseTextFormat = TypeAliasType(
    "ResponseTextFormat",
    Annotated[
        Annotated[TextFormat, Tag("<text>")]
        | Annotated[JsonObjectFormat, Tag("<json_object>")]
        | Annotated[SchemaFormat, Tag("<json_schema>")],
        variant("type", "text", "json_object", "json_schema"),
    ],
)
