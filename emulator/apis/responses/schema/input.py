"""The items of a response's input."""

from typing import Annotated, Any, Literal

from pydantic import Field, Tag
from typing_extensions import TypeAliasType

from emulator.apis.responses.schema.tools import ResponseTool
from emulator.contract.bodies import ReasoningEffort, RequestModel
from emulator.contract.bounds import (
    MAX_MESSAGES,
    MAX_PARTS,
    MAX_TOOLS,
    Id,
    Label,
    Members,
    Name,
    Text,
)
from emulator.contract.parts import ImageAddress, InputAudio, PromptPart, RefusalPart
from emulator.contract.unions import json_type, other, typed, variant


class InputText(PromptPart):
    """A piece of text."""

    type: Literal["input_text"]
    text: Text


class InputImage(PromptPart):
    """A picture, by address, as base64 data, or by the id of an upload."""

    type: Literal["input_image"]
    image_url: ImageAddress | None = None
    file_id: Label | None = None
    detail: Literal["auto", "low", "high", "original"] | None = "auto"


class InputFileItem(PromptPart):
    """A document; accepted, and not counted."""

    type: Literal["input_file"]
    file_data: str | None = None
    file_id: Label | None = None
    file_url: Text | None = None
    filename: Label | None = None
    detail: Any = None


class InputAudioItem(PromptPart):
    """A sound; accepted, and not counted."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class OutputText(RequestModel):
    """What the assistant said earlier."""

    type: Literal["output_text"]
    text: Text
    annotations: Any = None
    logprobs: Any = None


_TEXT_OR_PARTS = json_type("one of a string or array of objects", text=str, parts=list)
_Text = Annotated[Text, Tag("<text>")]
_PARTS = Members(MAX_PARTS)

InputContentPart = TypeAliasType(
    "InputContentPart",
    Annotated[
        Annotated[InputText, Tag("<input_text>")]
        | Annotated[InputImage, Tag("<input_image>")]
        | Annotated[InputFileItem, Tag("<input_file>")]
        | Annotated[InputAudioItem, Tag("<input_audio>")],
        variant("type", "input_text", "input_image", "input_file", "input_audio"),
    ],
)
InputContent = TypeAliasType(
    "InputContent",
    Annotated[_Text | Annotated[list[InputContentPart], _PARTS, Tag("<parts>")], _TEXT_OR_PARTS],
)
OutputContentPart = TypeAliasType(
    "OutputContentPart",
    Annotated[
        Annotated[OutputText, Tag("<output_text>")] | Annotated[RefusalPart, Tag("<refusal>")],
        variant("type", "output_text", "refusal"),
    ],
)
OutputContent = TypeAliasType(
    "OutputContent",
    Annotated[_Text | Annotated[list[OutputContentPart], _PARTS, Tag("<parts>")], _TEXT_OR_PARTS],
)


class InputItem(RequestModel):
    """What items may have that changes nothing here."""

    id: Label | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    internal_chat_message_metadata_passthrough: Any = None  # Codex's


class InputMessage(InputItem):
    """What the developer or the user says and shows."""

    type: Literal["message"] | None = None
    role: Literal["user", "system", "developer"]
    content: InputContent
    phase: Any = None


class AssistantItem(InputItem):
    """What the assistant answered earlier."""

    type: Literal["message"] | None = None
    role: Literal["assistant"]
    content: OutputContent
    phase: Any = None


MessageItem = TypeAliasType(
    "MessageItem",
    Annotated[
        Annotated[AssistantItem, Tag("<assistant>")]
        | Annotated[InputMessage, Tag("<system>")]
        | Annotated[InputMessage, Tag("<developer>")]
        | Annotated[InputMessage, Tag("<user>")],
        variant("role", "assistant", "system", "developer", "user"),
    ],
)


class FunctionCallItem(InputItem):
    """A call of a function that the assistant made earlier."""

    type: Literal["function_call"]
    call_id: Id
    name: Name
    arguments: Text
    namespace: Label | None = None
    caller: Any = None
    async_: Any = Field(None, alias="async")


class FunctionOutputItem(InputItem):
    """The result of a function."""

    type: Literal["function_call_output"]
    call_id: Id
    output: InputContent
    name: Any = None
    namespace: Label | None = None
    caller: Any = None


class CustomCallItem(InputItem):
    """A call of a custom tool that the assistant made earlier."""

    type: Literal["custom_tool_call"]
    call_id: Id
    name: Name
    input: Text
    namespace: Label | None = None
    caller: Any = None
    async_: Any = Field(None, alias="async")


class CustomOutputItem(InputItem):
    """The result of a custom tool."""

    type: Literal["custom_tool_call_output"]
    call_id: Id
    output: InputContent
    name: Any = None
    namespace: Label | None = None
    caller: Any = None


class ReasoningInput(InputItem):
    """An earlier reasoning; accepted, and not counted."""

    type: Literal["reasoning"]
    summary: Annotated[list[dict[str, Any]], _PARTS]
    content: Annotated[list[dict[str, Any]], _PARTS] | None = None
    encrypted_content: Text | None = None


class ItemReference(InputItem):
    """An item of an earlier response; there is no store, so that it stands for nothing."""

    type: Literal["item_reference"] | None = None
    id: Label


class ItemWithTools(InputItem):
    """More tools: given by the developer, or found by a search for tools."""

    type: Literal["additional_tools", "tool_search_output"]
    tools: Annotated[list[ResponseTool], Members(MAX_TOOLS)]
    role: Literal["developer"] | None = None
    call_id: Any = None
    execution: Any = None


class Compaction(InputItem):
    """What is left of a conversation that was compacted."""

    type: Literal["compaction"]
    encrypted_content: Text
    created_by: Any = None


class CompactionTrigger(InputItem):
    """Asks to compact what comes before it; it is the last item."""

    type: Literal["compaction_trigger"]


class EffortUpdate(RequestModel):
    """How hard to think from here on."""

    effort: ReasoningEffort | None = None


class ConfigurationUpdate(InputItem):
    """What counts from here on in place of the request's; a format of the text is ignored."""

    type: Literal["configuration_update"]
    reasoning: EffortUpdate | None = None
    text: Any = None


