"""Rules and requests for the tests of rules."""

from collections.abc import Mapping
from typing import Any

from emulator.answers.ask import Ask
from emulator.apis.chat.prompt import ChatConversation
from emulator.apis.chat.request import ChatCompletionRequest
from emulator.rules.deciding import Decision
from emulator.rules.globs import Budget
from emulator.rules.reading import check_rules
from emulator.rules.ruleset import Rules
from emulator.rules.subject import Conversation, Seen, Subject
from emulator.settings import Settings
from tests.support.wire import CHAT_PATH, chat

SAYS: Mapping[str, Any] = {"ttft_ms": 1}


def rules_of(*entries: Mapping[str, Any]) -> Rules:
    """Return the rules that these entries of a file make."""
    return check_rules(list(entries), Settings(), {})


def conversation(**body: object) -> Conversation:
    """Return a chat of one message as rules see it, with other members of its body."""
    return ChatConversation(ChatCompletionRequest.model_validate({**chat(), **body}))


def subject(
    talk: Conversation | None = None,
    seen: Mapping[str, Any] | None = None,
    **ask: Any,  # noqa: ANN401 - the fields of Ask
) -> Subject:
    """Return a request as rules look at it."""
    scope = ask.pop("scope", "")
    asked = Ask(**{"model": "gpt-4", **ask})
    look = Seen(**{"path": CHAT_PATH, **(seen or {})})
    return Subject(look, asked, talk or conversation(), scope)


def matched(rules: Rules, of: Subject, seconds: float = 10) -> list[str]:
    """Return the names of the rules that a request matches."""
    found = rules.matcher.match(of, Budget(seconds))
    return [rules.rules[index].name for index in found]


def decided(rules: Rules, of: Subject, *given: str, strict: bool = False) -> Decision:
    """Return what rules decide of a request without a count; the client has `given` fields."""
    return rules.judge(of, frozenset(given), Budget(10), strict=strict)[0]


def asked_of(messages: list[dict[str, Any]], **more: object) -> Subject:
    """Return a chat of these messages as rules look at it."""
    return subject(conversation(messages=messages, **more))
