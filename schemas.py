"""The wire format: the door to the models of all APIs, which stand in the rooms of their APIs.

`emulator/contract/` holds what the APIs share, `emulator/apis/` what each has of its own.
"""

from emulator.apis.chat.answer import ChatCompletion, ChatCompletionChunk, CompletionList
from emulator.apis.chat.messages import (
    AssistantMessage,
    AudioPart,
    FilePart,
    FunctionMessage,
    ImagePart,
    InstructionMessage,
    Message,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.chat.tools import (
    AllowedToolsChoice,
    CustomChoice,
    CustomTool,
    FunctionChoice,
    FunctionTool,
    JsonSchemaFormat,
    ResponseFormat,
    Tool,
    ToolChoice,
)
from emulator.apis.completions.schema import Completion, CompletionRequest
from emulator.apis.embeddings.schema import EmbeddingList, EmbeddingRequest
from emulator.apis.models.schema import Health, Model, ModelList
from emulator.apis.moderations.schema import Moderation, ModerationList, ModerationRequest
from emulator.apis.responses.schema.answer import InputTokens, Response
from emulator.apis.responses.schema.request import InputTokensRequest, ResponsesRequest
from emulator.contract.bodies import ModelRequest, RequestModel, StreamOptions
from emulator.contract.errors import APIError, ErrorBody, ErrorEnvelope
from emulator.contract.headers import EmulationHeaders
from emulator.contract.parts import (
    FunctionDefinition,
    ImageURL,
    InputAudio,
    JsonObjectFormat,
    RefusalPart,
    TextFormat,
)
from emulator.contract.usage import Usage

__all__ = [
    "APIError",
    "AllowedToolsChoice",
    "AssistantMessage",
    "AudioPart",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatCompletionRequest",
    "Completion",
    "CompletionList",
    "CompletionRequest",
    "CustomChoice",
    "CustomTool",
    "EmbeddingList",
    "EmbeddingRequest",
    "EmulationHeaders",
    "ErrorBody",
    "ErrorEnvelope",
    "FilePart",
    "FunctionChoice",
    "FunctionDefinition",
    "FunctionMessage",
    "FunctionTool",
    "Health",
    "ImagePart",
    "ImageURL",
    "InputAudio",
    "InputTokens",
    "InputTokensRequest",
    "InstructionMessage",
    "JsonObjectFormat",
    "JsonSchemaFormat",
    "Message",
    "Model",
    "ModelList",
    "ModelRequest",
    "Moderation",
    "ModerationList",
    "ModerationRequest",
    "RefusalPart",
    "RequestModel",
    "Response",
    "ResponseFormat",
    "ResponsesRequest",
    "StreamOptions",
    "TextFormat",
    "TextPart",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "ToolMessage",
    "Usage",
    "UserMessage",
]
