"""Parts of a prompt, and formats of an answer, that several APIs share."""

from typing import Annotated, Literal

from pydantic import Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from emulator.contract.bodies import RequestModel
from emulator.contract.bounds import AnyObject, Text
from emulator.contract.errors import refusal
from emulator.prompts.attachments import AttachmentError, ImageSource


def _parse_image_url(url: object) -> ImageSource:
    if not isinstance(url, str):
        raise PydanticCustomError("string_type", "not a string")
    try:
        return ImageSource.parse(url)
    except AttachmentError as error:
        raise refusal(str(error), error.code) from None


ImageAddress = Annotated[
    ImageSource,
    PlainValidator(_parse_image_url),
    WithJsonSchema({"type": "string", "format": "uri"}),
]


class ImageURL(RequestModel):
    """A picture, by address or as base64 data."""

    url: ImageAddress
    detail: Literal["auto", "low", "high", "original"] | None = "auto"


class CacheBreakpoint(RequestModel):
    """Where a part of the prompt that is cached ends."""

    mode: Literal["explicit"]


class PromptPart(RequestModel):
    """What the parts of a prompt share: checked and ignored, there is no cache."""

    prompt_cache_breakpoint: CacheBreakpoint | None = None


class InputAudio(RequestModel):
    """Base64 audio data."""

    data: str
    format: Literal["wav", "mp3"]


class RefusalPart(RequestModel):
    """An earlier refusal of the assistant."""

    type: Literal["refusal"]
    refusal: Text


ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]

JsonSchema = AnyObject


class FunctionDefinition(RequestModel):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    name: ToolName
    description: Text | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None


GrammarSyntax = Literal["lark", "regex"]

ToolMode = Literal["none", "auto", "required"]


class TextFormat(RequestModel):
    """Plain text."""

    type: Literal["text"]


class JsonObjectFormat(RequestModel):
    """Any JSON object."""

    type: Literal["json_object"]
