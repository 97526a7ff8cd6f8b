"""The prompt of a chat: its texts, its token count, its token ids, and what rules see of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from zlib import crc32

from emulator.answers.ask import CallKind
from emulator.apis.chat.calls import RESULT_ROLES
from emulator.apis.chat.messages import (
    AssistantMessage,
    FunctionToolCall,
    ImagePart,
    InstructionMessage,
    Message,
    TextPart,
    ToolMessage,
    UserMessage,
)
from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.chat.tools import FunctionTool
from emulator.contract.parts import FunctionDefinition, ImageURL, RefusalPart
from emulator.prompts.counting import (
    count_function_tokens,
    count_image_tokens,
    count_prompt_tokens,
)
from emulator.rules import subject
from emulator.rules.subject import AnswerKind
from tokenizer import encode, encoding_name

# The ids that begin, part and end a message in ChatML; they follow the vocabulary of an encoding.
CHATML: Mapping[str, tuple[int, int, int]] = {
    "cl100k_base": (100_264, 100_266, 100_265),
    "o200k_base": (200_264, 200_266, 200_265),
    "p50k_base": (50_281, 50_282, 50_283),
}
CHATML_TEXTS = ("<|im_start|>", "<|im_sep|>", "<|im_end|>")


@dataclass(slots=True)
class PromptParts:
    """The parts of a chat that count as prompt tokens.

    Args:
        messages: How many messages there are.
        named: How many of them have a name.
        texts: Every string value of the messages.
        images: The pictures.
        functions: The functions that are offered.
    """

    messages: int
    named: int
    texts: tuple[str, ...]
    images: tuple[ImageURL, ...]
    functions: tuple[FunctionDefinition, ...]


def gather(
    messages: Sequence[Message], functions: tuple[FunctionDefinition, ...] = ()
) -> PromptParts:
    """Return the parts of some messages that count as prompt tokens."""
    texts: list[str] = []
    images: list[ImageURL] = []
    named = 0
    for message in messages:
        texts.append(message.role)
        if isinstance(message.content, str):
            texts.append(message.content)
        else:
            for part in message.content or ():
                if isinstance(part, TextPart):
                    texts.append(part.text)
                elif isinstance(part, ImagePart):
                    images.append(part.image_url)
                elif isinstance(part, RefusalPart):
                    texts.append(part.refusal)
        if isinstance(message, ToolMessage):
            texts.append(message.tool_call_id)
        elif message.name is not None:
            named += 1
            texts.append(message.name)
        if isinstance(message, AssistantMessage):
            texts.extend(_assistant_texts(message))
    return PromptParts(len(messages), named, tuple(texts), tuple(images), functions)


def _assistant_texts(message: AssistantMessage) -> Iterator[str]:
    if message.refusal is not None:
        yield message.refusal
    calls = [message.function_call] if message.function_call else []
    for call in message.tool_calls or ():
        if isinstance(call, FunctionToolCall):
            calls.append(call.function)
        else:
            yield call.custom.name
            yield call.custom.input
    for function in calls:
        yield function.name
        yield function.arguments


class ChatPrompt:
    """The prompt of one chat."""

    def __init__(self, chat: ChatCompletionRequest) -> None:
        self._chat = chat
        self._parts = gather(chat.messages, chat.offered_functions)
        self.texts = self._parts.texts

    def count(self) -> int:
        """Return the prompt tokens: of texts, images and functions."""
        model, parts = self._chat.model, self._parts
        text = count_prompt_tokens(model, parts.texts, parts.messages, parts.named)
        images = sum(_image_tokens(model, image) for image in parts.images)
        return text + images + count_function_tokens(model, parts.functions)

    def ids(self) -> Sequence[Sequence[int]]:
        """Return the token ids of the one prompt."""
        return [prompt_ids(self._chat)]


def prompt_ids(chat: ChatCompletionRequest) -> list[int]:
    """Return the token ids of a chat: functions, messages, and the start of the answer.

    There are as many as `ChatPrompt.count` counts. Images and functions have no token ids. Each
    takes its count of one id below 0, which is the same for the same functions and for images of
    the same size.
    """
    model = chat.model
    start, part, end = CHATML[encoding_name(model)]
    functions = chat.offered_functions
    ids = [_stand_in(functions)] * count_function_tokens(model, functions)
    for message in chat.messages:
        parts = gather([message])
        role, *texts = (encode(text, model) for text in parts.texts)
        words = [token for text in texts for token in text]
        for image in parts.images:
            words += [_stand_in(image)] * _image_tokens(model, image)
        # What a message costs beside its words: 3 of the reply, and 3 or so of its own.
        around = count_prompt_tokens(model, (), 1, parts.named) - 3
        ids += [start, *role, part, *words, *[end] * (around - 2)]
    return [*ids, start, encode("assistant", model)[0], part]


def _image_tokens(model: str, image: ImageURL) -> int:
    return count_image_tokens(model, image.url.width, image.url.height, image.detail)


def _stand_in(content: object) -> int:
    return -1 - (crc32(repr(content).encode()) & 0x7FFFFFFF)


# --------------------------------------------------------------------------------------
# In the words of rules
# --------------------------------------------------------------------------------------


class ChatConversation:
    """What a chat says so far; Responses are read as chats.

    Args:
        chat: The chat.
    """

    answers: AnswerKind = "texts"

    def __init__(self, chat: ChatCompletionRequest) -> None:
        self._chat = chat

    @cached_property
    def user(self) -> str:
        """The last message of the user."""
        users = (m for m in reversed(self._chat.messages) if isinstance(m, UserMessage))
        return next((_text(message) for message in users), "")

    @cached_property
    def system(self) -> str:
        """The instructions, each on a line of its own."""
        messages = self._chat.messages
        return "\n".join(_text(m) for m in messages if isinstance(m, InstructionMessage))

    @cached_property
    def tool_result(self) -> str | None:
        """The last result of a tool that came after the user last spoke, if one did."""
        for message in reversed(self._chat.messages):
            if message.role in RESULT_ROLES:
                return _text(message)
            if isinstance(message, UserMessage):
                return None
        return None

    @cached_property
    def turn(self) -> int:
        """How many assistant messages came before."""
        return sum(message.role == "assistant" for message in self._chat.messages)

    @property
    def messages(self) -> Sequence[subject.Message]:
        """All messages, each with its role and its text."""
        return [{"role": m.role, "content": _text(m)} for m in self._chat.messages]

    @cached_property
    def tools(self) -> Mapping[str, CallKind]:
        """The tools that are offered, by name."""
        chat = self._chat
        offered: dict[str, CallKind] = {}
        for tool in chat.tools or ():
            if isinstance(tool, FunctionTool):
                offered[tool.function.name] = "function"
            else:
                offered[tool.custom.name] = "custom"
        if chat.tools is None:
            offered = {function.name: "function_call" for function in chat.functions or ()}
        return offered

    @property
    def may_call(self) -> bool:
        """Whether the choice of tools allows a call."""
        return "none" not in (self._chat.tool_choice, self._chat.function_call)


def _text(message: Message) -> str:
    """Return the texts of a message."""
    content = message.content
    if content is None or isinstance(content, str):
        return content or ""
    parts: list[str] = []
    for part in content:
        if isinstance(part, TextPart):
            parts.append(part.text)
        elif isinstance(part, RefusalPart):
            parts.append(part.refusal)
    return "\n".join(parts)