# What OpenAI's own tools leave in a conversation: accepted, and not counted.
_OTHER_ITEMS = (
    "apply_patch_call",
    "apply_patch_call_output",
    "code_interpreter_call",
    "computer_call",
    "computer_call_output",
    "file_search_call",
    "image_generation_call",
    "local_shell_call",
    "local_shell_call_output",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "mcp_list_tools",
    "program",
    "program_output",
    "shell_call",
    "shell_call_output",
    "tool_search_call",
    "web_search_call",
)


def _item_type(item: dict[str, Any]) -> str | None:
    if "role" in item:
        return "message"
    return "item_reference" if "id" in item else None


Item = TypeAliasType(
    "Item",
    Annotated[
        Annotated[MessageItem, Tag("<message>")]
        | Annotated[FunctionCallItem, Tag("<function_call>")]
        | Annotated[FunctionOutputItem, Tag("<function_call_output>")]
        | Annotated[CustomCallItem, Tag("<custom_tool_call>")]
        | Annotated[CustomOutputItem, Tag("<custom_tool_call_output>")]
        | Annotated[ReasoningInput, Tag("<reasoning>")]
        | Annotated[ItemReference, Tag("<item_reference>")]
        | Annotated[ItemWithTools, Tag("<additional_tools>")]
        | Annotated[ItemWithTools, Tag("<tool_search_output>")]
        | Annotated[Compaction, Tag("<compaction>")]
        | Annotated[CompactionTrigger, Tag("<compaction_trigger>")]
        | Annotated[ConfigurationUpdate, Tag("<configuration_update>")]
        | Annotated[dict[str, Any], other(*_OTHER_ITEMS), Tag("<other>")],
        typed(
            "message",
            "function_call",
            "function_call_output",
            "custom_tool_call",
            "custom_tool_call_output",
            "reasoning",
            "item_reference",
            "additional_tools",
            "tool_search_output",
            "compaction",
            "compaction_trigger",
            "configuration_update",
            others=_OTHER_ITEMS,
            guess=_item_type,
        ),
    ],
)
Input = TypeAliasType(
    "Input",
    Annotated[
        _Text | Annotated[list[Item], Members(MAX_MESSAGES, least=1), Tag("<items>")],
        json_type("one of a string or array of input items", text=str, items=list),
    ],
)
