"""The messages of a chat."""

from typing import Annotated, Literal

from pydantic import Tag
from typing_extensions import TypeAliasType

from emulator.contract.bodies import RequestModel
from emulator.contract.bounds import MAX_PARTS, MAX_TOOLS, Id, Label, Members, Name, Text
from emulator.contract.parts import ImageURL, InputAudio, PromptPart, RefusalPart
from emulator.contract.unions import json_type, variant


class TextPart(PromptPart):
    """A piece of text."""

    type: Literal["text"]
    text: Text


class ImagePart(PromptPart):
    """A picture for a vision model."""

    type: Literal["image_url"]
    image_url: ImageURL


class AudioPart(PromptPart):
    """A sound for an audio model; accepted, and not counted."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class InputFile(RequestModel):
    """A file, as base64 data or by the id of an upload."""

    file_data: str | None = None
    file_id: Label | None = None
    filename: Label | None = None


class FilePart(PromptPart):
    """A document; accepted, and not counted."""

    type: Literal["file"]
    file: InputFile


_TEXT_OR_PARTS = json_type("one of a string or array of objects", text=str, parts=list)

_TextContent = Annotated[Text, Tag("<text>")]

_PARTS = Members(MAX_PARTS, least=1)

UserPart = TypeAliasType(
    "UserPart",
    Annotated[
        Annotated[TextPart, Tag("<text>")]
        | Annotated[ImagePart, Tag("<image_url>")]
        | Annotated[AudioPart, Tag("<input_audio>")]
        | Annotated[FilePart, Tag("<file>")],
        variant("type", "text", "image_url", "input_audio", "file"),
    ],
)

AssistantPart = TypeAliasType(
    "AssistantPart",
    Annotated[
        Annotated[TextPart, Tag("<text>")] | Annotated[RefusalPart, Tag("<refusal>")],
        variant("type", "text", "refusal"),
    ],
)

UserContent = TypeAliasType(
    "UserContent",
    Annotated[_TextContent | Annotated[list[UserPart], _PARTS, Tag("<parts>")], _TEXT_OR_PARTS],
)

AssistantContent = TypeAliasType(
    "AssistantContent",
    Annotated[
        _TextContent | Annotated[list[AssistantPart], _PARTS, Tag("<parts>")], _TEXT_OR_PARTS
    ],
)

TextContent = TypeAliasType(
    "TextContent",
    Annotated[_TextContent | Annotated[list[TextPart], _PARTS, Tag("<parts>")], _TEXT_OR_PARTS],
)


class FunctionCall(RequestModel):
    """A function's name and its arguments as JSON text."""

    name: Name
    arguments: Text


class CustomCall(RequestModel):
    """A custom tool's name and its free-form input."""

    name: Name
    input: Text


class FunctionToolCall(RequestModel):
    """A call of a function that the assistant made earlier."""

    id: Id
    type: Literal["function"]
    function: FunctionCall


class CustomToolCall(RequestModel):
    """A call of a custom tool that the assistant made earlier."""

    id: Id
    type: Literal["custom"]
    custom: CustomCall


ToolCall = TypeAliasType(
    "ToolCall",
    Annotated[
        Annotated[FunctionToolCall, Tag("<function>")] | Annotated[CustomToolCall, Tag("<custom>")],
        variant("type", "function", "custom"),
    ],
)


class AudioReference(RequestModel):
    """An earlier spoken answer."""

    id: Id


class InstructionMessage(RequestModel):
    """What the developer tells the model, under either of its two role names."""

    role: Literal["system", "developer"]
    content: TextContent
    name: Name | None = None


class UserMessage(RequestModel):
    """What the user says and shows."""

    role: Literal["user"]
    content: UserContent
    name: Name | None = None


class AssistantMessage(RequestModel):
    """What the assistant answered earlier."""

    role: Literal["assistant"]
    content: AssistantContent | None = None
    refusal: Text | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ToolCall], Members(MAX_TOOLS)] | None = None
    function_call: FunctionCall | None = None
    audio: AudioReference | None = None


class ToolMessage(RequestModel):
    """The result of a tool call."""

    role: Literal["tool"]
    content: TextContent
    tool_call_id: Id


class FunctionMessage(RequestModel):
    """The result of a function call, in its deprecated form."""

    role: Literal["function"]
    content: Text | None = None
    name: Name


Message = TypeAliasType(
    "Message",
    Annotated[
        Annotated[InstructionMessage, Tag("<system>")]
        | Annotated[AssistantMessage, Tag("<assistant>")]
        | Annotated[UserMessage, Tag("<user>")]
        | Annotated[FunctionMessage, Tag("<function>")]
        | Annotated[ToolMessage, Tag("<tool>")]
        | Annotated[InstructionMessage, Tag("<developer>")],
        variant("role", "system", "assistant", "user", "function", "tool", "developer"),
    ],
)
