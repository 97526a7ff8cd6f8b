"""What rules look at: a request, whichever API it is for."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal, NamedTuple, Protocol, TypeAlias

from emulator.answers.ask import Ask, CallKind
from emulator.contract.error_words import invalid_header
from emulator.limits import keys
from emulator.rules.globs import folded

SCOPE_HEADER = "X-EMULATION-SCOPE"
_SCOPE = re.compile(r"[A-Za-z0-9._:-]{1,64}")

Message: TypeAlias = Mapping[str, str]
"""The role of a message, and its content."""


AnswerKind: TypeAlias = Literal["texts", "vectors", "flags"]


class Conversation(Protocol):
    """What a request says so far, in the words of rules; each is made when it is asked for."""

    @property
    def user(self) -> str:
        """The last message of the user."""

    @property
    def system(self) -> str:
        """The instructions."""

    @property
    def tool_result(self) -> str | None:
        """The last result of a tool that came after the user last spoke, if one did."""

    @property
    def turn(self) -> int:
        """How many assistant messages came before."""

    @property
    def messages(self) -> Sequence[Message]:
        """All messages."""

    @property
    def tools(self) -> Mapping[str, CallKind]:
        """The tools that are offered, by name."""

    @property
    def may_call(self) -> bool:
        """Whether an answer may call a tool."""

    @property
    def answers(self) -> AnswerKind:
        """What an answer holds."""


class TextConversation:
    """The conversation of a request that has but texts: what the user says.

    Args:
        texts: The texts.
        answers: What an answer holds.
    """

    system = ""
    tool_result = None
    turn = 0
    tools: Mapping[str, CallKind] = {}
    may_call = False

    def __init__(self, texts: Sequence[str], *, answers: AnswerKind = "texts") -> None:
        self._texts = texts
        self.answers = answers

    @property
    def user(self) -> str:
        """The last text."""
        return self._texts[-1] if self._texts else ""

    @property
    def messages(self) -> Sequence[Message]:
        """All texts, each as a message."""
        return [{"role": "user", "content": text} for text in self._texts]


class Seen(NamedTuple):
    """The parts of a request beside its body that rules read: small plain data, sent to helpers.

    Args:
        path: The path of the URL.
        headers: The headers that rules name, by names in small letters.
        key: The sha256 of the API key, in small hex digits; empty if no rule asks for it.
        scope: The scope that the API key names, if it names one.
        attempt: How many attempts came before this one, as the client tells it.
    """

    path: str
    headers: Mapping[str, str] = {}
    key: str = ""
    scope: str | None = None
    attempt: int = 0


def scope_of_key(key: str) -> str | None:
    """Return the scope that an API key names: ``sk-scope-<id>``."""
    return keys.scope_of_key(key) or None


def checked_scope(scope: str | None) -> str:
    """Return a scope; empty if there is none.

    Raises:
        APIError: It is no name of a scope.
    """
    if scope is None:
        return ""
    if _SCOPE.fullmatch(scope) is None:
        raise invalid_header(
            SCOPE_HEADER,
            "expected a key after sk-scope- of 1 to 64 letters, digits, dots, hyphens, colons or "
            f"underscores, but got '{scope[:64]}'",
        )
    return scope


def sha256_of(key: str) -> str:
    """Return the sha256 of an API key, in small hex digits."""
    return hashlib.sha256(key.encode()).hexdigest()


class Subject:
    """One request, as rules look at it.

    Args:
        seen: What stands beside its body.
        ask: What it asks.
        conversation: What it says so far.
        scope: Its scope; empty if it has none.
    """

    def __init__(self, seen: Seen, ask: Ask, conversation: Conversation, scope: str) -> None:
        self.seen = seen
        self.ask = ask
        self.conversation = conversation
        self.scope = scope

    @cached_property
    def raw_text(self) -> str:
        """The last message of the user."""
        return self.conversation.user

    @cached_property
    def text(self) -> str:
        """The same, folded."""
        return folded(self.raw_text)

    @cached_property
    def system(self) -> str:
        """The instructions, folded."""
        return folded(self.conversation.system)

    @cached_property
    def tool_result(self) -> str | None:
        """The last result of a tool, folded; None if there is none."""
        result = self.conversation.tool_result
        return None if result is None else folded(result)

    @cached_property
    def tools(self) -> Mapping[str, CallKind]:
        """The tools that are offered."""
        return self.conversation.tools
