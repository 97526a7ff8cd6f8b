"""The tools of a chat, and the formats of its answer."""

from typing import Annotated, Literal

from pydantic import Field, Tag
from typing_extensions import TypeAliasType

from emulator.contract.bodies import RequestModel
from emulator.contract.bounds import MAX_TOOLS, Members, Name, NonEmptyText, Text
from emulator.contract.parts import (
    FunctionDefinition,
    GrammarSyntax,
    JsonObjectFormat,
    JsonSchema,
    TextFormat,
    ToolMode,
    ToolName,
)
from emulator.contract.unions import json_type, variant


class FunctionTool(RequestModel):
    """A function as a tool."""

    type: Literal["function"]
    function: FunctionDefinition


class GrammarDefinition(RequestModel):
    """What a text has to follow."""

    syntax: GrammarSyntax
    definition: NonEmptyText


class GrammarFormat(RequestModel):
    """A text that follows a grammar."""

    type: Literal["grammar"]
    grammar: GrammarDefinition


CustomFormat = TypeAliasType(
    "CustomFormat",
    Annotated[
        Annotated[TextFormat, Tag("<text>")] | Annotated[GrammarFormat, Tag("<grammar>")],
        variant("type", "text", "grammar"),
    ],
)


class CustomDefinition(RequestModel):
    """A tool that takes text, free or by a grammar."""

    name: ToolName
    description: Text | None = None
    format: CustomFormat | None = None


class CustomTool(RequestModel):
    """A tool that takes text."""

    type: Literal["custom"]
    custom: CustomDefinition


Tool = TypeAliasType(
    "Tool",
    Annotated[
        Annotated[FunctionTool, Tag("<function>")] | Annotated[CustomTool, Tag("<custom>")],
        variant("type", "function", "custom"),
    ],
)


class NamedTool(RequestModel):
    """The name of a tool."""

    name: Name


class FunctionChoice(RequestModel):
    """One function, by its name."""

    type: Literal["function"]
    function: NamedTool

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.name


class CustomChoice(RequestModel):
    """One custom tool, by its name."""

    type: Literal["custom"]
    custom: NamedTool

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.custom.name


AllowedTool = TypeAliasType(
    "AllowedTool",
    Annotated[
        Annotated[FunctionChoice, Tag("<function>")] | Annotated[CustomChoice, Tag("<custom>")],
        variant("type", "function", "custom"),
    ],
)


class AllowedTools(RequestModel):
    """The tools that may be called, or of which one must be."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedTool], Members(MAX_TOOLS)]


class AllowedToolsChoice(RequestModel):
    """A subset of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


NamedToolChoice = TypeAliasType(
    "NamedToolChoice",
    Annotated[
        Annotated[FunctionChoice, Tag("<function>")]
        | Annotated[CustomChoice, Tag("<custom>")]
        | Annotated[AllowedToolsChoice, Tag("<allowed_tools>")],
        variant("type", "function", "custom", "allowed_tools"),
    ],
)

ToolChoice = TypeAliasType(
    "ToolChoice",
    Annotated[
        Annotated[ToolMode, Tag("<mode>")] | Annotated[NamedToolChoice, Tag("<named>")],
        json_type("one of a string or object", mode=str, named=dict),
    ],
)

FunctionCallChoice = TypeAliasType(
    "FunctionCallChoice",
    Annotated[
        Annotated[Literal["none", "auto"], Tag("<mode>")] | Annotated[NamedTool, Tag("<named>")],
        json_type("one of a string or object", mode=str, named=dict),
    ],
)


class NamedSchema(RequestModel):
    """A JSON schema and its name."""

    name: ToolName
    description: Text | None = None
    schema_: JsonSchema | None = Field(None, alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(RequestModel):
    """An instance of a JSON schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = TypeAliasType(
    "ResponseFormat",
    Annotated[
        Annotated[TextFormat, Tag("<text>")]
        | Annotated[JsonObjectFormat, Tag("<json_object>")]
        | Annotated[JsonSchemaFormat, Tag("<json_schema>")],
        variant("type", "text", "json_object", "json_schema"),
    ],
)
